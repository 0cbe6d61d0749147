"""Parts of a measurement beside each other: each answers, in its own time, and one failure ends all."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from creditbench.errors import MachineError, UsageError
from creditbench.executors import spread
from creditbench.executors.spread import Spread

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")

ENTRY = f"{__name__}:part"
#: What the parts of a test share: they run in threads of this process.
RUNNING = threading.Barrier(2)
ENDED: list[int] = []


def part(slot, number, of="", meets=False, pause=0.0):
    """Two messages; with `meets` only once two parts run."""
    try:
        if meets:
            RUNNING.wait(10)
        time.sleep(pause)
        if of:
            raise {"usage": UsageError, "other": ZeroDivisionError}[of](f"the part {number} is refused")
        yield {"number": number, "slot": slot}
        yield {"number": number, "again": True}
    finally:
        ENDED.append(number)


def lost(text):
    raise distributed.KilledWorker("part", SimpleNamespace(address="tcp://h:1"), 3)


@pytest.fixture(autouse=True)
def fresh():
    RUNNING.reset()
    ENDED.clear()


def orders(count, **others):
    return [{"number": number} | others for number in range(count)]


def test_parts_come_with_their_number_and_one_at_a_time_in_order():
    found = list(Spread().run(ENTRY, orders(2)))
    said = [({"number": n, "slot": 0}, {"number": n, "again": True}) for n in (0, 1)]
    assert found == [(n, message) for n in (0, 1) for message in said[n]]


def test_several_run_beside_each_other_on_cores_of_their_own(monkeypatch):
    monkeypatch.setattr(spread, "usable_cores", lambda: [0, 1])
    found = list(Spread(jobs=2).run(ENTRY, orders(4, meets=True)))
    assert sorted(n for n, _ in found) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(message["number"] == n for n, message in found)
    assert {message["slot"] for _, message in found if "slot" in message} == {0, 1}


@pytest.mark.parametrize("error", [UsageError, ZeroDivisionError])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_part_that_fails_ends_the_whole(jobs, error, monkeypatch):
    monkeypatch.setattr(spread, "usable_cores", lambda: [0, 1])
    asked = [{"number": 0, "of": "usage" if error is UsageError else "other"}, *orders(50)[1:]]
    with pytest.raises(error, match="the part 0 is refused"):
        list(Spread(jobs=jobs).run(ENTRY, asked))
    assert 0 in ENDED


def test_whoever_closes_the_iterator_ends_the_parts(monkeypatch):
    monkeypatch.setattr(spread, "usable_cores", lambda: [0, 1])
    coming = Spread(jobs=2).run(ENTRY, orders(100, pause=0.02))
    next(coming)
    coming.close()
    assert ENDED and len(ENDED) < 100


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"executor": "inline"}, "unknown executor 'inline'"),
        ({"jobs": 0}, "--jobs is 0: give a whole number from 1"),
        ({"jobs": 3}, "this process may use 2 cores: give --jobs 2 or fewer"),
        ({"jobs": 2, "threads": 2}, "--jobs is 2 with 2 threads each"),
        ({"scheduler": "tcp://h:1"}, "the executor is 'local': give --executor dask"),
        ({"scheduler": "tcp://h:1", "executor": "dask", "jobs": 2}, "its workers decide; leave out --jobs"),
    ],
)
def test_what_cannot_be_is_told_of(options, said, monkeypatch):
    monkeypatch.setattr(spread, "usable_cores", lambda: [0, 1])
    with pytest.raises(UsageError) as caught:
        Spread(**options)
    assert said in str(caught.value)


def test_without_distributed_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'creditbench\[cluster\]'"):
        Spread(executor="dask")


def test_a_cluster_gives_the_same_and_says_what_it_refuses(monkeypatch):
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        joined = Spread(executor="dask", scheduler=cluster.scheduler_address)
        found = list(joined.run(ENTRY, orders(3)))
        assert {n for n, _ in found} == {0, 1, 2} and len(found) == 6
        assert {message["slot"] for _, message in found if "slot" in message} <= {0, 1}
        with pytest.raises(UsageError, match="the part 1 is refused"):
            list(joined.run(ENTRY, [{"number": 1, "of": "usage"}]))
        monkeypatch.setattr(spread, "run_part", lost)
        with pytest.raises(MachineError, match="the part 1 of 1 has lost its worker 4 times"):
            list(joined.run(ENTRY, orders(1)))
        monkeypatch.undo()
        monkeypatch.setattr(
            "creditbench.executors.dask_worker.another", lambda wanted: "has another creditbench"
        )
        with pytest.raises(UsageError, match=r"worker inproc://\S+ has another creditbench"):
            list(joined.run(ENTRY, orders(1)))

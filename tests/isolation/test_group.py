"""Control groups of confined processes: where one can be had, and that it holds what the watch cannot see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from creditbench.errors import MachineError
from creditbench.isolation import Confined, ConfinedError, Limits, confined, group, memory

ENTRIES = "tests.isolation.confined_entries"
TESTS = Path(__file__).parents[1]
LIMITS = Limits(seconds=60.0, memory=300_000_000, file_bytes=1 << 20)

grouped = pytest.mark.skipif(group.place() is None, reason="no control group of version 2 can be made here")


# -- where one can be had --------------------------------------------------------------------------------


def make(path: Path, **files: str) -> Path:
    """A control group as a folder of files, `a_b` for the file `cgroup.a_b`."""
    path.mkdir(exist_ok=True)
    for name, text in {"controllers": "cpu memory pids", "subtree_control": "", "procs": ""}.items():
        (path / f"cgroup.{name}").write_text(files.get(name, text))
    return path


def below(path: Path, **files: str) -> Path:
    make(path, **files)
    (path / "cgroup.type").write_text("domain")
    (path / "memory.max").write_text(files.get("max", "max\n"))
    return path


def test_the_root_of_the_hierarchy_is_a_place(tmp_path):
    root = make(tmp_path / "root")
    assert group.find(root, root) == root
    assert (root / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert group.find(make(tmp_path / "other", controllers="cpu io"), tmp_path / "other") is None
    ready = make(tmp_path / "ready", subtree_control="cpu memory pids")
    assert group.find(ready, ready) == ready
    assert (ready / "cgroup.subtree_control").read_text() == "cpu memory pids"


@pytest.mark.parametrize(
    ("above", "inside", "found"),
    [
        ({"subtree_control": "cpu memory pids\n"}, {}, True),
        ({"subtree_control": "cpu pids\n"}, {"controllers": "cpu pids"}, False),
        ({"subtree_control": "memory pids\n"}, {"max": "1000000\n", "procs": "0\n"}, False),
    ],
)
def test_a_group_beside_ones_own_is_made_where_the_one_above_limits_it(above, inside, found, tmp_path):
    """A group with a limit is not left, since that limit is for all that runs in it."""
    top = make(tmp_path / "top")
    slice_ = below(top / "app.slice", **above)
    scope = below(slice_ / "run.scope", **inside)
    assert group.find(scope, top) == (slice_ if found else None)


def test_a_session_that_is_not_this_users_is_no_place(tmp_path, monkeypatch):
    top = make(tmp_path / "top")
    scope = below(below(top / "slice", subtree_control="memory pids") / "scope")
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).samefile(top / "slice"))
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert group.find(scope, top) is None


def test_the_processes_of_a_container_move_into_a_group_of_their_own(tmp_path):
    top = below(tmp_path / "top", procs="12\n34\n")
    main = make(top / "creditbench-main")
    assert group.find(top, top) == top
    assert (main / "cgroup.procs").read_text() == "34"  # a file keeps the last of them
    assert (top / "cgroup.subtree_control").read_text() == "+memory +pids"
    # One that cannot be seen from here cannot be moved.
    other = below(tmp_path / "other", procs="0\n12\n")
    assert group.find(other, other) is None and not (other / "creditbench-main").exists()


@pytest.mark.parametrize(
    ("root", "path", "inside"),
    [
        ("/", "/", "."),
        ("/", "/user.slice/run.scope", "user.slice/run.scope"),
        ("/docker/abc", "/docker/abc", "."),
        ("/docker/abc", "/docker/abc/x", "x"),
        ("/docker/abc", "/docker", None),
        ("/", None, None),
    ],
)
def test_the_own_group_is_found_below_the_place_where_the_hierarchy_is_mounted(
    root, path, inside, tmp_path, monkeypatch
):
    make(tmp_path / "user.slice")
    for name in ("", "x", "user.slice/run.scope"):
        make(tmp_path / name)
    files = {
        "/proc/self/mountinfo": "22 1 0:20 / /proc rw - proc proc rw\n"
        f"30 25 0:26 {root} {tmp_path} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
        "/proc/self/cgroup": "5:memory:/old\n" + (f"0::{path}\n" if path else ""),
    }
    monkeypatch.setattr(group, "_read", lambda file: files[str(file)])
    assert group.own() == (None if inside is None else (tmp_path / inside, tmp_path))


def test_empty_groups_of_processes_that_have_ended_are_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = {
        "kept": (f"creditbench-{os.getpid()}-a", "creditbench-main", "another", f"creditbench-{ended.pid}-b"),
        "removed": (f"creditbench-{ended.pid}-c",),
    }
    for name in (*names["kept"], *names["removed"]):
        (tmp_path / name).mkdir()
    (tmp_path / names["kept"][-1] / "in_use").touch()
    group.clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names["kept"])


def test_where_no_group_can_be_had_all_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(confined, "place", lambda: tmp_path / "gone")
    assert memory() == "counted"


# -- what it holds ---------------------------------------------------------------------------------------


@pytest.fixture
def unwatched(monkeypatch):
    """The watch sees no memory, and no group is left behind."""
    monkeypatch.setattr(confined, "taken", lambda number: (0, 1))
    yield
    assert not list(group.place().glob(f"creditbench-{os.getpid()}-*"))


@grouped
@pytest.mark.parametrize(
    ("entry", "order", "device"),
    [("takes_at_once", {"bytes": 1 << 30}, "cpu"), ("shares_and_lets_go", {"parts": 64}, "cuda")],
)
def test_memory_that_the_watch_does_not_see_is_held_by_the_kernel(entry, order, device, unwatched):
    """With the device "cuda" shared memory is open to a process, with a GPU or without."""
    with (
        pytest.raises(ConfinedError) as caught,
        Confined(f"{ENTRIES}:{entry}", order, readable=[TESTS], limits=LIMITS, device=device) as child,
    ):
        child.receive()
    assert caught.value.status == "oom" and not isinstance(caught.value, MachineError)
    assert caught.value.detail.endswith("MB of memory taken, over the limit of 300 MB")
    assert memory() == "control group v2"


@grouped
def test_a_group_of_processes_has_limits_and_all_in_it_end_together(unwatched):
    limits = Limits(processes=3)
    with Confined(f"{ENTRIES}:forks", {"count": 3}, readable=[TESTS], limits=limits) as child:
        child.receive()
        assert len(child.group.members()) == 4
        assert (child.group.path / "memory.swap.max").read_text() in ("0\n", "")
        assert int((child.group.path / "pids.max").read_text()) == confined._WALL * confined._MOST_THREADS + 3
        members = child.group.members()
    assert not any(Path(f"/proc/{number}/exe").exists() for number in members)


@grouped
def test_a_process_that_was_killed_from_outside_did_not_run_out_of_memory(unwatched):
    with Confined(f"{ENTRIES}:waits", {}, readable=[TESTS]) as child:
        child.receive()
        os.kill(child.process.pid, signal.SIGKILL)
        with pytest.raises(MachineError, match="killed from outside, by SIGKILL"):
            child.receive()


@grouped
def test_of_a_parent_that_was_killed_the_next_start_leaves_nothing():
    code = f"""
from pathlib import Path
from creditbench.isolation import Confined
with Confined("{ENTRIES}:waits", {{}}, readable=[Path({str(TESTS)!r})]) as child:
    child.receive()
    print(child.group.path, flush=True)
    child.receive()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=TESTS.parent
    )
    path = Path(parent.stdout.readline().strip())
    assert path.parent == group.place() and group._read(path / "cgroup.procs")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while group._read(path / "cgroup.procs") and time.monotonic() < deadline:
        time.sleep(0.01)
    group.clear(group.place())
    assert not path.exists()

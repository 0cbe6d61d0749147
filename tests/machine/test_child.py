"""A child process: its messages, its time limits, and the report of its end."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from creditbench.machine.child import Child, child_environment, ending

TALKS = "import sys; from creditbench.machine.child import Send; send = Send(*map(int, sys.argv[1:3])); "
ECHOES = TALKS + "\nwhile (order := send.receive()) is not None: send(back=order)"


def test_what_is_sent_comes_back_whatever_its_length():
    """Both ways a pipe holds less than that."""
    with Child("-c", ECHOES) as child:
        for value in (1, "ä\n", "x" * (3 << 20)):
            child.send(value=value)
            assert child.receive(60.0) == {"back": {"value": value}}
        assert child.code() is None
    assert child.process.returncode == -signal.SIGKILL


def test_nothing_of_what_is_said_before_the_end_is_lost():
    program = TALKS + "\nfor i in range(5000): send(i=i)\nsend.line('{\"whole\": true}')"
    with Child("-c", program) as child:
        said = list(child.messages(60.0))
        assert [message.get("i") for message in said] == [*range(5000), None] and said[-1] == {"whole": True}
        assert child.receive() is None and child.code(10.0) == 0


def test_the_deadline_of_a_message_is_kept_and_a_hung_process_is_killed():
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    clock = time.monotonic()
    with Child("-c", program) as child:
        with pytest.raises(TimeoutError, match=r"no message within 0\.3 s"):
            child.receive(0.3)
        assert child.code() is None
    assert 0.3 <= time.monotonic() - clock < 30
    assert child.process.returncode == -signal.SIGKILL and not psutil.pid_exists(child.process.pid)


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        ("raise SystemExit(3)", 3, "exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -11, "killed by SIGSEGV"),
        ("pass", 0, "exit code 0"),
    ],
)
def test_how_it_ended_and_its_last_words(end, code, told):
    words = "\n".join(f"print({line!r}, flush=True)" for line in ("one", "two\x1b", "", "three", "four "))
    with Child("-c", f"{words}\n{end}") as child:
        assert child.receive(60.0) is None
        found = child.code(60.0)
        assert (found, ending(found)) == (code, told)
        assert child.last_lines() == "two | three | four" and child.last_line() == "four"
        first = len(child.printed()) - len(b"four \n")
        assert child.last_lines(first) == "four" and child.printed(0, 3) == b"one"
        child.note("added")
        assert child.last_line() == "added"
        child.forget()
        assert (child.size(), child.last_lines(), child.last_line()) == (0, "", "")


def test_last_words_are_short():
    with Child("-c", "print('x' * 9000 + 'end')") as child:
        assert child.receive(60.0) is None
        assert len(child.last_lines()) == 301 and child.last_lines().endswith("xend")


def test_a_line_that_is_longer_than_it_may_be_is_not_read_to_its_end():
    program = "import os, sys\nwhile True: os.write(int(sys.argv[2]), b'x' * 1000)"
    with Child("-c", program, longest=10_000) as child:
        with pytest.raises(ValueError, match="a line of more than 10000 bytes"):
            child.receive(60.0)
        assert child.endless and len(child.rest) < 200_000 and not child.ended
    with Child("-c", TALKS + "send(long='x' * 20_000)", longest=100_000) as child:
        assert len(child.receive(60.0)["long"]) == 20_000


def test_what_is_no_json_is_an_error():
    with (
        Child("-c", "import os, sys; os.write(int(sys.argv[2]), b'no json\\n')") as child,
        pytest.raises(ValueError, match="Expecting value"),
    ):
        child.receive(60.0)


def test_an_order_to_a_process_that_has_gone_is_no_error():
    with Child("-c", "pass") as child:
        assert child.code(60.0) == 0
        child.send(much="x" * (1 << 20))
        assert child.push() is False and child.receive(1.0) is None


def test_its_session_is_killed_with_it_and_no_descriptor_stays():
    program = (
        TALKS
        + "import os, time\nnumber = os.fork()\nsend(number=number) if number else None\ntime.sleep(600)"
    )
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with Child("-c", program) as child:
        below = psutil.Process(child.receive(60.0)["number"])
        assert os.getsid(child.process.pid) == child.process.pid
    deadline = time.monotonic() + 10
    while below.is_running() and below.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not below.is_running() or below.status() == psutil.STATUS_ZOMBIE
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_one_that_cannot_be_started_leaves_nothing(tmp_path):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(OSError, match="no_such_folder"):
        Child("-c", "pass", folder=tmp_path / "no_such_folder")
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_its_environment_holds_the_pools_and_keeps_jax_to_the_cpu_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    found = child_environment(2)
    assert (found["OMP_NUM_THREADS"], found["JAX_PLATFORMS"]) == ("2", "cpu") and found["PATH"]
    assert "JAX_PLATFORMS" not in child_environment(2, "cuda")
    assert child_environment(1, "cpu", {"JAX_PLATFORMS": "cuda"})["JAX_PLATFORMS"] == "cuda"
    assert "PATH" not in child_environment(1, "cpu", {})

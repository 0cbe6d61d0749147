"""`creditbench doctor`: finds out without harm what works on a machine."""

from __future__ import annotations

import sys

import pytest

from creditbench import isolation
from creditbench.check import doctor
from creditbench.cli import main
from creditbench.cli.doctor import _confinement
from creditbench.errors import UsageError


@pytest.mark.needs("jax")
def test_a_backend_that_works_says_what_it_has():
    found = doctor.examine("jax")
    assert found["works"] and not found["error"]
    assert any("cpu" in device.lower() for device in found["devices"])
    assert found["gemm_gflops"] > 0 and found["triad_gbytes"] > 0


@pytest.mark.needs("torch")
def test_each_accelerator_has_peaks_of_its_own_or_says_why_not(monkeypatch, capsys):
    def ask(backend, threads, device="cpu"):
        asked.append((threads, device))
        if device == "cuda:1":
            return {"error": "exit code 1: out of memory"}
        devices = ["cpu", "cuda:0 (A GPU)", "cuda:1 (A GPU)"]
        return {"devices": devices, "import_seconds": 1.0, "gemm_gflops": 3.0, "triad_gbytes": 2.0}

    asked = []
    monkeypatch.setattr(doctor, "_ask", ask)
    found = doctor.examine("torch")
    assert found["works"] and asked[-2:] == [(1, "cuda:0"), (1, "cuda:1")]
    assert [peak["device"] for peak in found["peaks"]] == ["cpu"] * (len(asked) - 2) + ["cuda:0", "cuda:1"]
    assert found["peaks"][-2] == {
        "device": "cuda:0",
        "threads": 1,
        "gemm_gflops": 3.0,
        "triad_gbytes": 2.0,
        "error": None,
    }
    assert main(["doctor"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["cuda:0", "speed", "3.0", "GFLOP/s,", "2.0", "GB/s"] in lines
    assert ["cuda:1", "speed", "exit", "code", "1:", "out", "of", "memory"] in lines


@pytest.mark.needs("jax")
def test_a_broken_backend_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "jax.py").write_text("raise ImportError('libfoo.so is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    found = doctor.examine("jax")
    assert not found["works"]
    assert "libfoo.so is missing" in found["error"]
    with pytest.raises(UsageError, match="jax cannot be used on cuda"):
        doctor.require_device("jax", "cuda")


def test_a_backend_that_is_not_installed_is_named_with_its_cure():
    assert doctor.examine("no_such_backend")["error"] == "not installed: pip install no_such_backend"
    with pytest.raises(UsageError, match="pip install no_such_backend"):
        doctor.require_device("no_such_backend", "cpu")


def test_machine_knows_cores_and_memory():
    found = doctor.machine()
    assert 1 <= found["cores_usable"] <= found["cores"]
    assert found["memory_bytes"] > 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has the confinement")
def test_what_confined_code_is_refused_is_tried_out(monkeypatch):
    found = doctor.confinement()
    reached = {
        "files",
        "processes",
        "network",
        "signals",
        "modes",
        "attributes",
        "leases",
        "watches",
        "timers",
    }
    assert set(found["refused"]) == reached | {"shared memory", "hidden files"}
    assert all(found["refused"].values()) or found["error"]
    assert found["memory"] in ("control group v2", "counted")
    assert _confinement(found).endswith(f"; memory: {found['memory']}") or found["error"]
    assert "refused: " in _confinement(found) and "not refused: " not in _confinement(found)
    without = found | {"refused": found["refused"] | {"leases": False, "timers": False}}
    assert "; not refused: leases, timers" in _confinement(without)
    # Without the kernel's means only the watch is left, and the tryout reports it.
    boot = isolation.confined._BOOT.replace(
        "from",
        "from creditbench.isolation import kernel\nkernel.seccomp = kernel.landlock = lambda: 0\nfrom",
        1,
    )
    monkeypatch.setattr(isolation.confined, "_BOOT", boot)
    found = doctor.confinement()["refused"]
    assert [name for name, is_refused in found.items() if is_refused] == ["hidden files"]
    monkeypatch.setattr(isolation.confined, "_BOOT", "raise SystemExit(3)")
    assert "a confined process did not start: exit code 3" in _confinement(doctor.confinement())

"""The environment of a record: the machine, and its load."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from creditbench.machine import environment, frameworks, memory
from creditbench.machine.environment import constant, environment_id, fingerprint, host, usable_memory


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_fingerprint_names_machine_versions_and_settings(backend):
    found = fingerprint(backend)
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"] and found["cores"] >= found["cores_usable"] >= 1
    assert 0 < found["memory_usable_bytes"] <= found["memory_bytes"]
    assert backend in found["packages"] and found["packages"]["numpy"]
    assert ("torch" if backend == "jax" else "jax") not in found["packages"]
    assert found["accelerators"] == []


def test_load_is_taken_anew_and_is_no_part_of_the_identity(monkeypatch):
    monkeypatch.setattr("psutil.getloadavg", lambda: (0.5, 0.25, 0.125))
    first = fingerprint("jax")
    monkeypatch.setattr("psutil.getloadavg", lambda: (9.0, 5.0, 1.0))
    second = fingerprint("jax")
    assert first["host"]["load"] == [0.5, 0.25, 0.12] and second["host"]["load"] == [9.0, 5.0, 1.0]
    assert constant(first) == constant(second) and "host" not in constant(first)
    assert environment_id(first) == environment_id(second)


@pytest.mark.parametrize("name", ["cpu", "packages", "threads", "variables", "commit", "precision"])
def test_everything_else_is_part_of_the_identity(name):
    found = fingerprint("torch")
    assert environment_id(found) != environment_id(found | {name: "another"})


@pytest.mark.needs("torch")
def test_number_formats_are_those_of_the_framework_in_use():
    code = "from creditbench.machine.environment import fingerprint; import sys\n"
    code += "print(fingerprint('torch')['precision'], 'torch' in sys.modules)\n"
    code += "import torch; torch.backends.cuda.matmul.allow_tf32 = True\n"
    code += "print(fingerprint('torch')['precision']['tf32_matmul'])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["None", "False", "True"]


@pytest.mark.parametrize(
    ("backend", "settings"),
    [
        ("jax", {"JAX_ENABLE_X64": "1", "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"}),
        ("torch", {"ATEN_CPU_CAPABILITY": "default"}),
    ],
)
def test_what_a_user_sets_that_changes_numbers_makes_another_environment(backend, settings):
    """Each setting by itself."""
    code = "from creditbench.machine.environment import environment_id, fingerprint\n"
    code += "from creditbench.ops import make_ops\n"
    code += f"make_ops({backend!r}); found = fingerprint({backend!r})\n"
    code += "print(environment_id({'of': found['precision']}), environment_id({'of': found['variables']}))"

    def said(**extra: str) -> list[str]:
        plain = {key: value for key, value in os.environ.items() if key not in environment.NUMERIC_VARIABLES}
        asked = [sys.executable, "-c", code]
        return subprocess.run(
            asked, capture_output=True, text=True, check=True, env=plain | extra
        ).stdout.split()

    plain = said()
    for name, value in settings.items():
        for before, changed in zip(plain, said(**{name: value}), strict=True):
            assert before != changed, name


def test_git_is_asked_once_for_a_process(monkeypatch):
    environment._constant.cache_clear()
    asked = []
    monkeypatch.setattr(environment, "_git", lambda *args: asked.append(args) or "")
    try:
        fingerprint("jax")
        fingerprint("jax")
        assert len(asked) == 2  # for the commit, and for what has changed since
    finally:
        environment._constant.cache_clear()


def test_graphics_cards_are_as_the_driver_gives_them(monkeypatch):
    said = "NVIDIA H100 80GB HBM3, 81559 MiB, 550.54.15\nNVIDIA T4, 15360 MiB, 550.54.15"
    monkeypatch.setattr(environment, "_run", lambda command: said if command[0] == "nvidia-smi" else None)
    first, second = environment._accelerators()
    assert first == {"name": "NVIDIA H100 80GB HBM3", "memory": "81559 MiB", "driver": "550.54.15"}
    assert second["name"] == "NVIDIA T4"
    monkeypatch.setattr(environment, "_run", lambda command: None)
    assert environment._accelerators() == []


def test_a_command_that_is_missing_or_fails_says_nothing():
    assert environment._run(["no-such-command-here"]) is None
    assert environment._run([sys.executable, "-c", "raise SystemExit(1)"]) is None


def test_memory_in_use_is_seen():
    before = host()["memory_available_bytes"]
    assert 0 < before <= usable_memory() * 1.01 or usable_memory() < before  # a control group may allow less


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be set back on Linux alone")
def test_the_peak_counts_from_the_last_reset():
    def take(megabytes):
        return len(b"x" * (megabytes << 20))

    take(64)
    level, _ = memory.settle()
    assert memory.peak_bytes() - level < 8 << 20
    take(96)
    assert 95 << 20 <= memory.peak_bytes() - level < 104 << 20
    assert memory.settle()[0] < level + (8 << 20)


def test_the_default_backend_is_one_that_is_installed(monkeypatch):
    assert frameworks.installed()[0] == frameworks.DEFAULT
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "jax" else name)
    assert frameworks.installed() == ["torch"]

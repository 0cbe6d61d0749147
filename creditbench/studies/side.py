"""One side of a comparison of two revisions: a process that measures the rules of a checkout, on request.

`python -P side.py ORDERS REPORTS BACKEND THREADS`, with a checkout of creditbench in PYTHONPATH, answers the
requests that come over one file descriptor on the other, a line of JSON each. Rules, `ops`, cell and
optimisers are the checkout's. The measuring code is always that of this file's own checkout, so that both
sides are measured alike.

With two further arguments, PROJECT and a JSON list of files, the rules are those of that folder
(`creditbench.plugins.project`), and all else is this package's. The rules of either kind are imported here,
with all rights of whoever runs this.

Nothing of the package is imported before the first request, not even `creditbench.machine.child`: a
failed import of the checkout must be answered too.

| request | answer |
| --- | --- |
| `{"do": "list"}` | `learners`: ids and their backends |
| `{"do": "prepare", "learner": ID}` | `figures`: the exact ones, by name; `uncounted`: why one is missing |
| `{"do": "block", "repeat": R}` | `seconds` of processor time that R calls of the prepared program took |

An error is answered with `crashed`, a sentence.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: Sizes at which rules are compared: a whole chunk of steps, and a net small enough for `rtrl`.
INPUTS, HIDDEN, OUTPUTS, STEPS, BATCH = 2, 64, 2, 64, 1
#: Segments of one call.
SEGMENTS = 2


def _own_measure() -> None:
    """Load the measuring code from this file's own checkout, wherever the rest of the package comes from."""
    package = Path(__file__).resolve().parents[1]
    _load("creditbench.measure", package / "measure" / "__init__.py")
    # An older checkout may have no subpackages: its modules lie elsewhere.
    if importlib.util.find_spec("creditbench.machine") is None:
        _load("creditbench.machine", package / "machine" / "__init__.py")
    # Nothing more of that subpackage: the checkout itself says where its rules lie.
    _load("creditbench.machine.memory", package / "machine" / "memory.py")
    if importlib.util.find_spec("creditbench.cells") is None:
        sys.modules["creditbench.cells"] = importlib.import_module("creditbench.cell")
        sys.modules["creditbench.plugins.registry"] = importlib.import_module("creditbench.registry")
        sys.modules["creditbench.learner.contract"] = importlib.import_module("creditbench.learner")
        _load("creditbench.learner.training", package / "learner" / "training.py")


def _load(name: str, path: Path) -> None:
    folders = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=folders)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


class Side:
    """The rules of one checkout under one backend: creditbench's, or a project's (its folder, its files)."""

    def __init__(self, backend: str, threads: int, project: str = "", files: str = "[]") -> None:
        _own_measure()
        # From the checkout that is measured, once its package is the one that is found.
        from creditbench.ops import make_ops

        self.ops = make_ops(backend)
        if not hasattr(self.ops, "host"):
            package = Path(__file__).resolve().parents[1]
            for name in ("host", f"host_{backend}"):
                _load(f"creditbench.ops.{name}", package / "ops" / f"{name}.py")
            made = getattr(sys.modules[f"creditbench.ops.host_{backend}"], f"{backend.capitalize()}Host")
            self.ops.host = made(self.ops)
        self.prepared: Any = None
        self.ops.host.set_threads(threads)
        self.rules, self.broken = self._rules(project, json.loads(files))

    def _rules(self, project: str, files: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """The rules by id; and for those of a project that cannot be used, the reasons."""
        if project:
            # An older checkout of creditbench has no such module.
            from creditbench.plugins.project import load

            return load(Path(project), [Path(name) for name in files])
        # From the checkout that is measured, once its package is the one that is found.
        from creditbench.plugins import registry

        # Those of installed packages are none of the checkout's. An older one does not tell them apart.
        shipped = registry.builtin if hasattr(registry, "builtin") else registry.load
        return shipped("learners"), {}

    def list(self) -> dict[str, Any]:
        """Ids of all rules, and the backends of each. One that cannot be used is a rule, whose turn fails."""
        known = {id: sorted(plugin.cls.backends) for id, plugin in self.rules.items()}
        return {"learners": {name: [self.ops.name] for name in self.broken} | known}

    def prepare(self, learner: str) -> dict[str, Any]:
        """The exact figures of a rule; its program is ready afterwards."""
        # From the checkout that is measured, once its package is the one that is found.
        from creditbench import cells
        from creditbench.measure.cost import compilations, kernels
        from creditbench.measure.memory import algorithm_bytes
        from creditbench.measure.update import Prepared, Update
        from creditbench.measure.work import UncountableError, count

        self.prepared = None
        if learner in self.broken:
            raise ImportError(self.broken[learner])
        ops = self.ops
        kind: Any = getattr(cells, "Tanh", cells.Cell)  # an older checkout has one cell
        update = Update(
            learner=self.rules[learner].cls(), cell=kind(INPUTS, HIDDEN, OUTPUTS), steps=STEPS, batch=BATCH
        )
        figures, uncounted = {}, None
        try:
            work = count(ops, update.block(ops), update.start(ops), update.data(ops, 1))
            figures["flops"] = work.flops
            if ops.host.traces:
                figures["operations"] = work.operations
        except UncountableError as error:
            uncounted = str(error)
        figures["algorithm_bytes"] = algorithm_bytes(ops, update)
        if (found := kernels(ops, update)) is not None:
            figures["kernels"] = found
        figures["compilations"] = compilations(ops, update, STEPS)
        self.prepared = Prepared(ops, update, SEGMENTS)
        return {"figures": figures, "uncounted": uncounted}

    def block(self, repeat: int) -> dict[str, Any]:
        """Processor seconds of that many calls: other processes disturb them less than wall-clock time."""
        begin = time.process_time()
        for _ in range(repeat):
            self.prepared()
        return {"seconds": time.process_time() - begin}


#: The requests.
REQUESTS: dict[str, Callable[..., dict[str, Any]]] = {
    "list": Side.list,
    "prepare": Side.prepare,
    "block": Side.block,
}


def main() -> None:
    """Answer requests until the other end is closed."""
    orders, reports, backend, threads = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    project = sys.argv[5:]
    for descriptor in (orders, reports):
        os.set_inheritable(descriptor, False)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    side = None
    with (
        os.fdopen(orders, encoding="utf-8") as requests,
        os.fdopen(reports, "w", encoding="utf-8") as answers,
    ):
        for line in requests:
            request = json.loads(line)
            try:
                side = side or Side(backend, threads, *project)
                answer = REQUESTS[request.pop("do")](side, **request)
            except Exception as error:
                traceback.print_exc()
                answer = {
                    "crashed": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:300]
                }
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()

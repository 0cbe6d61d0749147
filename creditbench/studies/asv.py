"""An asv suite of the rules of a repository, in both backends. A benchmark file of it is two lines:

    from creditbench.studies.asv import suite
    Rules, Exact, Score = suite(__file__)

One update on an episode of T steps of one sequence, on one thread. asv runs each benchmark in a process of
its own. Set `"launch_method": "forkserver"` in asv.conf.json: then they are forked from one that has imported
the frameworks. Figures without a clock are computed for all rules at once in `setup_cache`.

asv imports the benchmark file of the working tree, and with it measures older commits, each installed in an
environment of asv's. So the rules' names are the working tree's; a rule that a commit lacks has no figure
there. The code of all commits runs unconfined.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from creditbench.cells import Tanh
from creditbench.errors import UsageError, one_line
from creditbench.machine.frameworks import installed
from creditbench.machine.threads import thread_environment
from creditbench.measure.memory import algorithm_bytes
from creditbench.measure.update import Prepared, Update
from creditbench.measure.work import UncountableError, count
from creditbench.ops import make_ops
from creditbench.plugins import project, registry
from creditbench.plugins.importing import id_of, load_path
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.trainer import run_trials

#: The scored training.
TASK, HIDDEN, STEPS = "mackey_glass", 16, 2000
_NAMES = ("learner", "backend", "n", "T")


def suite(benchmark: str, *paths: str) -> tuple[type[Rules], type[Exact], type[Score]]:
    """The benchmarks of the project that the file `benchmark` lies in, for that file to hold.

    `paths`: files or folders of rules, relative to the project, in place of its entry points. They are read
    from the commit that asv has checked out, so that nothing need be installed. In creditbench's own checkout
    the rules are the shipped ones. Raises `UsageError` for a project without rules.
    """
    os.environ.update(thread_environment(1))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # Imported, not yet used: neither starts a thread before its first computation, so that forking is safe.
    for name in installed():
        importlib.import_module(name)
    root = project.nearest(Path(benchmark).parent)
    files: dict[str, Path | None]
    if paths:
        files = {id_of(path): path for path in project.expand(root / path for path in paths)}
    elif project.is_creditbench(root):
        files = {path.stem: None for path in sorted((root / "learners").glob("*.py"))}
    else:
        files = dict.fromkeys(project.entry_points(root))
    if not files:
        raise UsageError(f"{root} has {project.no_rules(root)}: add one, or give suite a folder of rules")
    measured = {id: None if path is None else _at_commit(path) for id, path in files.items()}
    over = (list(files), installed())
    sizes = {"params": (*over, [32], [64]), "files": measured}
    return (
        type("Rules", (Rules,), sizes),
        type("Exact", (Exact,), sizes),
        type("Score", (Score,), {"params": over, "files": measured}),
    )


def _at_commit(path: Path) -> Path:
    """A file of the working tree in the commit that asv has checked out, if it has an environment for it."""
    place = os.environ.get("ASV_ENV_DIR")
    if place is None:
        return path
    top = next(folder for folder in path.parents if (folder / ".git").exists())
    return Path(place).resolve() / "project" / path.relative_to(top)


class _Suite:
    """What all benchmarks share: the rules of the commit that is measured."""

    params: tuple[Sequence[Any], ...]
    files: Mapping[str, Path | None]  #: id of a rule -> its file; None: it is shipped or installed

    def find(self, learner: str, backend: str) -> Any:
        """The class of a rule. Raises `NotImplementedError` if there is none: asv then shows no figure."""
        path = self.files[learner]
        if path is None:
            found = registry.load("learners", imports=True).get(learner)
        else:
            found = load_path("learners", path) if path.is_file() else None
        if found is None:
            raise NotImplementedError(f"{learner} is not there")
        if backend not in found.cls.backends:
            raise NotImplementedError(f"{learner} has no {backend}")
        return found.cls

    def update(self, learner: str, backend: str, n: int, T: int) -> Update:
        """One update of a rule on T steps of a net of n units."""
        return Update(learner=self.find(learner, backend)(), cell=Tanh(2, n, 2), steps=T)

    def known(self) -> list[tuple[str, str]]:
        """The pairs of rule and backend that this commit has."""
        found = []
        for learner in self.params[0]:
            for backend in self.params[1]:
                with contextlib.suppress(NotImplementedError):
                    self.find(learner, backend)
                    found.append((learner, backend))
        return found


class Rules(_Suite):
    """One update, compiled and warm. Its time is the processor's: other processes disturb it less.

    Peak memory is the process's, with frameworks and compiler.
    """

    param_names = _NAMES
    timer = time.process_time
    timeout = 120

    def setup(self, learner, backend, n, T):
        ops = make_ops(backend)
        ops.host.set_threads(1)
        self.run = Prepared(ops, self.update(learner, backend, n, T), segments=1)

    def time_update(self, learner, backend, n, T):
        self.run()

    def peakmem_update(self, learner, backend, n, T):
        self.run()


class Exact(_Suite):
    """The figures of one update that need no clock. What cannot be counted is not a number."""

    param_names = _NAMES

    def setup_cache(self):
        found = {}
        for learner, backend in self.known():
            ops = make_ops(backend)
            ops.host.set_threads(1)
            for n, T in itertools.product(*self.params[2:]):
                try:
                    figures = self.figures(ops, self.update(learner, backend, n, T))
                except Exception as error:  # of this rule alone
                    figures = one_line(error)
                found[learner, backend, n, T] = figures
        return found

    @staticmethod
    def figures(ops, subject):
        """FLOPs and algorithm bytes of an update."""
        try:
            work = count(ops, subject.block(ops), subject.start(ops), subject.data(ops, 1))
            flops = float(work.flops)
        except UncountableError:
            flops = math.nan
        return flops, algorithm_bytes(ops, subject)

    setup_cache.timeout = 600  # type: ignore[attr-defined]

    def setup(self, found, learner, backend, n, T):
        self.find(learner, backend)
        if isinstance(why := found[learner, backend, n, T], str):
            raise RuntimeError(why)

    def track_flops(self, found, learner, backend, n, T):
        return found[learner, backend, n, T][0]

    def track_algorithm_bytes(self, found, learner, backend, n, T):
        return found[learner, backend, n, T][1]

    track_flops.unit = "flops"  # type: ignore[attr-defined]
    track_algorithm_bytes.unit = "bytes"  # type: ignore[attr-defined]


class Score(_Suite):
    """The normalised score after a short training on a small net, always of the same seed."""

    param_names = _NAMES[:2]

    def setup_cache(self):
        known = self.known()
        learners = dict.fromkeys(str(self.files[learner] or learner) for learner, _ in known)
        options = Options(
            tasks=(TASK,),
            learners=tuple(learners),
            backends=tuple(self.params[1]),
            hidden=HIDDEN,
            budget=STEPS,
            evaluations=2,
            preset="smoke",
        )
        for backend in self.params[1]:
            make_ops(backend).host.set_threads(1)
        records = [record for trial in make_grid(options).trials for record in run_trials([trial])]
        return {(r.trial.learner, r.trial.backend): r.normalised_score for r in records}

    setup_cache.timeout = 900  # type: ignore[attr-defined]

    def setup(self, found, learner, backend):
        self.find(learner, backend)

    def track_score(self, found, learner, backend):
        return found[learner, backend]

    track_score.unit = "normalised score"  # type: ignore[attr-defined]

"""Every rule of the registry in both backends. A new rule is tracked once it is added.

One update on an episode of T steps of one sequence, on one thread. asv runs each benchmark in a process of
its own. Processes are forked from one that has imported the frameworks (`launch_method` in asv.conf.json).
Figures without a clock are computed for all rules at once in `setup_cache`.
"""

import os

from creditbench.machine.threads import thread_environment

os.environ.update(thread_environment(1))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Imported, not yet used: neither starts a thread before its first computation, so that forking is safe.
import jax  # noqa: F401
import torch

from creditbench.cells import Tanh
from creditbench.measure.memory import algorithm_bytes
from creditbench.measure.update import Prepared, Update
from creditbench.measure.work import count
from creditbench.ops import make_ops
from creditbench.plugins import registry

LEARNERS = {name: plugin.cls for name, plugin in registry.load("learners").items()}
BACKENDS = ["jax", "torch"]
N, T = [32], [64]
#: The scored training.
TASK, HIDDEN, STEPS = "mackey_glass", 16, 2000


def update(learner, n, steps):
    return Update(learner=LEARNERS[learner](), cell=Tanh(2, n, 2), steps=steps)


def require(learner, backend):
    if backend not in LEARNERS[learner].backends:
        raise NotImplementedError(f"{learner} has no {backend}")


class Rules:
    """One update, compiled and warm. Peak memory is the process's, with frameworks and compiler."""

    params = (list(LEARNERS), BACKENDS, N, T)
    param_names = ("learner", "backend", "n", "T")
    timeout = 120

    def setup(self, learner, backend, n, T):
        require(learner, backend)
        torch.set_num_threads(1)
        self.run = Prepared(make_ops(backend), update(learner, n, T), segments=1)

    def time_update(self, learner, backend, n, T):
        self.run()

    def peakmem_update(self, learner, backend, n, T):
        self.run()


class Exact:
    """The figures of one update that need no clock."""

    params, param_names = Rules.params, Rules.param_names

    def setup_cache(self):
        torch.set_num_threads(1)
        found = {}
        for backend in BACKENDS:
            ops = make_ops(backend)
            for learner, cls in LEARNERS.items():
                for n, steps in [(n, steps) for n in N for steps in T if backend in cls.backends]:
                    subject = update(learner, n, steps)
                    work = count(ops, subject.block(ops), subject.start(ops), subject.data(ops, 1))
                    found[learner, backend, n, steps] = work.flops, algorithm_bytes(ops, subject)
        return found

    setup_cache.timeout = 600

    def setup(self, found, learner, backend, n, T):
        require(learner, backend)

    def track_flops(self, found, learner, backend, n, T):
        return found[learner, backend, n, T][0]

    def track_algorithm_bytes(self, found, learner, backend, n, T):
        return found[learner, backend, n, T][1]

    track_flops.unit = "flops"
    track_algorithm_bytes.unit = "bytes"


class Score:
    """The normalised score after a short training on a small net, always of the same seed."""

    params, param_names = (list(LEARNERS), BACKENDS), ("learner", "backend")

    def setup_cache(self):
        from creditbench.trials.grid import Options, make_grid
        from creditbench.trials.trainer import run_trials

        torch.set_num_threads(1)
        options = Options(
            tasks=(TASK,),
            learners=tuple(LEARNERS),
            backends=tuple(BACKENDS),
            hidden=HIDDEN,
            budget=STEPS,
            evaluations=2,
            preset="smoke",
        )
        records = [record for trial in make_grid(options).trials for record in run_trials([trial])]
        return {(r.trial.learner, r.trial.backend): r.normalised_score for r in records}

    setup_cache.timeout = 900

    def setup(self, found, learner, backend):
        require(learner, backend)

    def track_score(self, found, learner, backend):
        return found[learner, backend]

    track_score.unit = "normalised score"

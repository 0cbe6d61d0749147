"""Where the time of a rule's update goes.

python benchmarks/profiling.py anp --backend torch     a table of operations, the slowest first
python benchmarks/profiling.py anp --backend jax       a trace, for https://ui.perfetto.dev or TensorBoard
"""

import argparse
import os
from pathlib import Path

from creditbench.machine.threads import thread_environment

os.environ.update(thread_environment(1))

from creditbench.cells import Tanh
from creditbench.measure.update import Prepared, Update
from creditbench.ops import BACKENDS, make_ops
from creditbench.plugins import registry

parser = argparse.ArgumentParser(description="Profile updates of a rule, compiled and warm, on one thread.")
parser.add_argument("learner")
parser.add_argument("--backend", choices=BACKENDS, default="torch")
parser.add_argument("--hidden", type=int, default=128)
parser.add_argument("--steps", type=int, default=64)
parser.add_argument("--output", type=Path, default=Path("results/profile"), help="folder of the trace (JAX)")
options = parser.parse_args()

update = Update(
    learner=registry.find("learners", options.learner).cls(),
    cell=Tanh(2, options.hidden, 2),
    steps=options.steps,
)
ops = make_ops(options.backend)
if options.backend == "torch":
    import torch

    torch.set_num_threads(1)
    run = Prepared(ops, update, segments=10)
    with torch.profiler.profile() as profile:
        run()
    table = profile.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40
    )
    print(table)
else:
    import jax

    run = Prepared(ops, update, segments=10)
    with jax.profiler.trace(str(options.output), create_perfetto_trace=True):
        run()
    for path in sorted(options.output.rglob("*.gz")):
        print(path)

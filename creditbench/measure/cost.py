"""The cost of one update of a rule, in all figures."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from creditbench.measure import clock, memory, work
from creditbench.measure.clock import Quartiles
from creditbench.measure.update import Update, power_of_four, prepare
from creditbench.ops import DType, Ops, make_ops

_BLOCK_FLOPS = 1e8  #: of a timed block; a core takes some milliseconds


class ExactCost(NamedTuple):
    """The cost of an update without a clock, equal on every machine."""

    flops: int  #: of one update, optimiser included
    bytes: int  #: moved by it; an upper bound, see `work`
    product_bytes: int  #: moved by its matrix products
    operations: int  #: equations traced (JAX), operations run (PyTorch)
    algorithm_bytes: int  #: of one segment's estimate


def cost(ops: Ops, update: Update) -> ExactCost:
    """The exact figures of one update."""
    found = work.count(ops, update.block(ops), update.start(ops), update.data(ops, 1))
    return ExactCost(
        found.flops, found.bytes, found.product_bytes, found.operations, memory.algorithm_bytes(ops, update)
    )


class Ratios(NamedTuple):
    """Paired ratios of the time of a step."""

    forward: Quartiles  #: × the same cell's plain forward pass
    bptt: Quartiles  #: × reverse mode


def ratios(
    ops: Ops, update: Update, steps: int, least: int = clock.BLOCKS, budget: float = clock.SECONDS
) -> Ratios:
    """`× forward` and `× bptt` from interleaved blocks of about `steps` steps each, in this process."""
    runs = {
        name: prepare(ops, subject, steps)
        for name, subject in (("rule", update), ("forward", update.forward), ("bptt", update.bptt))
    }
    found = clock.interleaved(runs, least, budget)
    return Ratios(
        *(
            clock.ratio(found["rule"], found[name], runs[name].steps / runs["rule"].steps)
            for name in ("forward", "bptt")
        )
    )


def compilations(ops: Ops, update: Update, steps: int) -> int:
    """The number of compilations in a training of three blocks of about `steps` steps. It should be 1.

    JAX: programs that XLA compiles. PyTorch: runs of the block in Python; a recorded block is only replayed.
    """
    # Making the arguments compiles programs too; from here on they are cached.
    carry, xs = update.start(ops), update.data(ops, max(1, round(steps / update.steps)))
    block, events = update.block(ops), 0

    def counted(carry, xs):
        nonlocal events
        events += not ops.host.traces
        return block(carry, xs)

    with ops.host.programs() as compiled:
        run = ops.compile(counted, carry, xs, donate=() if update.learner is None else (0,))
        for _ in range(3):
            carry, losses = run(carry, xs)
            ops.synchronize((carry, losses))
    return events + len(compiled)


def kernels(ops: Ops, update: Update, segments: int = 2) -> int | None:
    """Operations that a compiled block of `segments` segments runs; None if the framework fuses them."""
    carry, xs = update.start(ops), update.data(ops, segments)
    return ops.host.kernels(ops.compile(update.block(ops), carry, xs), carry, xs)


def figures(ops: Ops, update: Update, rate: float, budget: float) -> tuple[ExactCost, Ratios]:
    """Exact figures and ratios of a rule that does `rate` steps per second, in about `budget` seconds.

    The ratios are measured at each call. The exact figures belong to the program, and are taken once for all
    equal updates in this process.
    """
    exact = _exact(ops.name, ops.device, ops.dtype, update)
    steps = update.steps * segments(exact.flops, update.steps / rate, budget)
    return exact, ratios(ops, update, steps, budget=budget)


@lru_cache(maxsize=64)
def _exact(backend: str, device: str, dtype: DType, update: Update) -> ExactCost:
    return cost(make_ops(backend, device, dtype), update)


def segments(flops: float, seconds: float, budget: float) -> int:
    """Segments of a timed block, whose update has `flops` and takes `seconds`: a power of four.

    Their number follows from the FLOPs, so that it is the same at each run, and a program that was compiled
    for one serves the next. Only blocks that would take less than a thousandth or more than a fortieth of
    `budget` become longer or shorter. In between are some milliseconds: other processes do not interrupt most
    of such blocks, and so not the median.
    """
    found = power_of_four(_BLOCK_FLOPS / max(1.0, flops))
    while found > 1 and found * seconds > budget / 40:
        found //= 4
    while found * seconds < budget / 1000:
        found *= 4
    return found

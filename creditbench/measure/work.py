"""Work: floating-point operations and bytes moved, counted from the program and not measured. Deterministic.

What counts as what, in both backends:

- a product of [M, N] and [N, P] is 2·M·N·P, and an addition fused with it one for each entry;
- anything elementwise is one for each entry of its result, transcendental functions and random draws among
  them;
- a reduction is one for each entry that it takes in; a linear solve of order n with k right-hand sides 2n³/3
  + 2n²k;
- what only moves, makes or renames data is none.

The body of a loop counts as often as it runs: XLA's own `cost_analysis` counts it once, whatever its length,
and is not used. Of the branches of a condition the dearest counts. A `while` whose length is not in the
program cannot be counted.

*Bytes moved* are the sizes of all that counted operations, copies included, take in and give out. That is an
upper bound, since a compiler fuses many of them; `product_bytes`, of matrix products alone, is what remains
where everything else is fused into them, but of what stays in a cache from one step to the next.

The two backends' FLOPs differ by what one framework does and the other does not: JAX works out its keys and
normals in the program, PyTorch takes normals from a generator, one operation each. Products are the same.
"""

from __future__ import annotations

from collections.abc import Callable

from creditbench.ops.base import Ops, Tree
from creditbench.ops.host import UncountableError, Work

__all__ = ["UncountableError", "Work", "count"]


def count(ops: Ops, f: Callable[..., Tree], *arguments: Tree) -> Work:
    """The work of `f(*arguments)`; JAX traces it, PyTorch runs it. Raises `UncountableError`."""
    return ops.host.count(f, *arguments)

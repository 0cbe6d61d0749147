"""Work: floating-point operations and bytes moved, counted from the program. The counts are deterministic.

Floating-point operations, in both backends:

- a product of [M, N] and [N, P] has 2·M·N·P; an addition fused with it has one for each entry;
- an elementwise operation has one for each entry of its result; so have transcendental functions and random
  draws;
- a reduction has one for each entry of its input; a linear solve of order n with k right-hand sides has
  2n³/3 + 2n²k;
- an operation that only moves, makes or renames data has none.

The body of a loop counts as often as it runs. (XLA's own `cost_analysis` counts it once, so it is not used.)
A condition counts its most expensive branch. A `while` whose length is not in the program cannot be counted.

*Bytes moved* are the sizes of the inputs and outputs of all counted operations and of copies. They are an
upper bound, since a compiler fuses many operations. `product_bytes` count matrix products alone: the rest if
all other operations are fused into them, except for data that stay in a cache from one step to the next.

The FLOPs of the two backends differ in random draws: JAX computes its keys and normals in the program,
PyTorch takes normals from a generator, one operation each. Products are the same.
"""

from __future__ import annotations

from collections.abc import Callable

from creditbench.ops.base import Ops, Tree
from creditbench.ops.host import UncountableError, Work

__all__ = ["UncountableError", "Work", "count"]


def count(ops: Ops, f: Callable[..., Tree], *arguments: Tree) -> Work:
    """The work of `f(*arguments)`; JAX traces it, PyTorch runs it. Raises `UncountableError`."""
    return ops.host.count(f, *arguments)

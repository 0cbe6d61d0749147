"""Fixtures for many tiny networks, of which each runs a few steps."""

import pytest

from creditbench.check.probe import injected
from creditbench.ops import make_ops


@pytest.fixture
def exact():
    """PyTorch in float64. What is held here of a rule holds under JAX too, as long as both agree."""
    return make_ops("torch", dtype="float64")


@pytest.fixture
def both():
    """Both backends, in float64, with equal random draws.

    Under JAX nothing is compiled as a whole: that takes longer than so few steps. Compiled training on a cell
    is held in tests/trials.
    """
    # The other tests beside this file need no JAX.
    import jax

    traced, run = injected("jax"), injected("torch")

    def compile(f, *args, donate=()):
        def uncompiled(*args):
            with jax.disable_jit():
                return f(*args)

        return uncompiled

    traced.compile = compile
    return traced, run

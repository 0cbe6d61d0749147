"""Fixtures for many tiny networks, of which each runs a few steps."""

import pytest

from creditbench.ops import make_ops


@pytest.fixture
def exact():
    """PyTorch in float64. What is held here of a rule holds under JAX too, as long as both agree."""
    return make_ops("torch", dtype="float64")


@pytest.fixture(params=["torch", pytest.param("jax", marks=pytest.mark.thorough)])
def ops(request):
    """PyTorch in float64; JAX too where the tests are thorough, since both agree on every rule and cell."""
    return make_ops(request.param, dtype="float64")

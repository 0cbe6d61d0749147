"""Oracles of rules run on PyTorch, which need not compile them."""

import pytest

from creditbench.ops import make_ops


@pytest.fixture(params=["torch", pytest.param("jax", marks=pytest.mark.thorough)])
def ops(request):
    """PyTorch in float64; JAX too where the tests are thorough, since both agree on every rule."""
    return make_ops(request.param, dtype="float64")

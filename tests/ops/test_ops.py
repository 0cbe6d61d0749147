"""The vocabulary means the same in both backends."""

import os
import subprocess
import sys

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.ops import Outer, make_ops


def test_scan_folds_and_stacks(ops):
    xs = ops.from_numpy({"a": np.arange(5.0), "b": np.arange(10.0).reshape(5, 2)})

    def f(carry, x):
        carry = carry + x["a"]
        return carry, (carry, x["b"] * 2, None)

    for reverse in (False, True):
        carry, (sums, doubled, nothing) = ops.scan(f, ops.zeros(()), xs, reverse=reverse)
        order = np.arange(5.0)[:: -1 if reverse else 1]
        expected = np.cumsum(order)[:: -1 if reverse else 1]
        assert float(carry) == 10.0
        np.testing.assert_array_equal(ops.to_numpy(sums), expected)
        np.testing.assert_array_equal(ops.to_numpy(doubled), 2 * np.arange(10.0).reshape(5, 2))
        assert nothing is None


@pytest.mark.parametrize("length", [1, 3, 4, 8, 10])
def test_scan_chunks_covers_everything_once(ops, length):
    xs = ops.from_numpy(np.arange(float(length)))

    def f(carry, chunk):
        return carry + chunk.sum(), chunk * 2

    total, doubled = ops.scan_chunks(f, ops.zeros(()), xs, 4)
    assert float(total) == length * (length - 1) / 2
    np.testing.assert_array_equal(ops.to_numpy(doubled), 2 * np.arange(float(length)))


def test_keys_are_values(ops):
    key = ops.key(3)
    children = ops.split(key, 4)
    draws = [ops.to_numpy(ops.normal(child, (1000,))) for child in children]
    again = ops.to_numpy(ops.normal(ops.split(ops.key(3), 4)[2], (1000,)))
    np.testing.assert_array_equal(draws[2], again)
    np.testing.assert_array_equal(ops.to_numpy(ops.normal(children, (1000,))), draws)
    signs = [ops.to_numpy(ops.rademacher(child, (3, 5))) for child in children]
    np.testing.assert_array_equal(ops.to_numpy(ops.rademacher(children, (3, 5))), signs)
    correlation = np.corrcoef([*draws, ops.to_numpy(ops.normal(key, (1000,)))])
    assert np.abs(correlation - np.eye(5)).max() < 0.15


def test_key_blocks_are_the_keys_that_split_gives(ops):
    whole = ops.to_numpy(ops.normal(ops.split(ops.key(3), 7), (2,)))
    blocks = [ops.to_numpy(ops.normal(keys, (2,))) for keys in ops.key_blocks(ops.key(3), 7, 3)]
    assert [len(block) for block in blocks] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_draws_have_their_moments(ops):
    normal = ops.to_numpy(ops.normal(ops.key(0), (200_000,)))
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert abs((normal**4).mean() - 3) < 0.1
    signs = ops.to_numpy(ops.rademacher(ops.key(0), (10_000,)))
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.05


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("biased", [False, True])
def test_linear(ops, rows, biased):
    rng = np.random.default_rng(0)
    x, W, b = rng.standard_normal((rows, 3)), rng.standard_normal((5, 3)), rng.standard_normal((rows, 5))
    arrays = ops.from_numpy((x, W, b if biased else None)) if biased else (*ops.from_numpy((x, W)), None)
    np.testing.assert_allclose(ops.to_numpy(ops.linear(*arrays)), x @ W.T + (b if biased else 0), atol=1e-14)


@pytest.mark.parametrize("tail", [(), (4,)])
def test_add_diagonal(ops, tail):
    rng = np.random.default_rng(0)
    total, term = rng.standard_normal((2, 3, 3, *tail)), rng.standard_normal((2, 3, *tail))
    found = ops.to_numpy(ops.add_diagonal(*ops.from_numpy((total, term))))
    for i in range(3):
        total[:, i, i] += term[:, i]
    np.testing.assert_array_equal(found, total)


@pytest.mark.parametrize("size", [1, 4])
def test_gather_takes_entries_of_the_second_axis(ops, size):
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((5, 7, 3)), rng.standard_normal((5, 7))
    rows = rng.integers(7, size=size).astype(np.int32)
    given = ops.from_numpy(arrays), ops.from_numpy(rows)
    for gather in (ops.gather, ops.compile(ops.gather, *given)):
        for found, array in zip(ops.to_numpy(gather(*given)), arrays, strict=True):
            np.testing.assert_array_equal(found, array[:, rows])


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("as_array", [False, True])
def test_accumulate_adds_factors_as_it_adds_the_matrix(ops, rank, as_array):
    rng = np.random.default_rng(0)
    total, post, pre = (rng.standard_normal(s) for s in ((4, 3), (rank, 4), (rank, 3)))
    scale = ops.from_numpy(np.array(-0.3)) if as_array else -0.3
    expected = 0.9 * total - 0.3 * post.T @ pre
    outer = Outer(*ops.from_numpy((post, pre)))
    for term in (outer, ops.dense(outer)):
        found = ops.accumulate(ops.from_numpy(total), term, scale, 0.9)
        np.testing.assert_allclose(ops.to_numpy(found), expected, atol=1e-14)


def test_derivatives_agree(ops):
    x = ops.from_numpy(np.array([0.3, -1.2]))
    v = ops.from_numpy(np.array([1.0, 2.0]))

    def f(x):
        return (ops.xp.tanh(x) ** 2).sum()

    value, grad = ops.value_and_grad(f)(x)
    _, tangent = ops.jvp(f, (x,), (v,))
    _, pull = ops.vjp(f, x)
    t = np.tanh([0.3, -1.2])
    expected = 2 * t * (1 - t**2)
    assert float(value) == pytest.approx((t**2).sum())
    np.testing.assert_allclose(ops.to_numpy(grad), expected, atol=1e-12)
    assert float(tangent) == pytest.approx(expected @ [1.0, 2.0])
    np.testing.assert_allclose(ops.to_numpy(pull(ops.from_numpy(np.array(1.0)))[0]), expected, atol=1e-12)
    np.testing.assert_allclose(ops.to_numpy(ops.jacobian(ops.xp.tanh)(x)), np.diag(1 - t**2), atol=1e-12)
    _, stopped = ops.value_and_grad(lambda x: (ops.stop_gradient(x) * x).sum())(x)
    np.testing.assert_allclose(ops.to_numpy(stopped), [0.3, -1.2])


def test_from_numpy_copies(ops):
    array = np.ones(3)
    ops.accumulate(ops.from_numpy(array), ops.from_numpy(np.ones(3)), 5.0)
    np.testing.assert_array_equal(array, 1.0)


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="did you mean 'torch'"):
        make_ops("tourch")
    for backend in ("jax", "torch"):
        for device in ("nonsense", "cpu:7", "cpu:-1", "cpu:x"):
            with pytest.raises(UsageError, match=f"no {device} device for {backend}"):
                make_ops(backend, device)


@pytest.mark.parametrize(("used", "other"), [("jax", "torch"), ("torch", "jax")])
def test_only_the_framework_in_use_is_imported(used, other):
    code = (
        f"import sys; from creditbench.ops import make_ops; make_ops({used!r}); "
        f"assert {other!r} not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.needs("jax")
def test_no_setting_of_jax_changes_the_draws():
    """Each of these settings changes JAX's own draws, as the last line shows."""
    code = (
        "import sys, jax\n"
        "from creditbench.ops import make_ops\n"
        "ops = make_ops('jax')\n"
        "print(ops.to_numpy(ops.normal(ops.split(ops.key(3), 4)[2], (7,))).tobytes().hex())\n"
        "jax.config.update(*eval(sys.argv[1])) if sys.argv[1:] else None\n"
        "print(jax.random.normal(jax.random.split(jax.random.key(3), 4)[2], (7,)).tobytes().hex())\n"
    )

    def draws(**extra: str) -> list[str]:
        again = [
            repr((name.lower(), int(value) if value.isdigit() else value)) for name, value in extra.items()
        ]
        asked = [sys.executable, "-c", code, *again]
        return subprocess.run(
            asked, capture_output=True, text=True, check=True, env=os.environ | extra
        ).stdout.split()

    plain, own = draws()
    assert plain == own
    for name, value in (
        ("JAX_DEFAULT_PRNG_IMPL", "rbg"),
        ("JAX_THREEFRY_PARTITIONABLE", "0"),
        ("JAX_RANDOM_SEED_OFFSET", "5"),
    ):
        still, changed = draws(**{name: value})
        assert still == plain != changed

"""Checks of an estimate beyond its claims: small rules, each with one fault and its message."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from creditbench.check import lists
from creditbench.check.base import Result, outcomes
from creditbench.check.subject import Subject
from creditbench.leaderboard.claims import claims as board_claims
from creditbench.learner import Claims, Estimate, backpropagate
from creditbench.plugins import registry
from creditbench.results.measured import CheckResult, ScalingPoint
from creditbench.results.version import Results
from creditbench.studies import scaling


def looked(cls: Any, check: str, backend: str = "torch") -> Result:
    """The result of one check of a rule, in this process."""
    plugin = dataclasses.replace(registry.find("learners", "bptt"), cls=cls)
    subject = Subject(plugin, backend)
    (result,) = outcomes([c for c in lists.LEARNER if c.name == check], subject, plugin.path)
    return result


def like(name: str, **parts: Any) -> Any:
    """A shipped rule with other methods or attributes."""
    base = registry.find("learners", name).cls
    return dataclasses.dataclass(frozen=True, kw_only=True)(
        type("Other", (base,), {"__module__": base.__module__, **parts})
    )


def giving(name: str, change: Any, **parts: Any) -> Any:
    """A shipped rule whose estimates go through `change(found, ops, batch)`."""
    base = registry.find("learners", name).cls

    def segment(self, ops, cell, params, state, batch, key):
        found = base.segment(self, ops, cell, params, state, batch, key)
        grads = {k: ops.dense(g) for k, g in found.grads.items()}
        return change(found._replace(grads=grads), ops, batch)

    return like(name, segment=segment, **parts)


def scaled(found: Estimate, factor: float, *names: str) -> Estimate:
    return found._replace(grads=found.grads | {n: factor * found.grads[n] for n in names or found.grads})


def without(found: Estimate, *names: str) -> Estimate:
    return found._replace(grads={k: g for k, g in found.grads.items() if k not in names})


def seeing(name: str, change: Any, **parts: Any) -> Any:
    """A shipped rule that gets `change(batch, ops)` in place of its batch."""
    base = registry.find("learners", name).cls

    def segment(self, ops, cell, params, state, batch, key):
        return base.segment(self, ops, cell, params, state, change(batch, ops), key)

    return like(name, segment=segment, **parts)


def first_row(batch: Any, ops: Any) -> Any:
    rows = batch.weights.shape[1]
    return batch._replace(weights=batch.weights * rows * ops.from_numpy(np.eye(rows)[0]))


# -- rows ------------------------------------------------------------------------------------------------

RECURRENT = ("W_rec", "W_in", "b")


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (
            giving("eprop", lambda e, ops, batch: scaled(e, 1 / batch.weights.shape[1], *RECURRENT)),
            "W_rec is 0.333 ×",
        ),
        (
            giving("bptt", lambda e, ops, batch: scaled(e, batch.weights.shape[1], "c")),
            "c is 3 × the sum of what 3",
        ),
        (giving("np", lambda e, ops, batch: scaled(e, 0.5), claims=Claims(unbiased=True)), ""),
        (seeing("tbptt", first_row), "changes by"),
        (seeing("np", first_row), "with the order of the batch's sequences"),
    ],
    ids=[
        "divided by B",
        "a bias times B",
        "a factor that is none of B",
        "first row",
        "first row, with noise",
    ],
)
def test_an_estimate_that_is_no_sum_over_the_batch_is_caught(cls, said):
    result = looked(cls, "rows")
    assert result.held is (not said) and said in result.detail, result


def test_a_sum_over_the_batch_is_looked_at_under_jax_too():
    divided = giving("np", lambda e, ops, batch: scaled(e, 1 / batch.weights.shape[1], "b"))
    result = looked(divided, "rows", "jax")
    assert result.held is False and "b is 0.333 × the sum" in result.detail


def test_what_is_learned_within_a_segment_is_no_fault():
    """Kernel and synthetic gradient are learned from all rows, but each step's estimate is still a sum."""
    for name in ("kernl", "dni"):
        result = looked(registry.find("learners", name).cls, "rows")
        assert result.held is True and "of one step" in result.detail
        divided = giving(name, lambda e, ops, batch: scaled(e, 1 / batch.weights.shape[1], "W_rec"))
        assert looked(divided, "rows").held is False


def test_a_rule_may_say_why_its_sequences_are_coupled():
    def normalised(found, ops, batch):
        return scaled(found, 1.0 / ops.xp.linalg.vector_norm(found.grads["W_rec"]))

    assert looked(giving("bptt", normalised), "rows").held is False
    result = looked(giving("bptt", normalised, couples_rows="the norm is of the batch"), "rows")
    assert result.held is None and "the norm is of the batch" in result.detail
    # No rule with noise claims a scale, but the check reports it.
    result = looked(registry.find("learners", "anp").cls, "rows")
    assert result.held is None and "means another thing at another batch" in result.detail


# -- what is trained, which way, of what loss --------------------------------------------------------------


def test_parameters_that_are_never_trained_are_named():
    def bare(found, ops, batch):
        return without(found, "b", "c")

    result = looked(giving("eprop", bare), "trained")
    assert result.held is None and result.detail.startswith("b, c are never trained")
    zero = looked(giving("eprop", lambda e, ops, batch: scaled(e, 0.0, "b")), "trained")
    assert zero.held is None and zero.detail.startswith("b is never trained")
    claimed = looked(giving("bptt", bare), "trained")
    assert claimed.held is False and "b, c" in claimed.detail
    assert looked(registry.find("learners", "readout_rls").cls, "trained").detail.startswith(
        "W_in, W_rec, b are"
    )
    assert looked(registry.find("learners", "bptt").cls, "trained").held is True


@pytest.mark.parametrize(
    ("name", "parts", "backend"),
    [
        ("eprop", RECURRENT, "jax"),
        ("bptt", ("c",), "torch"),
        ("np", ("W_rec", "W_out"), "torch"),
        ("wp", (), "torch"),
    ],
)
def test_an_estimate_that_points_uphill_is_caught(name, parts, backend):
    result = looked(giving(name, lambda e, ops, batch: scaled(e, -1.0, *parts)), "alignment", backend)
    assert result.held is False and "points uphill" in result.detail
    assert all(part in result.detail for part in parts)
    sound = looked(registry.find("learners", name).cls, "alignment", backend)
    assert sound.held is True and "cosine with BPTT's gradient" in sound.detail


@pytest.mark.parametrize("name", ["rflo", "feedback_alignment", "reward_hebbian", "readout_ridge"])
def test_a_rule_that_does_not_follow_the_gradient_is_not_called_uphill(name):
    assert looked(registry.find("learners", name).cls, "alignment").held is True


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bptt", lambda e, ops, batch: 0.0 * e.loss),
        ("rflo", lambda e, ops, batch: e.loss / batch.weights.shape[0]),
        ("np", lambda e, ops, batch: 0.0 * e.loss),
        ("oua", lambda e, ops, batch: 0.5 * e.loss),
        ("readout_rls", lambda e, ops, batch: 0.0 * e.loss),
    ],
)
def test_a_loss_that_is_not_the_batchs_is_caught(name, change):
    wrong = giving(name, lambda e, ops, batch: e._replace(loss=change(e, ops, batch)))
    result = looked(wrong, "loss")
    assert result.held is False and "where the batch's is 1.25" in result.detail
    assert looked(registry.find("learners", name).cls, "loss").held is True


def test_the_loss_of_a_rule_that_sets_its_weights_on_the_way_is_that_of_its_first_step():
    result = looked(registry.find("learners", "readout_rls").cls, "loss", "jax")
    assert result.held is True and "at its first step" in result.detail


def test_a_lost_factor_of_sigma_is_caught():
    def lost(power):
        def segment(self, ops, *args):
            found = registry.find("learners", "np").cls.segment(self, ops, *args)
            return scaled(
                found._replace(grads={k: ops.dense(g) for k, g in found.grads.items()}), self.sigma**power
            )

        return like("np", segment=segment)

    result = looked(lost(1), "noise scale")
    assert result.held is False and "sigma^1.0" in result.detail
    assert looked(lost(2), "noise scale").held is False
    result = looked(lost(-1), "noise scale")
    assert result.held is None and "2 times as large" in result.detail
    assert looked(lost(0), "noise scale").held is True
    assert looked(registry.find("learners", "bptt").cls, "noise scale").held is None


# -- state -------------------------------------------------------------------------------------------------


def test_what_a_sequence_leaves_behind_is_caught():
    rflo = registry.find("learners", "rflo").cls

    def keeps_trace(self, ops, cell, params, state, batch_size):
        return rflo.reset(self, ops, cell, params, state, batch_size) | {"trace": state["trace"]}

    for reset, said in (
        (keeps_trace, "leaves of the former sequences trace [3, 8, 11]"),
        (lambda self, ops, cell, params, state, rows: state, "cell.s.0 [3, 8], trace [3, 8, 11]"),
        (
            lambda self, ops, cell, params, state, rows: {"cell": state["cell"]},
            "feedback, trace before or after",
        ),
    ):
        result = looked(like("rflo", reset=reset), "reset")
        assert result.held is False and said in result.detail, result
    kept = looked(registry.find("learners", "kernl").cls, "reset")
    assert kept.held is True and kept.detail == "keeps trace.beta, trace.gamma, which all sequences share"


def test_a_state_that_grows_is_caught():
    def segment(self, ops, cell, params, state, batch, key):
        found = backpropagate(ops, cell, params, state["cell"], batch)
        past = state["past"]
        if len(past) < 50:
            past = ops.xp.concat((past, found.loss.reshape((1,))))
        return found._replace(state={"cell": found.state, "past": past})

    def init(self, ops, cell, params, batch_size):
        return {"cell": cell.start(ops, batch_size), "past": ops.zeros((2,))}

    result = looked(like("bptt", segment=segment, init=init), "state")
    assert result.held is False and result.detail == "past is (50,) after 60 segments, and was (3,)"
    assert looked(registry.find("learners", "bptt").cls, "state").held is True


# -- claims --------------------------------------------------------------------------------------------------


def speck(name: str, size: float, **parts: Any) -> Any:
    """A shipped rule with noise of its own for each segment."""
    base = registry.find("learners", name).cls

    def segment(self, ops, cell, params, state, batch, key):
        found = base.segment(self, ops, cell, params, state, batch, key)
        grads = {k: ops.dense(g) for k, g in found.grads.items()}
        grads["W_rec"] = grads["W_rec"] * (1.0 + size * ops.normal(key, (1, 1)))
        return found._replace(grads=grads)

    return like(name, segment=segment, **parts)


def test_noise_does_not_hide_that_a_rule_looks_ahead():
    online = Claims(online=True, memory_in_T="O(T)")
    result = looked(speck("bptt", 1e-6, claims=online), "online")
    assert result.held is False and "by far more than noise moves it" in result.detail
    assert looked(speck("tbptt", 1e-6), "online").held is True
    # As large as the estimate, it does so for the parameter that it moves alone.
    assert looked(speck("bptt", 1.0, claims=online), "online").held is False


def test_where_noise_is_drawn_for_each_segment_online_is_exact_or_not_settled():
    result = looked(registry.find("learners", "wp").cls, "online")
    assert result.held is True and "in one piece" in result.detail
    for name in ("pes", "oua"):
        result = looked(registry.find("learners", name).cls, "online")
        assert result.held is None and result.detail.startswith("not settled"), result


def test_memory_that_hides_behind_the_gradient_is_not_said_to_hold():
    result = looked(like("rflo", claims=Claims(memory="O(1)")), "memory", "jax")
    assert result.held is False and "the state that is carried on grows as n^" in result.detail
    result = looked(like("bptt_checkpointed", claims=Claims(memory="O(1)")), "memory")
    assert result.held is None and result.detail.startswith("not settled: bytes grow as n^")
    assert looked(like("rflo", claims=Claims(memory="O(p)")), "memory").held is True
    assert looked(like("rtrl", claims=Claims(memory="O(p)")), "memory").held is False


def test_what_was_not_settled_is_none_on_the_page():
    """Memory of O(1) beside bytes that grow as the gradient does, and a check that settled nothing."""
    fit = scaling.held(scaling.Fit(1.95, 1.95, 1.95), 0.0, "n", "algorithm_bytes")
    point = ScalingPoint(
        learner="mine",
        backend="jax",
        axis="n",
        quantity="algorithm_bytes",
        size=256,
        value=1.0,
        blocks=1,
        exponent=1.95,
        low=1.95,
        high=1.95,
        claimed=0.0,
        held=fit,
    )
    about = {"claims": dataclasses.asdict(Claims(online=True, memory="O(1)"))}
    found = [
        CheckResult(learner="mine", learner_sha256="0", name=name, held=None, detail=f"not settled: {name}")
        for name in ("memory", "online")
    ]
    results = Results(scaling=(point,), learners={"mine": about}, checks=tuple(found))
    said = {claim.name: claim for claim in board_claims(results, "mine")}
    for name in ("memory", "online", "memory in T"):
        assert said[name].held is None, said[name]
    assert "not settled: memory; jax: n^1.95" in said["memory"].detail
    assert "not settled: online" in said["online"].detail and "not measured" in said["memory in T"].detail


@pytest.mark.parametrize(
    ("exponent", "claim", "held"),
    [(0.04, 0, True), (0.95, 1, True), (1.95, 2, True), (1.95, 1, None), (2.05, 0, None)],
)
def test_bytes_behind_the_gradient_settle_nothing(exponent, claim, held):
    fit = scaling.Fit(exponent, exponent, exponent)
    assert scaling.held(fit, claim, "n", "algorithm_bytes") is held
    assert scaling.held(fit._replace(exponent=2.2), claim, "n", "algorithm_bytes") is False
    assert scaling.held(fit, claim, "T", "algorithm_bytes") is (held is True)

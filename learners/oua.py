"""Ornstein–Uhlenbeck adaptation: weights fluctuate about a mean, which follows unexpected reward.

The network runs with the weights θ, which follow an Ornstein–Uhlenbeck process about the mean μ:

    dθ = λ (μ - θ) dt + Σ dW                    stationary: θ ~ N(μ, s²) with s² = Σ²/(2λ)
    dr̄ = ρ (r - r̄) dt                           expected reward; r = -L of the segment, run with θ
    dμ = η (r - r̄) (θ - μ) dt                    r - r̄: the reward prediction error

A segment is the unit of time, one step on a stream unless the trial says otherwise. θ takes the process's
exact step in it, θ ← μ + e^{-λ} (θ - μ) + s √(1 - e^{-2λ}) ε. The harness holds and evaluates the mean μ; θ
is state, and is kept after a sequence. The optimiser gets

    ∂L/∂μ ≈ (L - L̄) (θ - μ) / s²                with L̄ = -r̄; the paper's η is the learning rate / s²

If θ has the stationary distribution and L̄ is the expected loss, its expectation as s → 0 is the gradient of
the segment's loss. A run starts at θ = μ, L̄ follows the loss from its first value, and θ moves slowly, so a
single estimate is not unbiased. There is no clean pass: loss and state are those of the network with θ. A
segment without a scored step has no reward: θ moves on, and L̄ and μ stay.

Source: Garcia Fernandez, Ahmad & van Gerven 2024, arXiv 2410.13563.
"""

from dataclasses import dataclass
from math import exp, sqrt

from creditbench.errors import UsageError, require_positive
from creditbench.learner import Claims, Estimate, Learner, flat_size, forward, unflatten


@dataclass(frozen=True, kw_only=True)
class OrnsteinUhlenbeckAdaptation(Learner):
    id = "oua"
    name = "Ornstein–Uhlenbeck adaptation"
    paper = "Garcia Fernandez, Ahmad & van Gerven 2024, arXiv:2410.13563"
    family = "perturbation"
    claims = Claims(online=True, forward_only=True, time="O(n²)", memory="O(p)")
    lr = 1e-4
    search = {"sigma": (1e-3, 1e-1), "reward_rate": (1e-2, 0.99)}

    sigma: float = 2e-2  #: s, stationary standard deviation of the weights about their mean
    reversion: float = 0.1  #: λ, per segment
    reward_rate: float = 0.1  #: ρ, per segment

    def __post_init__(self):
        require_positive(self, "sigma", "reversion", "reward_rate")
        if self.reward_rate > 1:
            raise UsageError(
                f"reward_rate is {self.reward_rate!r}: OrnsteinUhlenbeckAdaptation needs one in (0, 1]"
            )

    def init(self, ops, cell, params, batch_size):
        theta = {name: ops.xp.asarray(params[name], copy=True) for name in cell.shapes()}
        return {
            "cell": cell.start(ops, batch_size),
            "theta": theta,
            "expected": ops.zeros(()),
            "segments": ops.zeros(()),
        }

    def reset(self, ops, cell, params, state, batch_size):
        return state | {"cell": cell.start(ops, batch_size)}

    def segment(self, ops, cell, params, state, batch, key):
        xp, shapes, stay = ops.xp, cell.shapes(), exp(-self.reversion)
        away = unflatten(ops.normal(key, (flat_size(shapes),), self.sigma * sqrt(1.0 - stay**2)), shapes)
        away = {name: ops.accumulate(away[name], state["theta"][name] - params[name], stay) for name in away}
        theta = {name: params[name] + away[name] for name in away}
        after, loss, hidden = forward(ops, cell, params | theta, state["cell"], batch)
        scored = xp.astype(xp.sum(batch.weights) > 0, loss.dtype)
        expected = xp.where(state["segments"] == 0.0, loss, state["expected"])
        surprise = scored * (loss - expected) / self.sigma**2
        grads = {name: surprise * away[name] for name in away}
        state = {
            "cell": after,
            "theta": theta,
            "expected": expected + scored * self.reward_rate * (loss - expected),
            "segments": state["segments"] + scored,
        }
        return Estimate(loss, grads, state, hidden=hidden)

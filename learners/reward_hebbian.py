"""Reward-modulated Hebbian learning: fluctuations of activity, gated by a reward at the end of a trial.

There is one noisy pass, with ξ_t ~ N(0, σ²) on every pre-activation and output. A trial is a segment. The
rule does not know its noise. A unit's fluctuation is its distance from its own running mean:

    ā_t = λ ā_{t-1} + (1-λ) a_t                      running mean of the noisy a, of each sequence
    e   = Σ_t S((a_t - ā_{t-1}) ĥ_{t-1}ᵀ)            eligibility trace; S(z) = z³, elementwise
    ∂L/∂W_rec ≈ Σ_b (L_b - L̄) e_b / (3 σ⁴)          reward R_b = -L_b: each sequence's own part of the loss
    L̄  ← β L̄ + (1-β) mean_b L_b                     expected loss of a sequence, from trial to trial

and likewise for W_in, b and, from the outputs' fluctuations, W_out, c. S is supralinear, so that a
perturbation outweighs many small fluctuations of the network itself. The cube of a product is the product of
the cubes, so e is a sum of outer products. `exponent = 1` is the rule without S.

Scale: if the fluctuation were the noise itself, E[(L - L̄) ξ³] = 3 σ⁴ ∂L/∂a (and E[(L - L̄) ξ] = σ² ∂L/∂a, by
which `exponent = 1` divides). It is not, so the rule is biased: by the network's own fluctuations, by those
due to earlier noise, and by the cube on ĥ.

The paper perturbs a unit in one of 300 steps, with large uniform noise; here normal noise is added at every
step. It learns W_rec alone. It keeps an L̄ for each kind of trial, clips its updates and multiplies them by L̄.
λ and β are the paper's. L̄ starts as the first trial's mean loss, and is kept after a sequence. The loss and
the state are those of the noisy pass, since there is no other. On a stream each segment is a trial, ā is
carried on and e starts again from 0.

Source: Miconi 2017, eLife 6:e20899.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from creditbench.errors import UsageError, require_positive
from creditbench.learner import Batch, Claims, Estimate, Learner, chunk_size, rows


@dataclass(frozen=True, kw_only=True)
class RewardHebbian(Learner):
    id = "reward_hebbian"
    name = "Reward-modulated Hebbian learning"
    paper = "Miconi 2017, doi:10.7554/eLife.20899"
    family = "perturbation"
    claims = Claims(forward_only=True, time="O(n²)", memory="O(p B)")
    lr = 1e-6
    search = {"sigma": (1e-2, 1.0)}

    sigma: float = 0.1  #: standard deviation of the noise
    exponent: Literal[1, 3] = 3  #: of S
    mean_decay: float = 0.05  #: λ
    reward_decay: float = 0.75  #: β
    K: int = 50  #: steps of a trial on a stream

    def __post_init__(self):
        require_positive(self, "sigma", "K")
        if self.exponent not in (1, 3):
            raise UsageError(f"exponent is {self.exponent!r}: RewardHebbian needs 1 or 3")
        for name in ("mean_decay", "reward_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)!r}: RewardHebbian needs a number in [0, 1)")

    @property
    def stream_segment(self):
        return self.K

    def init(self, ops, cell, params, batch_size):
        return {
            "cell": cell.start(ops, batch_size),
            "mean": ops.zeros((batch_size, cell.units + cell.outputs)),
            "expected": ops.zeros(()),
            "trials": ops.zeros(()),
        }

    def reset(self, ops, cell, params, state, batch_size):
        fresh = self.init(ops, cell, params, batch_size)
        return fresh | {name: state[name] for name in ("expected", "trials")}

    def segment(self, ops, cell, params, state, batch, key):
        xp, n, B = ops.xp, cell.units, batch.weights.shape[1]

        size = chunk_size(batch)
        whole = batch.weights.shape[0] <= size

        def chunk(carry, xs):
            state, mean, loss, trace, key = carry
            batch = Batch(*xs)
            K = batch.weights.shape[0]
            if not whole:  # draw keys per chunk: the keys of all steps at once would grow with the segment
                key, own = ops.split(key)
            keys = ops.split(key if whole else own, K)
            x, target, weight = rows(batch)
            xi = ops.normal(keys, (B, n + cell.outputs), self.sigma).reshape((K * B, -1))
            state, seen = cell.unroll(ops, params, state, x, K, xi[:, :n])
            y = cell.readout(ops, params, seen.out, xi[:, n:])
            loss = loss + (weight * cell.losses(ops, y, target)).reshape((K, B)).sum(0)
            units = xp.concat((seen.a, y), axis=1).reshape((K, B, -1))
            post, mean = fluctuations(ops, units, mean, self.mean_decay)
            post, pre = post**self.exponent, seen.presynaptic(x)
            pre = ops.tree_map(lambda r: r.reshape((K, B, -1)) ** self.exponent, pre)
            more = cell.gradient_by_row(ops, post[..., :n], pre, post[..., n:])
            trace = {name: ops.accumulate(trace[name], more[name]) for name in trace}
            return (state, mean, loss, trace, key), None if cell.decorrelate == "none" else seen.hidden

        trace = {name: ops.zeros((B, *shape)) for name, shape in cell.shapes().items()}
        carry = state["cell"], state["mean"], ops.zeros((B,)), trace, key
        xs = tuple(batch)
        if whole:
            carry, hidden = chunk(carry, xs)
        else:
            carry, hidden = ops.scan_chunks(chunk, carry, xs, size)
        after, mean, losses, trace, _ = carry
        average = losses.mean()
        expected = xp.where(state["trials"] == 0.0, average, state["expected"])
        scale = {1: 1.0, 3: 3.0}[self.exponent] * self.sigma ** (self.exponent + 1)
        surprise = (losses - expected) / scale
        grads = {name: xp.tensordot(surprise, trace[name], axes=1) for name in trace}
        expected = self.reward_decay * expected + (1.0 - self.reward_decay) * average
        state = {"cell": after, "mean": mean, "expected": expected, "trials": state["trials"] + 1.0}
        return Estimate(losses.sum(), grads, state, hidden=hidden)


def fluctuations(ops, units, mean, decay):
    """(x_t - x̄_{t-1} of units [K, B, N], the running mean after them), given the mean [B, N] before."""
    K = len(units)
    t, s = np.arange(K + 1)[:, None], np.arange(K)
    kernel = np.where(s < t, (1.0 - decay) * decay ** np.maximum(t - 1 - s, 0), 0.0)
    start, kernel = ops.from_numpy((decay ** t[..., None].astype(float), kernel))
    means = start * mean + ops.xp.tensordot(kernel, units, axes=1)
    return units - means[:-1], means[-1]

"""Weight perturbation: noise on every weight, credited with the loss difference that it makes.

A clean and a noisy pass run side by side, both carried over time; the noisy one has the weights θ + σ Ξ, with
Ξ ~ N(0, 1) shared by the batch. With ΔL_t = L̃_t - L_t, summed over the batch,

    resample = step, credit = step        ∂L/∂θ ≈ Σ_t ΔL_t Ξ_t / σ             expectation of TBPTT(1)
    resample = step, credit = episode     ∂L/∂θ ≈ (Σ_t ΔL_t) (Σ_t Ξ_t) / σ     expectation of BPTT
    resample = step, credit = trace       ∂L/∂θ ≈ Σ_t ΔL_t Σ_{s≤t} Ξ_s / σ     expectation of BPTT, less variance
    resample = episode                    ∂L/∂θ ≈ (Σ_t ΔL_t) Ξ / σ             expectation of BPTT

as σ → 0. With one noise a segment the three credits are the same. On a stream a segment is one step, unless the
trial says otherwise. `trace` carries its sum from segment to segment.

With fresh noise at every step the rule's time is that of drawing T·p normals: at n = 500 the draws of a step
take longer than everything else together (benchmarks/test_speed.py measures the share).

The paper has fresh noise at every step and credits each step's own loss difference; it multiplies by ΔL Ξ with noise
Ξ ~ N(0, σ²) over σ, so its learning rate is ours divided by σ.

Source: Jabri & Flower 1992, IEEE Trans. Neural Netw. 3(1):154; Garcia Fernandez, Keemink & van Gerven 2024,
arXiv 2405.08967.
"""

from dataclasses import dataclass
from typing import Literal

from creditbench.errors import require_one_of, require_positive
from creditbench.learner import Claims, Estimate, Learner, twin_hidden, twin_readout, zero_gradients


@dataclass(frozen=True, kw_only=True)
class WeightPerturbation(Learner):
    id = "wp"
    name = "Weight perturbation"
    paper = "Jabri & Flower 1992, doi:10.1109/72.105429"
    family = "perturbation"
    claims = Claims(unbiased=True, online=True, forward_only=True, time="O(n²)", memory="O(p)")
    lr = 1e-3

    sigma: float = 1e-2  #: standard deviation of the noise
    resample: Literal["step", "episode"] = "episode"
    credit: Literal["step", "episode", "trace"] = "episode"

    def __post_init__(self):
        require_positive(self, "sigma")
        require_one_of(self, "resample", ("step", "episode"))
        require_one_of(self, "credit", ("step", "episode", "trace"))

    @property
    def traced(self):
        return self.resample == "step" and self.credit == "trace"

    def init(self, ops, cell, params, batch_size):
        state = {"twin": cell.start(ops, 2 * batch_size)}
        return state | {"trace": zero_gradients(ops, cell)} if self.traced else state

    def segment(self, ops, cell, params, state, batch, key):
        xp = ops.xp
        K, B = batch.weights.shape
        keep = cell.decorrelate != "none"

        def noisy(before, x, target, weight, Xi):
            """One step of both passes: state, clean loss, ΔL_t / σ."""
            noise = ops.linear(x, Xi["W_in"]) + ops.linear(before.out[B:], Xi["W_rec"], Xi.get("b"))
            _, after = twin_hidden(ops, cell, params, before, x, self.sigma * noise)
            noise = ops.linear(after.out[B:], Xi["W_out"], Xi.get("c"))
            _, losses = twin_readout(ops, cell, params, after, target, weight, self.sigma * noise)
            losses = xp.sum(losses, axis=1)
            return after, losses[0], (losses[1] - losses[0]) / self.sigma

        def fixed(before, xs):
            after, loss, delta = noisy(before, *xs, Xi)
            return after, (loss, delta, after.out[:B] if keep else None)

        def resampled(carry, xs):
            before, total, grads = carry
            *step, key = xs
            Xi = draw(ops, cell, key)
            after, loss, delta = noisy(before, *step, Xi)
            if self.credit != "step":
                total = {k: ops.accumulate(total[k], Xi[k]) for k in total}
            if self.credit != "episode":
                credited = total if self.credit == "trace" else Xi
                grads = {k: ops.accumulate(grads[k], credited[k], delta) for k in grads}
            return (after, total, grads), (loss, delta, after.out[:B] if keep else None)

        if self.resample == "episode":
            Xi = draw(ops, cell, key)
            twin, (losses, deltas, hidden) = ops.scan(fixed, state["twin"], batch)
            grads = {k: xp.sum(deltas) * Xi[k] for k in Xi}
            return Estimate(xp.sum(losses), grads, {"twin": twin}, hidden=hidden)

        total = {} if self.credit == "step" else state["trace"] if self.traced else zero_gradients(ops, cell)
        grads = {} if self.credit == "episode" else zero_gradients(ops, cell)
        (twin, total, grads), (losses, deltas, hidden) = ops.scan(
            resampled, (state["twin"], total, grads), (*batch, ops.split(key, K))
        )
        if self.credit == "episode":
            grads = {k: xp.sum(deltas) * total[k] for k in total}
        state = {"twin": twin, "trace": total} if self.traced else {"twin": twin}
        return Estimate(xp.sum(losses), grads, state, hidden=hidden)


def draw(ops, cell, key):
    """Standard normal noise for every trained parameter."""
    shapes = cell.shapes()
    return {name: ops.normal(key, shape) for (name, shape), key in zip(shapes.items(), ops.split(key, len(shapes)))}


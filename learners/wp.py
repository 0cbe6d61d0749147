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
from creditbench.learner import Claims, Estimate, Learner, zero_gradients


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
        state = {"clean": cell.start(ops, batch_size), "noisy": cell.start(ops, batch_size)}
        return state | {"trace": zero_gradients(ops, cell)} if self.traced else state

    def segment(self, ops, cell, params, state, batch, key):
        K, B = batch.weights.shape
        keep = cell.decorrelate != "none"

        def perturb(Xi):
            return params | {k: params[k] + self.sigma * Xi[k] for k in Xi}

        def both(passes, xs, perturbed):
            """One step of both passes: passes, loss, ΔL_t / σ of the batch."""
            clean, noisy = passes
            x, target, weight = xs
            losses = []
            for theta, before in ((params, clean), (perturbed, noisy)):
                _, after = cell.step(ops, theta, before, cell.drive(ops, theta, x))
                losses.append((after, weight @ cell.losses(ops, cell.readout(ops, theta, after.out), target)))
            (clean, loss), (noisy, loss_noisy) = losses
            return (clean, noisy), loss, (loss_noisy - loss) / self.sigma

        def fixed(passes, xs):
            passes, loss, delta = both(passes, xs, perturbed)
            return passes, (loss, delta, passes[0].out if keep else None)

        def resampled(carry, xs):
            passes, total, grads = carry
            *step, key = xs
            Xi = draw(ops, cell, key)
            passes, loss, delta = both(passes, step, perturb(Xi))
            if self.credit != "step":
                total = {k: ops.accumulate(total[k], Xi[k]) for k in total}
            if self.credit != "episode":
                credited = total if self.credit == "trace" else Xi
                grads = {k: ops.accumulate(grads[k], credited[k], delta) for k in grads}
            return (passes, total, grads), (loss, delta, passes[0].out if keep else None)

        passes = state["clean"], state["noisy"]
        if self.resample == "episode":
            Xi = draw(ops, cell, key)
            perturbed = perturb(Xi)
            passes, (losses, deltas, hidden) = ops.scan(fixed, passes, batch)
            grads = {k: deltas.sum() * Xi[k] for k in Xi}
        else:
            # What is carried from segment to segment belongs to the caller; the scan adds to a copy.
            total = {} if self.credit == "step" else zero_gradients(ops, cell)
            if self.traced:
                total = {k: ops.accumulate(total[k], state["trace"][k]) for k in total}
            grads = {} if self.credit == "episode" else zero_gradients(ops, cell)
            (passes, total, grads), (losses, deltas, hidden) = ops.scan(
                resampled, (passes, total, grads), (*batch, ops.split(key, K))
            )
            if self.credit == "episode":
                grads = {k: deltas.sum() * total[k] for k in total}
            if self.traced:
                state = state | {"trace": total}
        state = state | {"clean": passes[0], "noisy": passes[1]}
        return Estimate(losses.sum(), grads, state, hidden=hidden)


def draw(ops, cell, key):
    """Standard normal noise for every trained parameter."""
    shapes = cell.shapes()
    return {name: ops.normal(key, shape) for (name, shape), key in zip(shapes.items(), ops.split(key, len(shapes)))}


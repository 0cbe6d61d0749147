"""Weight perturbation: noise on every weight, credited with the loss difference that it makes.

A clean and a noisy pass run side by side, both carried over time. The noisy one has the weights θ + Ξ, with
Ξ ~ N(0, σ²) shared by the batch. With ΔL_t = L̃_t - L_t, summed over the batch,

    resample = step, credit = step        ∂L/∂θ ≈ Σ_t ΔL_t Ξ_t / σ²             expectation of TBPTT(1)
    resample = step, credit = episode     ∂L/∂θ ≈ (Σ_t ΔL_t) (Σ_t Ξ_t) / σ²     expectation of BPTT
    resample = step, credit = trace       ∂L/∂θ ≈ Σ_t ΔL_t Σ_{s≤t} Ξ_s / σ²     the same, with less variance
    resample = episode                    ∂L/∂θ ≈ (Σ_t ΔL_t) Ξ / σ²             expectation of BPTT

as σ → 0. With one noise per segment the three credits are the same. On a stream a segment is one step, unless
the trial says otherwise. `trace` carries its sum from segment to segment.

With fresh noise at every step the rule's time is that of drawing T·p normals: at n = 500 the draws of a step
take longer than all else together (benchmarks/test_speed.py measures the share).

As published: `resample = step`, `credit = step`, and `recurrent_from = second`, where W_rec gets no credit at
a state's first step: since ĥ_0 = 0, its noise has no effect there. The paper multiplies by ΔL Ξ/σ where the
theory has ΔL Ξ/σ²: its learning rate is ours divided by σ. On episodes the published code also has
`decorrelation = before`.

Source: Jabri & Flower 1992, IEEE Trans. Neural Netw. 3(1):154; Garcia Fernandez, Keemink & van Gerven 2024,
arXiv 2405.08967.
"""

from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Literal

from creditbench.errors import UsageError, require_one_of, require_positive
from creditbench.learner import Claims, Estimate, Learner, chunk_size, rows, sum_over_chunks, zero_gradients


@dataclass(frozen=True, kw_only=True)
class WeightPerturbation(Learner):
    id = "wp"
    name = "Weight perturbation"
    paper = "Jabri & Flower 1992, doi:10.1109/72.105429"
    family = "perturbation"
    claims = Claims(unbiased=True, online=True, forward_only=True, time="O(n²)", memory="O(p)")
    lr = 1e-3
    search = {"sigma": (1e-4, 1e-1)}

    sigma: float = 1e-2  #: standard deviation of the noise
    resample: Literal["step", "episode"] = "episode"
    credit: Literal["step", "episode", "trace"] = "episode"
    recurrent_from: Literal["first", "second"] = "first"  #: the first step of a state with noise on W_rec
    decorrelation: Literal["after", "before"] = "after"  #: when D moves; before needs one more clean pass

    def __post_init__(self):
        require_positive(self, "sigma")
        require_one_of(self, "resample", ("step", "episode"))
        require_one_of(self, "credit", ("step", "episode", "trace"))
        require_one_of(self, "recurrent_from", ("first", "second"))
        require_one_of(self, "decorrelation", ("after", "before"))
        if self.recurrent_from == "second" and self.resample == "episode":
            raise UsageError(
                "recurrent_from is 'second' where one noise lasts all segment: set resample to 'step' with it"
            )

    @property
    def traced(self):
        return self.resample == "step" and self.credit == "trace"

    def fits(self, cell):
        if self.recurrent_from == "second" and not cell.recurrent:
            return "recurrent_from is 'second', and it has no W_rec"
        return ""

    def init(self, ops, cell, params, batch_size):
        state = {"clean": cell.start(ops, batch_size), "noisy": cell.start(ops, batch_size)}
        if self.recurrent_from == "second":
            state["begun"] = ops.zeros(())
        return state | {"trace": zero_gradients(ops, cell)} if self.traced else state

    def segment(self, ops, cell, params, state, batch, key):
        if self.resample == "step":
            return self.fresh_noise(ops, cell, params, state, batch, key)
        Xi = draw(ops, cell, key, self.sigma)
        perturbed = perturb(params, Xi)

        def chunk(state, batch, _):
            x, target, weight = rows(batch)

            def run(theta, state):
                after, seen = cell.unroll(ops, theta, state, x, batch.weights.shape[0])
                y = cell.readout(ops, theta, seen.out)
                return after, weight @ cell.losses(ops, y, target), seen.hidden

            clean, loss, hidden = run(params, state["clean"])
            noisy, noisy_loss, _ = run(perturbed, state["noisy"])
            delta_loss = (noisy_loss - loss) / self.sigma**2
            grads = {k: delta_loss * Xi[k] for k in Xi}
            return Estimate(loss, grads, {"clean": clean, "noisy": noisy}, hidden=hidden)

        return sum_over_chunks(ops, cell, chunk, state, batch, None, chunk_size(batch))

    def fresh_noise(self, ops, cell, params, state, batch, key):
        """Fresh noise at every step. The clean pass needs no noise, and runs chunk by chunk."""
        sigma, credit = self.sigma, self.credit
        layers = [
            (layer, cell.of_layer(params, k), layer.recurrence(ops, cell.of_layer(params, k)))
            for k, layer in enumerate(cell.layers)
        ]

        def chunk(state, batch, keys):
            K = batch.weights.shape[0]
            x, target, weight = rows(batch)
            drive = cell.layers[0].drive(ops, params, x)
            clean, unrolled = cell.unroll(ops, params, state["clean"], x, K, drive=drive)
            losses = weight * cell.losses(ops, cell.readout(ops, params, unrolled.out), target)

            def step(carry, xs):
                noisy, total, grads = carry
                (x, target, weight), drive, loss, key, *begun = xs
                Xi = draw(ops, cell, key, sigma)
                if begun:
                    Xi = Xi | {name: begun[0] * Xi[name] for name in Xi if name.startswith("W_rec")}
                seen, after = x, []
                for k, (layer, own, W) in enumerate(layers):
                    before, noise = noisy if len(layers) == 1 else noisy[k], cell.of_layer(Xi, k)
                    # Products are linear in the weights: θ + Ξ, as large as the weights, is never formed.
                    added = layer.drive(ops, noise, seen)
                    if layer.recurrent:
                        added = ops.linear(before.out, layer.recurrent_weights(ops, noise), added)
                    driven = drive if k == 0 else layer.drive(ops, own, seen)
                    own = perturb(own, {name: noise[name] for name in layer.phi})
                    after.append(layer.step(ops, own, before, driven + added, W)[1])
                    seen = layer.see(ops, after[-1], seen)
                noisy = after[0] if len(layers) == 1 else tuple(after)
                y = cell.readout(ops, params, seen, cell.readout(ops, Xi, seen))
                delta_loss = (weight @ cell.losses(ops, y, target) - loss) / sigma**2
                if credit != "step":
                    total = {k: ops.accumulate(total[k], Xi[k]) for k in total}
                if credit != "episode":
                    credited = total if credit == "trace" else Xi
                    grads = {k: ops.accumulate(grads[k], credited[k], delta_loss) for k in grads}
                return (noisy, total, grads), delta_loss

            total = {} if credit == "step" else zero_gradients(ops, cell)
            if self.traced:
                # The carried sum belongs to the caller, so the scan adds to a copy.
                total = {k: ops.accumulate(total[k], state["trace"][k]) for k in total}
            grads = {} if credit == "episode" else zero_gradients(ops, cell)
            steps = drive.reshape((K, -1, drive.shape[-1])), losses.reshape((K, -1)).sum(1)
            xs = (tuple(batch), *steps, keys)
            after = {"clean": clean}
            if self.recurrent_from == "second":
                ones = ops.zeros((K,)) + 1.0
                xs = (*xs, ops.xp.concat((state["begun"].reshape((1,)), ones[1:])))
                after["begun"] = ones[0]
            (after["noisy"], total, grads), deltas = ops.scan(step, (state["noisy"], total, grads), xs)
            if credit == "episode":
                grads = {k: deltas.sum() * total[k] for k in total}
            if self.traced:
                after["trace"] = total
            return Estimate(losses.sum(), grads, after, hidden=unrolled.hidden)

        size = batch.weights.shape[0] if credit == "episode" else chunk_size(batch)
        return sum_over_chunks(ops, cell, chunk, state, batch, key, size)


def perturb(params, Xi):
    """θ + Ξ."""
    return params | {name: params[name] + Xi[name] for name in Xi}


def draw(ops, cell, key, sigma):
    """Noise N(0, σ²) for every trained parameter, from one draw."""
    shapes = cell.shapes()
    ends = list(accumulate(prod(shape) for shape in shapes.values()))
    flat = ops.normal(key, (ends[-1],), sigma)
    return {
        name: flat[start:end].reshape(shape)
        for (name, shape), start, end in zip(shapes.items(), [0, *ends], ends, strict=False)
    }

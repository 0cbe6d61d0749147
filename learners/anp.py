"""Activity-based node perturbation: the change of activity by noise replaces the noise itself.

A clean and a noisy pass run side by side, both carried over time. Noise ξ_t ~ N(0, σ²) enters the noisy pass
at every pre-activation and output. With Δa_t = ã_t - a_t, which holds the effect of all earlier noise too,
and each sequence's own loss difference ΔL_t,

    ∂L/∂W_rec ≈ Σ_t √N  ΔL_t Δa_t / ‖Δa_t‖²  ĥ_{t-1}ᵀ

layer by layer: ‖·‖² is over the units of the layer and the batch, N is the number of all units with noise,
including outputs. The estimate does not depend on σ to first order. It is not meant to be unbiased: the norm
divides by about n B σ², so its scale is that of the gradient divided by n B/√N.

As published: `difference = batch`, where the rows share the batch's ΔL_t = Σ_b ΔL_tb, and `counted = all`,
where N also counts the inputs. With an update at every step the published code also divides by B: its
learning rate is ours times B. On episodes it has `decorrelation = before`.

Source: Garcia Fernandez, Keemink & van Gerven 2024, Front. Neurosci. 18:1439155, arXiv 2405.08967.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Literal

from creditbench.errors import require_one_of, require_positive
from creditbench.learner import Claims, Estimate, Learner, chunk_size, joined, rows, sum_over_chunks


@dataclass(frozen=True, kw_only=True)
class ActivityNodePerturbation(Learner):
    id = "anp"
    name = "Activity-based node perturbation"
    paper = "Garcia Fernandez, Keemink & van Gerven 2024, arXiv:2405.08967"
    family = "perturbation"
    claims = Claims(online=True, forward_only=True, time="O(n²)", memory="O(n B)")
    lr = 1e-2
    search = {"sigma": (1e-4, 1e-1)}

    sigma: float = 1e-3  #: standard deviation of the noise
    difference: Literal["row", "batch"] = "row"  #: the ΔL that credits a row: its own, or the batch's
    counted: Literal["noisy", "all"] = "noisy"  #: the units in N: those with noise, or the inputs too
    decorrelation: Literal["after", "before"] = "after"  #: when D moves; before needs one more clean pass

    def __post_init__(self):
        require_positive(self, "sigma")
        require_one_of(self, "difference", ("row", "batch"))
        require_one_of(self, "counted", ("noisy", "all"))
        require_one_of(self, "decorrelation", ("after", "before"))

    def init(self, ops, cell, params, batch_size):
        return {"clean": cell.start(ops, batch_size), "noisy": cell.start(ops, batch_size)}

    def segment(self, ops, cell, params, state, batch, key):
        n, noisy_units = cell.units, cell.units + cell.outputs
        N = noisy_units + (cell.inputs if self.counted == "all" else 0)

        def chunk(state, batch, keys):
            K, B = batch.weights.shape
            x, target, weight = rows(batch)
            xi = ops.normal(keys, (B, noisy_units), self.sigma).reshape((-1, noisy_units))
            drive = cell.layers[0].drive(ops, params, x)
            clean, seen = cell.unroll(ops, params, state["clean"], x, K, drive=drive)
            noisy, seen_noisy = cell.unroll(ops, params, state["noisy"], x, K, xi[:, :n], drive)
            y = cell.readout(ops, params, seen.out)
            y_noisy = cell.readout(ops, params, seen_noisy.out, xi[:, n:])
            losses = cell.losses(ops, y, target)
            delta_loss = weight * (cell.losses(ops, y_noisy, target) - losses)
            if self.difference == "batch":
                of_batch = delta_loss.reshape((K, B)).sum(1)[:, None]
                delta_loss = ops.xp.broadcast_to(of_batch, (K, B)).reshape((-1,))
            gain = sqrt(N) * delta_loss[:, None]

            def post(delta):
                square = delta * delta
                if K == 1:
                    return gain / square.sum() * delta
                norm = square.reshape((K, -1)).sum(1)[:, None, None]  # of each step, over units and batch
                return (gain.reshape((K, B, 1)) / norm).reshape((-1, 1)) * delta

            layers = cell.by_layer(seen_noisy.a - seen.a, n // len(cell.layers))
            posts = joined(ops, [post(delta) for delta in layers])
            grads = cell.gradient(ops, posts, seen.presynaptic(x), post(y_noisy - y))
            return Estimate(weight @ losses, grads, {"clean": clean, "noisy": noisy}, hidden=seen.hidden)

        return sum_over_chunks(ops, cell, chunk, state, batch, key, chunk_size(batch))

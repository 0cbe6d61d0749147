"""Node perturbation: noise on every unit, credited with the loss difference that it makes.

A clean and a noisy pass run side by side, both carried over time. Noise ξ_t ~ N(0, σ²) enters the noisy pass
at every pre-activation and output. With each sequence's own loss difference ΔL_t = L̃_t - L_t and
ΔL = Σ_t ΔL_t,

    credit = step        ∂L/∂W_rec ≈ Σ_t ΔL_t ξ_t ĥ_{t-1}ᵀ / σ²             expectation of TBPTT(1)
    credit = episode     ∂L/∂W_rec ≈ ΔL Σ_t ξ_t ĥ_{t-1}ᵀ / σ²               expectation of BPTT
    credit = trace       ∂L/∂W_rec ≈ Σ_t ΔL_t Σ_{s≤t} ξ_s ĥ_{s-1}ᵀ / σ²     expectation of BPTT, less variance

as σ → 0, and likewise for W_in, b and, with the outputs' noise, W_out, c. `step` keeps nothing over time.
`trace` keeps one sum of the size of the weights for each sequence, carried from segment to segment. `episode`
keeps the noise and the activity of the segment.

As published: `step`, with `difference = batch`, where the rows share the batch's ΔL_t = Σ_b ΔL_tb. The paper
multiplies by ΔL ξ/σ where the theory has ΔL ξ/σ²: its learning rate is ours divided by σ. With a shared ΔL
each row adds noise to the others; for one row the two are the same. On episodes the published code also has
`decorrelation = before`.

Source: Fiete & Seung 2006, Phys. Rev. Lett. 97:048104; Garcia Fernandez, Keemink & van Gerven 2024,
arXiv 2405.08967.
"""

from dataclasses import dataclass
from typing import Literal

from creditbench.errors import require_one_of, require_positive
from creditbench.learner import Claims, Estimate, Learner, chunk_size, rows, sum_over_chunks


@dataclass(frozen=True, kw_only=True)
class NodePerturbation(Learner):
    id = "np"
    name = "Node perturbation"
    paper = "Fiete & Seung 2006, doi:10.1103/PhysRevLett.97.048104"
    family = "perturbation"
    claims = Claims(online=True, forward_only=True, time="O(n²)", memory="O(n B)")
    lr = 1e-3
    search = {"sigma": (1e-4, 1e-1)}

    sigma: float = 1e-2  #: standard deviation of the noise
    credit: Literal["step", "episode", "trace"] = "step"
    difference: Literal["row", "batch"] = "row"  #: the ΔL that credits a row: its own, or the batch's
    decorrelation: Literal["after", "before"] = "after"  #: when D moves; before needs one more clean pass

    def __post_init__(self):
        require_positive(self, "sigma")
        require_one_of(self, "credit", ("step", "episode", "trace"))
        require_one_of(self, "difference", ("row", "batch"))
        require_one_of(self, "decorrelation", ("after", "before"))

    def init(self, ops, cell, params, batch_size):
        state = {"clean": cell.start(ops, batch_size), "noisy": cell.start(ops, batch_size)}
        if self.credit == "trace":
            state["trace"] = {k: ops.zeros((batch_size, *shape)) for k, shape in cell.shapes().items()}
        return state

    def segment(self, ops, cell, params, state, batch, key):
        xp, n, N, sigma = ops.xp, cell.units, cell.units + cell.outputs, self.sigma

        def chunk(state, batch, keys):
            K, B = batch.weights.shape
            x, target, weight = rows(batch)
            xi = ops.normal(keys, (B, N)).reshape((-1, N))  # in units of σ
            drive = cell.layers[0].drive(ops, params, x)
            noisy, seen = cell.unroll(ops, params, state["noisy"], x, K, sigma * xi[:, :n], drive)
            y_noisy = cell.readout(ops, params, seen.out, sigma * xi[:, n:])
            clean, seen = cell.unroll(ops, params, state["clean"], x, K, drive=drive)
            pre = seen.presynaptic(x)
            y = cell.readout(ops, params, seen.out)
            losses = cell.losses(ops, y, target)
            delta_loss = weight * (cell.losses(ops, y_noisy, target) - losses) / sigma
            if self.difference == "batch":
                delta_loss = shared(xp, delta_loss, (K, B))

            def gradient(credit):
                credited = credit.reshape((-1, 1)) * xi
                return cell.gradient(ops, credited[:, :n], pre, credited[:, n:])

            state = {"clean": clean, "noisy": noisy} | {k: v for k, v in state.items() if k == "trace"}
            if self.credit == "step":
                grads = gradient(delta_loss)
            else:
                delta_loss = delta_loss.reshape((K, B))
                total = delta_loss.sum(0)
                if self.credit == "episode":
                    grads = gradient(xp.broadcast_to(total, (K, B)))
                else:
                    # A step of this chunk is credited with the losses from it on; an earlier step, with all
                    # losses of the chunk.
                    grads = gradient(total - xp.cumulative_sum(delta_loss, axis=0) + delta_loss)
                    grads = {
                        k: ops.dense(g) + xp.tensordot(total, state["trace"][k], axes=1)
                        for k, g in grads.items()
                    }
                    by_row = (xi[:, :n], pre, xi[:, n:])
                    sums = cell.gradient_by_row(ops, *ops.tree_map(lambda r: r.reshape((K, B, -1)), by_row))
                    state["trace"] = {k: state["trace"][k] + sums[k] for k in sums}
            return Estimate(weight @ losses, grads, state, hidden=seen.hidden)

        size = batch.weights.shape[0] if self.credit == "episode" else chunk_size(batch)
        return sum_over_chunks(ops, cell, chunk, state, batch, key, size)


def shared(xp, delta_loss, shape):
    """The batch's ΔL in place of each row's own: the sum over the batch, step by step, [R]."""
    return xp.broadcast_to(delta_loss.reshape(shape).sum(1)[:, None], shape).reshape((-1,))

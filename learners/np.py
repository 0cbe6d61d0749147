"""Node perturbation: noise on every unit, credited with the loss difference that it makes.

A clean and a noisy pass run side by side, both carried over time. Noise ξ_t ~ N(0, σ²) enters the noisy pass at
every pre-activation and output. With each sequence's own loss difference ΔL_t = L̃_t - L_t, and ΔL = Σ_t ΔL_t,

    credit = step        ∂L/∂W_rec ≈ Σ_t ΔL_t ξ_t ĥ_{t-1}ᵀ / σ²             expectation of TBPTT(1)
    credit = episode     ∂L/∂W_rec ≈ ΔL Σ_t ξ_t ĥ_{t-1}ᵀ / σ²               expectation of BPTT
    credit = trace       ∂L/∂W_rec ≈ Σ_t ΔL_t Σ_{s≤t} ξ_s ĥ_{s-1}ᵀ / σ²     expectation of BPTT, less variance

as σ → 0, and likewise for W_in, b and, with the outputs' noise, W_out, c. `step` and `trace` keep nothing over
time (`trace` keeps a sum of the size of the weights for each sequence, carried from segment to segment);
`episode` keeps the noise and the activity of the segment.

The paper has `step`, multiplies by ΔL ξ/σ where the theory has ΔL ξ/σ², and averages ΔL over the batch: its
learning rate is ours divided by σ.

Source: Fiete & Seung 2006, Phys. Rev. Lett. 97:048104; Garcia Fernandez, Keemink & van Gerven 2024,
arXiv 2405.08967.
"""

from dataclasses import dataclass
from typing import Literal

from creditbench.errors import require_one_of, require_positive
from creditbench.learner import Claims, Estimate, Learner, Local, local_gradients, rows, zero_gradients


@dataclass(frozen=True, kw_only=True)
class NodePerturbation(Learner):
    id = "np"
    name = "Node perturbation"
    paper = "Fiete & Seung 2006, doi:10.1103/PhysRevLett.97.048104"
    family = "perturbation"
    claims = Claims(online=True, forward_only=True, time="O(n²)", memory="O(n B)")
    lr = 1e-3

    sigma: float = 1e-2  #: standard deviation of the noise
    credit: Literal["step", "episode", "trace"] = "step"

    def __post_init__(self):
        require_positive(self, "sigma")
        require_one_of(self, "credit", ("step", "episode", "trace"))

    def init(self, ops, cell, params, batch_size):
        state = {"clean": cell.start(ops, batch_size), "noisy": cell.start(ops, batch_size)}
        if self.credit == "trace":
            state["trace"] = {k: ops.zeros((batch_size, *shape)) for k, shape in cell.shapes().items()}
        return state

    def segment(self, ops, cell, params, state, batch, key):
        K, B = batch.weights.shape
        n, sigma = cell.hidden, self.sigma
        keys, keep = ops.split(key, K), cell.decorrelate != "none"

        def both(passes, xs):
            """One step of both passes: passes, factors (noise in units of σ), loss, ΔL_t / σ of each sequence."""
            clean, noisy = passes
            x, target, weight, key = xs
            xi = ops.normal(key, (B, n + cell.outputs))
            drive = cell.drive(ops, params, x)
            _, clean_next = cell.step(ops, params, clean, drive)
            _, noisy = cell.step(ops, params, noisy, drive + sigma * xi[:, :n])
            y = cell.readout(ops, params, clean_next.out)
            y_noisy = cell.readout(ops, params, noisy.out) + sigma * xi[:, n:]
            losses = cell.losses(ops, y, target)
            delta_loss = weight * (cell.losses(ops, y_noisy, target) - losses)
            local = Local(xi[:, :n], x, clean.out, xi[:, n:], clean_next.out)
            return (clean_next, noisy), local, weight @ losses, delta_loss / sigma

        def step_credit(passes, xs):
            passes, local, loss, delta = both(passes, xs)
            return passes, (credited(local, delta), loss)

        def episode_credit(passes, xs):
            passes, local, loss, delta = both(passes, xs)
            return passes, (local, loss, delta)

        def trace_credit(carry, xs):
            passes, trace, grads = carry
            passes, local, loss, delta = both(passes, xs)
            trace = {k: trace[k] + term for k, term in per_sequence(cell, local).items()}
            grads = {k: grads[k] + ops.xp.tensordot(delta, trace[k], axes=1) for k in grads}
            return (passes, trace, grads), (loss, local.h_hat if keep else None)

        passes = state["clean"], state["noisy"]
        if self.credit == "step":
            passes, grads, loss, hidden = local_gradients(ops, cell, step_credit, passes, batch, keys)
        elif self.credit == "episode":
            passes, (local, losses, deltas) = ops.scan(episode_credit, passes, (*batch, keys))
            grads = cell.gradient(ops, *rows(credited(local, deltas.sum(axis=0))))
            loss, hidden = losses.sum(), local.h_hat if keep else None
        else:
            carry = passes, state["trace"], zero_gradients(ops, cell)
            (passes, trace, grads), (losses, hidden) = ops.scan(trace_credit, carry, (*batch, keys))
            state, loss = state | {"trace": trace}, losses.sum()
        return Estimate(loss, grads, state | {"clean": passes[0], "noisy": passes[1]}, hidden=hidden)


def credited(local, credit):
    """The factors [..., B, ·], their noise multiplied by each sequence's credit [B]."""
    credit = credit[:, None]
    return local._replace(post=credit * local.post, post_y=credit * local.post_y)


def per_sequence(cell, local):
    """Noise ⊗ presynaptic of each sequence: [B, rows, columns] for matrices, [B, rows] for biases."""
    products = {
        "W_in": local.post[:, :, None] * local.x[:, None, :],
        "W_rec": local.post[:, :, None] * local.h_hat_before[:, None, :],
        "W_out": local.post_y[:, :, None] * local.h_hat[:, None, :],
    }
    return products | {"b": local.post, "c": local.post_y} if cell.bias else products

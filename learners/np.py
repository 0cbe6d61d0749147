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
from creditbench.learner import Claims, Estimate, Learner, Local, local_gradients, rows, twin_hidden, twin_readout, zero_gradients


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
        state = {"twin": cell.start(ops, 2 * batch_size)}
        if self.credit == "trace":
            state["trace"] = {k: ops.zeros((batch_size, *shape)) for k, shape in cell.shapes().items()}
        return state

    def segment(self, ops, cell, params, state, batch, key):
        xp, n = ops.xp, cell.hidden
        K, B = batch.weights.shape

        def noisy(before, xs):
            """One step of both passes: state, factors (noise in units of σ), losses, ΔL_t / σ, [B] each."""
            x, target, weight, key = xs
            xi = ops.normal(key, (B, n + cell.outputs))
            a, after = twin_hidden(ops, cell, params, before, x, self.sigma * xi[:, :n])
            y, losses = twin_readout(ops, cell, params, after, target, weight, self.sigma * xi[:, n:])
            local = Local(xi[:, :n], x, before.out[:B], xi[:, n:], after.out[:B])
            return after, local, losses[0], (losses[1] - losses[0]) / self.sigma

        def step_credit(before, xs):
            after, local, losses, delta = noisy(before, xs)
            return after, (credited(local, delta[:, None]), xp.sum(losses))

        def episode_credit(before, xs):
            after, local, losses, delta = noisy(before, xs)
            return after, (local, xp.sum(losses), delta)

        def trace_credit(carry, xs):
            before, trace, grads = carry
            after, local, losses, delta = noisy(before, xs)
            trace = {k: trace[k] + each for k, each in per_sequence(cell, local).items()}
            grads = {k: grads[k] + xp.tensordot(delta, trace[k], axes=1) for k in grads}
            return (after, trace, grads), (xp.sum(losses), local.h_hat if keep else None)

        keys, keep = ops.split(key, K), cell.decorrelate != "none"
        if self.credit == "step":
            twin, grads, loss, hidden = local_gradients(ops, cell, step_credit, state["twin"], batch, keys)
            return Estimate(loss, grads, {"twin": twin}, hidden=hidden)
        if self.credit == "episode":
            twin, (local, losses, deltas) = ops.scan(episode_credit, state["twin"], (*batch, keys))
            grads = cell.gradient(ops, *rows(credited(local, xp.sum(deltas, axis=0)[:, None])))
            return Estimate(xp.sum(losses), grads, {"twin": twin}, hidden=local.h_hat if keep else None)
        (twin, trace, grads), (losses, hidden) = ops.scan(
            trace_credit, (state["twin"], state["trace"], zero_gradients(ops, cell)), (*batch, keys)
        )
        return Estimate(xp.sum(losses), grads, {"twin": twin, "trace": trace}, hidden=hidden)


def credited(local, credit):
    """The factors of a step, their noise multiplied by each sequence's credit [B, 1]."""
    return local._replace(post=credit * local.post, post_y=credit * local.post_y)


def per_sequence(cell, local):
    """Noise ⊗ presynaptic of each sequence: [B, rows, columns] for matrices, [B, rows] for biases."""
    products = {
        "W_in": local.post[:, :, None] * local.x[:, None, :],
        "W_rec": local.post[:, :, None] * local.h_hat_before[:, None, :],
        "W_out": local.post_y[:, :, None] * local.h_hat[:, None, :],
    }
    return products | {"b": local.post, "c": local.post_y} if cell.bias else products

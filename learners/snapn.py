"""Sparse n-step approximation: influence is kept only on units within n steps in a sparse W_rec.

    J_t = R ⊙ (H_t J_{t-1}) + Ī_t                    J, H, Ī as in `rtrl`
    R_k,(ij) = 1 if unit k can be reached from unit i in at most n-1 connections, else 0
    ∂L/∂θ ≈ Σ_t δ_t J_t

n = 1 is `snap1`; with n-1 at least the graph's diameter the rule is RTRL. All weights of a unit share their
pattern, so J is kept as r rows of m for each unit i, where r is the most units that any unit reaches. H J is
a product over [r, r] for each unit.

The graph is a hyper-parameter, not read from the weights: each unit has inputs from a part `density` of the
units, drawn from `graph_seed`. The other weights start as zero and get no gradient. So the graph never
changes, and the shape of the pattern is known before training. With decorrelation, H has entries beyond the
graph of W_rec; the pattern stays that of the graph.

Source: Menick et al. 2021, arXiv 2006.07232.
"""

from dataclasses import dataclass

import numpy as np

from creditbench.errors import UsageError, require_positive
from creditbench.learner import Claims, Learner, online


@dataclass(frozen=True, kw_only=True)
class SnApN(Learner):
    id = "snapn"
    name = "Sparse n-step approximation of RTRL"
    paper = "Menick et al. 2021, arXiv:2006.07232"
    family = "influence"
    claims = Claims(online=True, forward_only=True, time="O(r²p)", memory="O(r p)")

    steps: int = 2  #: n
    density: float = 0.1  #: the part of the units that give input to a unit
    graph_seed: int = 0  #: draws the graph

    def __post_init__(self):
        require_positive(self, "steps", "density")
        if self.density > 1:
            raise UsageError(f"density is {self.density!r}: SnApN needs a part of the units, in (0, 1]")

    def connected(self, cell):
        """Whether unit i acts on unit k, [n(k), n(i)]. Every unit has equally many inputs."""
        n = cell.hidden
        fan_in = max(1, round(self.density * n))
        order = np.random.default_rng([self.graph_seed, n]).permuted(np.tile(np.arange(n), (n, 1)), axis=1)
        connected = np.zeros((n, n), bool)
        np.put_along_axis(connected, order[:, :fan_in], True, axis=1)
        return connected

    def pattern(self, cell):
        """The units that each unit reaches, itself first, as (units [n, r], valid [n, r])."""
        n, connected = cell.hidden, self.connected(cell)
        reached = np.eye(n, dtype=bool)
        for _ in range(min(self.steps, n) - 1):
            reached |= connected @ reached
        r = reached.sum(axis=0).max()
        units, valid = np.tile(np.arange(n)[:, None], (1, r)), np.zeros((n, r))
        for i in range(n):
            others = np.flatnonzero(reached[:, i] & (np.arange(n) != i))
            units[i, 1 : len(others) + 1] = others
            valid[i, : len(others) + 1] = 1.0
        return units, valid

    def weights(self, cell, params):
        return params | {"W_rec": params["W_rec"] * self.connected(cell)}

    def init(self, ops, cell, params, batch_size):
        n, m = cell.hidden, cell.presynaptic
        units, valid = self.pattern(cell)
        exists = np.concatenate([self.connected(cell), np.ones((n, m - n))], axis=1)
        graph = ops.from_numpy({"units": units, "valid": valid, "exists": exists})
        J = ops.zeros((batch_size, n, valid.shape[1], m))
        return {"cell": cell.start(ops, batch_size), "trace": J, "graph": graph}

    def reset(self, ops, cell, params, state, batch_size):
        return {
            "cell": cell.start(ops, batch_size),
            "trace": ops.zeros((batch_size, *state["trace"].shape[1:])),
            "graph": state["graph"],
        }

    def segment(self, ops, cell, params, state, batch, key):
        xp, alpha = ops.xp, cell.alpha
        units, valid, exists = (state["graph"][k] for k in ("units", "valid", "exists"))
        W = params["W_rec"] @ params["D"] if "D" in params else params["W_rec"]
        W = W[units[:, :, None], units[:, None, :]] * (valid[:, :, None] * valid[:, None, :])
        own = xp.zeros_like(valid[0])
        own = xp.concat((xp.ones_like(own[:1]), own[1:]))[:, None]  # a unit's own row is its first

        def advance(J, now, _):
            slope, delta = now.slope[:, units], now.delta[:, units]
            HJ = (slope[..., None] * W) @ J
            if alpha != 1.0:
                HJ = ops.accumulate(HJ, J, 1.0 - alpha)
            J = ops.accumulate(HJ, now.z[:, None, None, :] * own, now.slope[:, :, None, None])
            return J, exists * xp.sum(delta[:, :, None, :] @ J, axis=(0, 2))

        return online(ops, cell, params, state, batch, key, advance)

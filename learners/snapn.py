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
from creditbench.learner import Claims, Learner, immediate, of_layers, online


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
        for k, layer in enumerate(cell.layers):
            W = cell.of_layer(params, k)["W_rec"]
            graph = np.tile(self.connected(layer), (W.shape[0] // layer.hidden, layer.Q))
            params = params | cell.of_all({"W_rec": W * graph}, k)
        return params

    def fits(self, cell):
        return "" if cell.recurrent else "its graph is that of W_rec, and the cell has none; take snap1"

    def init(self, ops, cell, params, batch_size):
        n = cell.hidden
        units, valid = self.pattern(cell)

        def start(layer):
            return ops.zeros((batch_size, n, layer.S * valid.shape[1], layer.parameters))

        def existing(layer):
            others = np.ones((n, layer.fan_in - layer.width))
            of_gate = np.concatenate([np.tile(self.connected(layer), (1, layer.Q)), others], axis=1)
            own = np.ones((n, len(layer.phi)))
            return ops.from_numpy(np.concatenate([np.tile(of_gate, (1, layer.G)), own], axis=1))

        graph = ops.from_numpy({"units": units, "valid": valid}) | {"exists": of_layers(cell, existing)}
        return {"cell": cell.start(ops, batch_size), "trace": of_layers(cell, start), "graph": graph}

    def reset(self, ops, cell, params, state, batch_size):
        trace = of_layers(cell, lambda _, J: ops.zeros((batch_size, *J.shape[1:])), state["trace"])
        return {"cell": cell.start(ops, batch_size), "trace": trace, "graph": state["graph"]}

    def segment(self, ops, cell, params, state, batch, key):
        units, valid, exists = (state["graph"][k] for k in ("units", "valid", "exists"))
        layers = cell.layers

        def make(layer, params):
            own = exists if len(layers) == 1 else exists[layers.index(layer)]
            return follow(ops, layer, params, units, valid, own)

        return online(ops, cell, params, state, batch, key, make)


def follow(ops, cell, params, units, valid, exists):
    """The rule's step in one layer: its influence J [B, n, S r, M], and the gradient."""
    xp, n, S, r = ops.xp, cell.hidden, cell.S, valid.shape[1]
    W = cell.recurrence_matrix(ops, params)
    if cell.scalar:
        W = W[units[:, :, None], units[:, None, :]]  # [n, r, r]
    else:
        W = xp.permute_dims(W.reshape((cell.G, n, cell.Q, n)), (0, 2, 1, 3))
        W = W[:, :, units[:, :, None], units[:, None, :]]  # [G, Q, n, r, r]
    W = W * (valid[:, :, None] * valid[:, None, :])
    first = xp.zeros_like(valid[0])
    first = xp.concat((xp.ones_like(first[:1]), first[1:]))[:, None]  # a unit's own row is its first

    def transition(now):
        """H of the units that each unit reaches, without carry: [B, n, S r, S r]."""
        if cell.scalar:
            H = now.slope[:, units][..., None] * W
            return H if now.out_before is None else H * now.out_before[:, units][:, :, None]
        B = now.slope.shape[0]
        slope = now.slope.reshape((B, S, cell.G, n))[..., units]  # [B, S, G, n, r]
        if now.out_before is None:
            by_state = W[:, 0][None, :, None]  # [1, G, 1, n, r, r]
        else:
            out = now.out_before.reshape((B, 1, cell.Q, S, n))[..., units]  # [B, 1, Q, S, n, r]
            by_state = (W[None, :, :, None] * out[..., None, :]).sum(2)  # [B, G, S, n, r, r]
        H = (slope[:, :, :, None, :, :, None] * by_state[:, None]).sum(2)  # [B, S, S, n, r, r]
        return xp.permute_dims(H, (0, 3, 1, 4, 2, 5)).reshape((B, n, S * r, S * r))

    def carried(J, now):
        """carry J."""
        if now.carry is None:
            return (1.0 - cell.alpha) * J
        carry = now.carry.reshape((J.shape[0], S, S, n))[..., units]  # [B, S, S, n, r]
        carry = xp.permute_dims(carry, (0, 3, 1, 2, 4))[..., None]
        return (carry * J.reshape((J.shape[0], n, 1, S, r, -1))).sum(3).reshape(J.shape)

    def advance(J, now, _):
        B = J.shape[0]
        HJ = transition(now) @ J
        if not cell.forgets:
            HJ = HJ + carried(J, now)
        if cell.scalar and not cell.phi:
            J = ops.accumulate(HJ, now.z[:, None, None, :] * first, now.slope[:, :, None, None])
            return J, exists * xp.sum(now.delta[:, units][:, :, None, :] @ J, axis=(0, 2))
        own = xp.permute_dims(immediate(ops, now).reshape((B, S, n, 1, -1)), (0, 2, 1, 3, 4))
        J = ops.accumulate(HJ, (own * first).reshape(J.shape))
        delta = xp.permute_dims(now.delta.reshape((B, S, n))[..., units], (0, 2, 1, 3))
        return J, exists * xp.sum(delta.reshape((B, n, 1, S * r)) @ J, axis=(0, 2))

    return advance

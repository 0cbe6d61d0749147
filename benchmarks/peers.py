"""The gradients of our online rules beside those of braintrace, a JAX package with rules of the same kind.

    python -m venv peers && . peers/bin/activate
    pip install braintrace pydantic && pip install --no-deps -e .
    python benchmarks/peers.py

It needs an environment of its own: braintrace is no dependency of this project. Last run with braintrace
0.2.6, brainstate 0.5.4, jax 0.10.2 and numpy 2.4.6.

Both packages get the same network, with the same weights, in float64, on T = 8 steps with a squared error at
each. Compared are the gradients of the recurrent weights, on one sequence without a batch axis and on a batch
of three. A difference is the largest entry of |theirs - ours| over the largest of |ours|, and of the two
batches the larger one.

Three oracles stand between them, all in NumPy and from the equations of each cell: finite differences of the
loss; every rule of ours with dense matrices; and every rule of theirs as their documents define it, with the
two departures that were found written out (`twice`, `untraced`), to show that they are the whole difference.
Exit status 1 means that a difference has no such explanation, or that one of our own rules is off. It takes
some minutes.

    theirs            its trace J_t                                            the same as ours
    D_RTRL            carry J + I: recurrent weights are left out of ∂s/∂s     eprop, symmetric feedback
    EProp             the same, as long as it has no filter                    eprop, symmetric feedback
    OSTLRecurrent     own part of ∂s_t/∂s_{t-1}, J + I; so is SnAp(n=1)        snap1
    SnAp, n units     ∂s_t/∂s_{t-1} J + I                                      rtrl, bptt
    pp_prop           E_f ⊗ E_x:  E_x ← α E_x + z,  E_f ← α carry E_f + (1-α) slope; over 1 - α^t     none

Cells: `tanh`, `lstm` and `gru before` are braintrace's own. Its LSTM adds 1 to the bias of the forget gate,
so it gets ours less 1. Its GRU applies the reset gate before the recurrent product. No cell of ours can do
that, for a unit would see other units' gates in the same step: its references are those in NumPy. `gru` is
ours, built of braintrace's linear maps. `lstm apart` is braintrace's LSTM with c_t written out once more
inside h_t.
"""

import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from itertools import product
from typing import Any, NamedTuple

import brainstate
import braintrace
import jax
import jax.numpy as jnp
import numpy as np

from creditbench.cells import Cell, Tanh
from creditbench.cells.gru import GRU
from creditbench.cells.lstm import LSTM
from creditbench.learner import Batch
from creditbench.ops import make_ops
from creditbench.plugins import registry

T, I, N, O = 8, 3, 5, 2  # noqa: E741
BATCHES = (1, 3)
DECAY = 0.9  #: α of pp_prop
AGREES = 1e-10
FINITE = 1e-7  #: finite differences are no better
RULES = ("bptt", "rtrl", "snap1", "eprop")

jax.config.update("jax_platforms", "cpu")
OPS = make_ops("jax", dtype="float64")
brainstate.environ.set(precision=64)
# That SnAp keeps all units, as asked; that it does not trace the weights named at the end.
warnings.filterwarnings("ignore", module="braintrace")


# -- the oracle: every cell and rule in NumPy ------------------------------------------------------------


class Now(NamedTuple):
    """A step of one sequence. s: S n numbers, h the last n of them; R gates have recurrent weights."""

    s: np.ndarray
    carry: np.ndarray  #: ∂s_t/∂s_{t-1} at fixed pre-activations, [S n, S n]
    slope: np.ndarray  #: ∂s_t/∂a_t, [S n, R n]
    back: np.ndarray  #: ∂a_t/∂s_{t-1}, [R n, S n]
    z: np.ndarray  #: what the recurrent weights of each gate multiply, [R, n]
    same_step: np.ndarray | None = None  #: what of ∂s_t/∂s_t is not the identity: h_t by c_t, [S n, S n]


def sigmoid(a):
    return 1.0 / (1.0 + np.exp(-a))


def gates(values):
    """[G n] as G arrays [n]."""
    return values.reshape((-1, N))


def diagonals(blocks):
    """Rows of vectors [n] as a matrix of diagonal blocks."""
    return np.block([[np.diag(v) for v in row] for row in blocks])


def tanh_step(p, h, x):
    s = np.tanh(p["W_in"] @ x + p["W_rec"] @ h + p["b"])
    return Now(s, np.zeros((N, N)), np.diag(1 - s * s), p["W_rec"], h[None])


def gru_step(p, h, x):
    """Our GRU: W_in for x, r, z; W_rec for r, z, h; b for x, r, z, h."""
    (u_x, u_r, u_z), (v_r, v_z, v_h) = gates(p["W_in"] @ x), gates(p["W_rec"] @ h)
    b_x, b_r, b_z, b_h = gates(p["b"])
    r, z, a_h = sigmoid(u_r + v_r + b_r), sigmoid(u_z + v_z + b_z), v_h + b_h
    m = np.tanh(u_x + b_x + r * a_h)
    u = (1 - z) * (1 - m * m)
    slope = diagonals([[u * a_h * r * (1 - r), (h - m) * z * (1 - z), u * r]])
    return Now(z * h + (1 - z) * m, np.diag(z), slope, p["W_rec"], np.stack([h, h, h]))


def gru_before_step(p, h, x):
    """braintrace's GRU: m = tanh(a_m + W_m (r h)), h_t = (1-z) h + z m. It has the same arrays of weights."""
    (u_m, u_r, u_z), (W_r, W_z, W_m) = gates(p["W_in"] @ x), p["W_rec"].reshape((3, N, N))
    b_x, b_r, b_z, b_h = gates(p["b"])
    r, z = sigmoid(u_r + W_r @ h + b_r), sigmoid(u_z + W_z @ h + b_z)
    m = np.tanh(u_m + b_x + b_h + W_m @ (r * h))
    of_m = np.diag(z * (1 - m * m))
    of_r = of_m @ W_m @ np.diag(h * r * (1 - r))  # not diagonal: by way of other units' candidates
    slope = np.hstack([of_r, np.diag((m - h) * z * (1 - z)), of_m])
    back = np.vstack([W_r, W_z, W_m @ np.diag(r)])
    return Now((1 - z) * h + z * m, np.diag(1 - z), slope, back, np.stack([h, h, r * h]))


def lstm_step(p, s, x):
    """The state is c, h; the gates are i, f, g, o."""
    (c, h), zero = gates(s), np.zeros(N)
    a_i, a_f, a_g, a_o = gates(p["W_in"] @ x + p["W_rec"] @ h + p["b"])
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    c_t = f * c + i * g
    m = np.tanh(c_t)
    k = o * (1 - m * m)  # ∂h_t/∂c_t
    of_c = [g * i * (1 - i), c * f * (1 - f), i * (1 - g * g), zero]
    of_h = [k * v for v in of_c[:3]] + [m * o * (1 - o)]
    back = np.hstack([np.zeros((4 * N, N)), p["W_rec"]])
    carry, same_step = diagonals([[f, zero], [k * f, zero]]), diagonals([[zero, zero], [k, zero]])
    s = np.concatenate([c_t, o * m])
    return Now(s, carry, diagonals([of_c, of_h]), back, np.stack([h] * 4), same_step)


class Peer(NamedTuple):
    """A network that both sides can build."""

    step: Callable  #: in NumPy
    cell: type[Cell]  #: ours; for `gru before` it only shapes the weights
    theirs: Callable  #: braintrace's, without weights
    #: its linear maps: name, our gates of W_in, W_rec and b that go into it, and what is added to the bias
    maps: tuple[tuple[str, int | None, int | None, tuple[int, ...], float], ...]
    S: int = 1
    twice: bool = False  #: whether braintrace counts an effect within a step twice
    untraced: tuple[int, ...] = ()  #: gates whose weights braintrace does not train


def loss_by_hand(peer, p, batch):
    total = 0.0
    for b in range(batch.inputs.shape[1]):
        s = np.zeros(peer.S * N)
        for x, y, w in zip(batch.inputs[:, b], batch.targets[:, b], batch.weights[:, b], strict=True):
            s = peer.step(p, s, x).s
            total += w * np.mean((p["W_out"] @ s[-N:] + p["c"] - y) ** 2)
    return total


def finite_differences(peer, p, batch, size=1e-5):
    found = np.zeros_like(p["W_rec"])
    for place in np.ndindex(found.shape):
        ends = []
        for change in (size, -size):
            W = p["W_rec"].copy()
            W[place] += change
            ends.append(loss_by_hand(peer, p | {"W_rec": W}, batch))
        found[place] = (ends[0] - ends[1]) / (2 * size)
    return found


def by_hand(peer, p, batch, rule, twice=False, untraced=()):
    """The gradient of W_rec, [R n, n], by rtrl, snap1, eprop or pp: the trace J is [S n, R n, n].

    `twice`: the signal of a state also holds what it does by way of another state of the same step, although
    the trace of that other one holds it already. `untraced`: gates that get 0.
    """
    rows, size, total = p["W_rec"].shape[0], peer.S * N, np.zeros_like(p["W_rec"])
    own = np.tile(np.eye(N), (peer.S, rows // N))[:, :, None]  # where a weight acts on its own unit
    for b in range(batch.inputs.shape[1]):
        s, J = np.zeros(size), np.zeros((size, rows, N))
        E_x, E_f = np.zeros((rows, N)), np.zeros((size, rows))
        for t, x in enumerate(batch.inputs[:, b]):
            now = peer.step(p, s, x)
            z = np.repeat(now.z, N, axis=0)
            instant = now.slope[:, :, None] * z
            full = now.carry + now.slope @ now.back
            if rule == "rtrl":
                J = np.einsum("st,tkj->skj", full, J) + instant
            elif rule == "snap1":
                J = np.einsum("st,tkj->skj", full * np.tile(np.eye(N), (peer.S, peer.S)), J) + own * instant
            elif rule == "eprop":
                J = np.einsum("st,tkj->skj", now.carry, J) + own * instant
            else:
                E_x = DECAY * E_x + z
                E_f = DECAY * now.carry @ E_f + (1 - DECAY) * now.slope
                J = own * (E_f[:, :, None] * E_x) / (1 - DECAY ** (t + 1))
            s = now.s
            y = p["W_out"] @ s[-N:] + p["c"]
            delta = np.zeros(size)
            delta[-N:] = batch.weights[t, b] * 2 / O * (y - batch.targets[t, b]) @ p["W_out"]
            if twice and now.same_step is not None:
                delta = delta + delta @ now.same_step
            total += np.einsum("s,skj->kj", delta, J)
    for gate in untraced:
        total[gate * N : (gate + 1) * N] = 0.0
    return total


# -- ours and theirs -------------------------------------------------------------------------------------


class OurGRU(brainstate.nn.RNNCell):
    """The GRU of this project, of braintrace's linear maps."""

    def __init__(self):
        super().__init__()
        self.Wr, self.Wz = braintrace.nn.Linear(I + N, N), braintrace.nn.Linear(I + N, N)
        self.Wx, self.Wh = braintrace.nn.Linear(I, N), braintrace.nn.Linear(N, N)

    def init_state(self, batch_size=None, **_):
        self.h = brainstate.HiddenState(jnp.zeros((N,) if batch_size is None else (batch_size, N)))

    def update(self, x):
        h = self.h.value
        both = jnp.concatenate([x, h], axis=-1)
        r, z = jax.nn.sigmoid(self.Wr(both)), jax.nn.sigmoid(self.Wz(both))
        self.h.value = z * h + (1 - z) * jnp.tanh(self.Wx(x) + r * self.Wh(h))
        return self.h.value


class LSTMApart(braintrace.nn.LSTMCell):
    """braintrace's LSTM, where h_t does not come by way of the variable that is the state c_t."""

    def update(self, x):
        c, both = self.c.value, jnp.concatenate([x, self.h.value], axis=-1)
        i, f, o = (
            jax.nn.sigmoid(self.Wi(both)),
            jax.nn.sigmoid(self.Wf(both) + 1),
            jax.nn.sigmoid(self.Wo(both)),
        )
        g = jnp.tanh(self.Wg(both))
        self.c.value = f * c + i * g
        self.h.value = o * jnp.tanh(f * c + i * g)
        return self.h.value


OF_GRU = (("Wr", 1, 0, (1,), 0.0), ("Wz", 2, 1, (2,), 0.0))
OF_LSTM = tuple((f"W{gate}", k, k, (k,), -1.0 if gate == "f" else 0.0) for k, gate in enumerate("ifgo"))
PEERS = {
    "tanh": Peer(
        tanh_step,
        Tanh,
        lambda: braintrace.nn.ValinaRNNCell(I, N, activation="tanh"),
        (("W", 0, 0, (0,), 0.0),),
    ),
    "gru": Peer(gru_step, GRU, OurGRU, (*OF_GRU, ("Wx", 0, None, (0,), 0.0), ("Wh", None, 2, (3,), 0.0))),
    "gru before": Peer(
        gru_before_step,
        GRU,
        lambda: braintrace.nn.GRUCell(I, N),
        (*OF_GRU, ("Wh", 0, 2, (0, 3), 0.0)),
        untraced=(0,),
    ),
    "lstm": Peer(lstm_step, LSTM, lambda: braintrace.nn.LSTMCell(I, N), OF_LSTM, S=2, twice=True),
    "lstm apart": Peer(lstm_step, LSTM, lambda: LSTMApart(I, N), OF_LSTM, S=2),
}

#: Their algorithm, its options, the rule in NumPy, and the rules of ours that it should equal.
ALGORITHMS: dict[str, tuple[Any, dict[str, Any], str, tuple[str, ...]]] = {
    "D_RTRL": (braintrace.D_RTRL, {}, "eprop", ("eprop",)),
    "EProp": (braintrace.EProp, {}, "eprop", ("eprop",)),
    "OSTLRecurrent": (braintrace.OSTLRecurrent, {}, "snap1", ("snap1",)),
    f"SnAp n={N}": (braintrace.SnAp, {"n": N}, "rtrl", ("bptt", "rtrl")),
    f"pp_prop {DECAY}": (braintrace.pp_prop, {"decay_or_rank": DECAY}, "pp", ()),
}


def make_params(peer, seed):
    """Weights large enough that the rules differ, as NumPy arrays."""
    rng = np.random.default_rng([seed, 0x9EE5])
    start = peer.cell(I, N, O, bias=True).init(0)
    return {name: 0.5 * rng.standard_normal(value.shape) for name, value in start.items()}


def make_batch(B, steps=T):
    rng = np.random.default_rng([B, 0xBA7C])
    x, y = rng.standard_normal((steps, B, I)), rng.standard_normal((steps, B, O))
    return Batch(x, y, np.full((steps, B), 1 / (steps * B)))


def ours(peer, p, batch, rule):
    """All gradients of a rule of creditbench."""
    cell, B = peer.cell(I, N, O, bias=True), batch.inputs.shape[1]
    learner, arrays = registry.find("learners", rule).cls(), OPS.from_numpy(p)
    state = learner.init(OPS, cell, arrays, B)
    given = Batch(*OPS.from_numpy(tuple(batch)))
    grads = learner.segment(OPS, cell, arrays, state, given, jax.random.key(0)).grads
    return {name: np.asarray(OPS.dense(g)) for name, g in grads.items()}


def theirs(peer, p, batch, algorithm, options):
    """The gradients of braintrace: name of a linear map -> weight [inputs, n], bias [n]."""
    model, B = peer.theirs(), batch.inputs.shape[1]
    for name, of_input, of_recurrence, of_bias, shift in peer.maps:
        parts = [] if of_input is None else [p["W_in"].reshape((-1, N, I))[of_input]]
        parts += [] if of_recurrence is None else [p["W_rec"].reshape((-1, N, N))[of_recurrence]]
        bias = sum(gates(p["b"])[k] for k in of_bias) + shift
        getattr(model, name).weight.value = {
            "weight": jnp.asarray(np.hstack(parts).T),
            "bias": jnp.asarray(bias),
        }
    x, y, w = (jnp.asarray(v[:, 0] if B == 1 else v) for v in batch)
    learner = braintrace.compile(model, algorithm, x[0], batch_size=None if B == 1 else B, **options)

    def loss(x, y, w):
        error = learner(x) @ jnp.asarray(p["W_out"].T) + jnp.asarray(p["c"]) - y
        return jnp.sum(w * jnp.mean(error**2, axis=-1))

    grads = learner.etrace_grad(x, y, w, step_fn=loss, reduction="sum")
    found = {path[0]: value for path, value in grads.items()}
    assert all(v.dtype == jnp.float64 for g in found.values() for v in g.values())
    return found


def of_recurrence(peer, grads):
    """The gradient of W_rec, [R n, n], from braintrace's."""
    by_gate = {
        gate: np.asarray(grads[name]["weight"]).T[:, -N:]
        for name, _, gate, _, _ in peer.maps
        if gate is not None
    }
    return np.concatenate([by_gate[gate] for gate in sorted(by_gate)])


def difference(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# -- the comparison ----------------------------------------------------------------------------------------


def references(peer, p, batch):
    """Our rules by name, or NumPy's of a cell that we lack; and how far ours are from NumPy's."""
    hand = {"bptt": finite_differences(peer, p, batch)}
    hand |= {rule: by_hand(peer, p, batch, rule) for rule in RULES[1:]}
    if peer.step is gru_before_step:
        return hand, {"rtrl": difference(hand["rtrl"], hand["bptt"])}
    rules = {rule: ours(peer, p, batch, rule)["W_rec"] for rule in RULES}
    return rules, {rule: difference(rules[rule], hand[rule]) for rule in RULES}


def verdict(peer, same, found):
    """In words, and whether a difference is explained."""
    if found["theirs"] >= AGREES:
        return "NOT EXPLAINED", False
    if same and all(found[rule] < AGREES for rule in same):
        return f"agrees: {', '.join(same)}", True
    words = same[-1] if same else "no rule of ours"
    if peer.twice:
        words += ", but c counts twice"
    if peer.untraced:
        words += ", but 0 for the reset gate"
    return words, bool(peer.twice or peer.untraced or not same)


def main() -> int:
    print(", ".join(f"{name} {version(name)}" for name in ("braintrace", "brainstate", "jax", "numpy")))
    print(f"T = {T}, n = {N}, batches of {' and '.join(map(str, BATCHES))}, float64\n")
    checks, table, good = [], [], True
    for cell, peer in PEERS.items():
        cases = []
        for B in BATCHES:
            p, batch = make_params(peer, B), make_batch(B)
            rules, check = references(peer, p, batch)
            cases.append((p, batch, rules))
            checks += [(cell, rule, value) for rule, value in check.items()]
        for name, (algorithm, options, rule, same) in ALGORITHMS.items():
            found = dict.fromkeys((*RULES, "theirs"), 0.0)
            for p, batch, rules in cases:
                grads = of_recurrence(peer, theirs(peer, p, batch, algorithm, options))
                hand = by_hand(peer, p, batch, rule, peer.twice, peer.untraced)
                for key, expected in (rules | {"theirs": hand}).items():
                    found[key] = max(found[key], difference(grads, expected))
            words, fine = verdict(peer, same, found)
            good &= fine
            table.append((cell, name, *(f"{found[key]:.0e}" for key in (*RULES, "theirs")), words))

    print("Our rules beside NumPy (bptt: beside finite differences; `gru before`: NumPy's rtrl beside them)")
    for cell, rule in dict.fromkeys((cell, rule) for cell, rule, _ in checks):
        value = max(v for c, r, v in checks if (c, r) == (cell, rule))
        most = FINITE if rule == "bptt" or cell == "gru before" else AGREES
        good &= value < most
        print(f"  {cell:11} {rule:6} {value:.0e}  {'agrees' if value < most else 'NOT THE SAME'}")

    print("\nbraintrace beside ours; `by hand`: beside NumPy's of what braintrace computes")
    head = ("cell", "algorithm", *RULES, "by hand", "verdict")
    widths = (11, 14, *[6] * len(RULES), 8, 0)
    for row in (head, *table):
        print("  " + " ".join(f"{word:{width}}" for word, width in zip(row, widths, strict=True)).rstrip())

    first = first_step()
    good &= all(abs(ratio - expected) < AGREES for _, ratio, expected in first)
    print("\nAfter one step from rest all rules are exact. The bias of a gate, by D_RTRL, over ours:")
    print("  " + ", ".join(f"{what} {ratio:.3f}" for what, ratio, _ in first))
    print(
        f"A readout inside the model: the largest entry of its gradient by D_RTRL is {readout_inside():.0e}"
    )
    print(f"\n{NOTES}")
    return 0 if good else 1


def first_step():
    """Their gradient of a bias of the LSTM over ours, with no past: (cell and gate, ratio, as explained)."""
    found = []
    for cell, (gate, k) in product(("lstm", "lstm apart"), (("i", 0), ("g", 2), ("o", 3))):
        peer, batch = PEERS[cell], make_batch(1, steps=1)
        p = make_params(peer, 1)
        of_bias = np.asarray(theirs(peer, p, batch, braintrace.D_RTRL, {})[f"W{gate}"]["bias"])
        ratio = of_bias / gates(ours(peer, p, batch, "bptt")["b"])[k]
        assert np.ptp(ratio) < AGREES
        found.append((f"{cell} {gate}", float(ratio[0]), 2.0 if peer.twice and gate != "o" else 1.0))
    return found


class WithReadout(brainstate.nn.Module):
    """braintrace's vanilla RNN with a readout inside the model."""

    def __init__(self):
        super().__init__()
        self.cell = braintrace.nn.ValinaRNNCell(I, N, activation="tanh")
        self.out = braintrace.nn.Linear(N, O)

    def update(self, x):
        return self.out(self.cell(x))


def readout_inside():
    """The largest entry of D_RTRL's gradient of the readout, where it is a part of the model."""
    x, y, _ = (jnp.asarray(v[:, 0]) for v in make_batch(1))
    learner = braintrace.compile(WithReadout(), braintrace.D_RTRL, x[0])
    grads = learner.etrace_grad(x, y, step_fn=lambda x, y: jnp.sum((learner(x) - y) ** 2))
    return max(float(jnp.abs(v["weight"]).max()) for path, v in grads.items() if path[0] == "out")


NOTES = """\
Which is right
  D_RTRL, EProp: by definition eprop with symmetric feedback. Both packages have it right on tanh and gru.
  OSTLRecurrent: by its numbers snap1. Its document says that it equals BPTT where units meet by a traced
    weight alone, as they do here: they differ, and finite differences are with BPTT.
  SnAp, n = units: by definition RTRL, and exact on tanh, gru and lstm apart.
  pp_prop: as its document has it, with the start of its average corrected. No rule of ours is defined so.
  lstm: braintrace is wrong, and ours is right. Its signal for c_t is the loss's answer to a change of c_t,
    which goes by way of h_t of the same step; its trace of h_t holds that effect too. Even after one step,
    where all rules are exact, it is twice the derivative in i and g. With c_t apart all of it agrees.
  gru before: braintrace traces no weight that reaches the state by way of other weights alone, or not at all,
    and warns of it. At its default, a signal of one step, such weights get 0: the reset gate, so that SnAp is
    not exact here, and a readout inside the model, which is why it is outside above. The other gates are as
    defined."""


if __name__ == "__main__":
    sys.exit(main())

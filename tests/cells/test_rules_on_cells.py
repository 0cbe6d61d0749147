"""Every rule on every cell: held to reverse mode where it is exact or unbiased, and to the other backend."""

import itertools
from importlib.resources import files

import numpy as np
import pytest
import torch

from creditbench.cells import CELLS, Stack, cell_class
from creditbench.learner import Batch
from creditbench.ops.torch import TorchOps
from creditbench.plugins import registry
from tests.cells.test_cells import KINDS, LEAKY, params_of, small
from tests.conftest import INPUTS, OUTPUTS, T, estimate, learner, make_batch, relative_error, thorough

SMOOTH = [id for id in CELLS if not KINDS[id].spikes]
RECURRENT = [id for id in CELLS if KINDS[id].sees_recurrence != (0, 0)]
#: Options under which a rule's estimate can be compared or is not trivially small.
OPTIONS = {
    "eprop": {"feedback": "adaptive", "feedback_rate": 0.3},
    "snapn": {"density": 0.5},
    "kernl": {"beta_rate": 0.3, "gamma_rate": 0.3},
    "dni": {"rate": 0.3},
    "es": {"population": 2},
    "es_lowrank": {"population": 2, "rank": 2},
    "pes": {"population": 2, "horizon": 3},
    "np": {"credit": "trace"},
    "wp": {"resample": "step", "credit": "trace"},
}
RULES = sorted(registry.load("learners"))
GRADIENT_OF_OWN_IS_ZERO = {"np", "anp", "reward_hebbian", "dni"}


#: Each cell alone, and two of them in two layers: one with a recurrence, one whose readout sees the input.
NETWORKS = [*((id, 1) for id in CELLS), ("tanh", 2), ("lru", 2)]


def tiny(id, layers=1):
    """A cell of two units, with a leak if it can have one, or a stack of them."""
    cell = cell_class(id)(INPUTS, 2, OUTPUTS, alpha=0.4 if id in LEAKY else 1.0, bias=True)
    return cell if layers == 1 else Stack(cell, layers)


# -- exact rules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("id", "layers"), NETWORKS)
@pytest.mark.parametrize("rule", ["bptt_checkpointed", "tbptt", "feedback_alignment"])
def test_rules_of_reverse_mode_equal_bptt(exact, id, layers, rule):
    """Feedback alignment with the forward weights in place of its random ones, where there is one layer."""
    if rule == "feedback_alignment" and layers > 1:
        pytest.skip("every layer has its own feedback from the error")
    cell = small(id, layers, decorrelate="hidden", loss="cross_entropy")
    params, batch = params_of(cell), make_batch(loss="cross_entropy")
    expected = estimate(exact, learner("bptt"), cell, params, batch)[1]
    state, subject = None, learner(rule, **{"K": T} if rule == "tbptt" else {})
    if rule == "feedback_alignment":
        arrays = exact.from_numpy(params)
        state = exact.to_numpy(subject.init(exact, cell, arrays, batch.weights.shape[1]))
        state["B_out"] = (params["W_out"][:, : cell.width] @ params["D"]).T
        if cell.recurrent:
            state["B_rec"] = exact.to_numpy(cell.recurrence_matrix(exact, arrays)).T.copy()
    found = estimate(exact, subject, cell, params, batch, state=state)[1]
    assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("id", CELLS)
@pytest.mark.parametrize("rule", ["snap1", "eprop", "snapn"])
def test_without_recurrent_weights_local_rules_are_rtrl(exact, id, rule):
    cell = small(id)
    params, batch = params_of(cell), make_batch()
    if cell.recurrent:
        params["W_rec"] = 0.0 * params["W_rec"]
    subject = learner(rule, **{"density": 1.0} if rule == "snapn" else {})
    if subject.fits(cell):
        pytest.skip(subject.fits(cell))
    expected = estimate(exact, learner("rtrl"), cell, params, batch)[1]
    found = estimate(exact, subject, cell, params, batch)[1]
    assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("rule", ["rtrl", "snap1", "snapn", "eprop", "rflo", "kernl", "uoro", "dni"])
def test_a_unit_of_one_number_may_have_one_parameter_of_its_own(exact, rule):
    """The template's unit. Without recurrent weights an exact trace is BPTT's gradient."""
    template = files("creditbench") / "plugins" / "templates" / "cell.py"
    cell = registry.load("cells", [str(template)])["my_cell"].cls(INPUTS, 4, OUTPUTS, bias=True)
    params, batch = params_of(cell), make_batch()
    params["W_rec"] = 0.0 * params["W_rec"]
    found = estimate(exact, learner(rule), cell, params, batch)[1]
    assert {name: np.shape(x) for name, x in found.items()} == cell.shapes()
    if rule in ("rtrl", "snap1", "eprop"):
        expected = estimate(exact, learner("bptt"), cell, params, batch)[1]
        assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("id", RECURRENT)
def test_snap1_is_rtrl_where_units_act_on_themselves_alone(exact, id):
    cell = small(id)
    params, batch = params_of(cell), make_batch()
    gates = params["W_rec"].shape[0] // cell.hidden
    params["W_rec"] = params["W_rec"] * np.tile(np.eye(cell.hidden), (gates, cell.Q))
    expected = estimate(exact, learner("rtrl"), cell, params, batch)[1]
    found = estimate(exact, learner("snap1"), cell, params, batch)[1]
    # Only RTRL has the gradient of the weights that are 0.
    own = np.tile(np.eye(cell.hidden), (gates, cell.Q))
    expected["W_rec"], found["W_rec"] = own * expected["W_rec"], own * found["W_rec"]
    assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("id", RECURRENT)
def test_snapn_is_rtrl_where_every_unit_is_reached(exact, id):
    cell = small(id)
    params, batch = params_of(cell), make_batch()
    expected = estimate(exact, learner("rtrl"), cell, params, batch)[1]
    found = estimate(exact, learner("snapn", density=1.0, steps=3), cell, params, batch)[1]
    assert relative_error(found, expected) < 1e-12


def test_eprop_on_alif_is_the_eligibility_trace_of_bellec(exact):
    """Voltage and adaptation traces of each synapse, written out as in the paper's equations 22 to 25."""
    cell = small("alif")
    params, batch = params_of(cell), make_batch()
    found = estimate(exact, learner("eprop"), cell, params, batch)[1]
    n, theta, beta = cell.hidden, cell.threshold, cell.adaptation
    expected = {name: np.zeros_like(params[name]) for name in ("W_in", "W_rec", "b")}
    for row in range(batch.weights.shape[1]):
        v, b, z = (np.zeros(n) for _ in range(3))
        psi = 0.3 / theta * np.maximum(0, 1 - np.abs((v - beta * b) / theta - 1))
        seen = {"W_in": np.zeros((n, INPUTS)), "W_rec": np.zeros((n, n)), "b": np.zeros((n, 1))}
        adapted = {name: np.zeros_like(value) for name, value in seen.items()}
        for t in range(T):
            x = batch.inputs[t, row]
            b_next = cell.adaptation_decay * b + z
            v = cell.decay * v + params["W_in"] @ x + params["W_rec"] @ z + params["b"] - theta * z
            before = {"W_in": x, "W_rec": z, "b": np.ones(1)}
            for name in seen:
                # ε_a ← ψ ε_v + (ρ - ψ β) ε_a, with ψ, ε_v and ε_a of the step before
                adapted[name] = (
                    psi[:, None] * seen[name] + (cell.adaptation_decay - psi[:, None] * beta) * adapted[name]
                )
                seen[name] = cell.decay * seen[name] + before[name]
            b = b_next
            over = (v - beta * b) / theta - 1
            z = (over > 0).astype(float)
            psi = 0.3 / theta * np.maximum(0, 1 - np.abs(over))
            y = params["W_out"] @ z + params["c"]
            signal = params["W_out"].T @ (batch.weights[t, row] * (y - batch.targets[t, row]))
            for name in seen:
                trace = (signal * psi)[:, None] * (seen[name] - beta * adapted[name])
                expected[name] += trace.reshape(expected[name].shape)
    assert relative_error({k: found[k] for k in expected}, expected) < 1e-12


def test_feedback_through_time_is_kept_only_where_there_is_some(exact):
    for id in CELLS:
        cell = small(id)
        state = learner("feedback_alignment").init(exact, cell, exact.from_numpy(params_of(cell)), 2)
        assert tuple(state["B_rec"].shape) == ((cell.width, cell.units) if cell.recurrent else (0, 0))


# -- unbiased rules ----------------------------------------------------------------------------------------


class Prescribed(TorchOps):
    """PyTorch whose noise is prescribed: each draw takes the next numbers of `noise`."""

    def __init__(self):
        super().__init__(dtype="float64")
        self.noise = np.zeros(0)

    def _draw(self, fill, key, shape):
        shape = (len(key), *shape) if isinstance(key, list) else shape
        size = int(np.prod(shape))
        taken, self.noise = self.noise[:size], self.noise[size:]
        assert taken.size == size, "more noise was drawn than was prescribed"
        return torch.from_numpy(taken.reshape(shape).copy())

    def normal(self, key, shape, scale=1.0):
        return scale * self._draw(None, key, shape)


def mean_over(rule, cell, params, batch, noises):
    """The mean gradient over prescribed noises."""
    ops, total = Prescribed(), 0.0
    params, batch = ops.from_numpy(params), Batch(*ops.from_numpy(tuple(batch)))
    for noise in noises:
        ops.noise = noise
        with torch.no_grad():
            state = rule.init(ops, cell, params, batch.weights.shape[1])
            grads = rule.segment(ops, cell, params, state, batch, ops.key(0)).grads
        assert ops.noise.size == 0
        total = total + np.concatenate([ops.dense(grads[k]).reshape(-1).numpy() for k in cell.shapes()])
    return total / len(noises)


def late(steps):
    """The last step alone is scored, so that all credit has to travel through time."""
    batch = make_batch(steps, rows=1, seed=3)
    weights = np.zeros_like(batch.weights)
    weights[-1] = 1.0
    return batch._replace(weights=weights)


def gradient(cell, params, batch):
    found = estimate(TorchOps(dtype="float64"), learner("bptt"), cell, params, batch)[1]
    return np.concatenate([found[k].ravel() for k in cell.shapes()])


@pytest.mark.parametrize("id", CELLS)
@pytest.mark.parametrize("rule", ["uoro", "kf_rtrl"])
def test_the_mean_over_all_signs_is_the_gradient(id, rule):
    """Exactly: the estimate is averaged over every pattern of signs."""
    cell, subject = tiny(id), learner(rule)
    if subject.fits(cell):
        pytest.skip(subject.fits(cell))
    params = params_of(cell)
    if cell.spikes:  # voltages about the threshold, where the surrogate is not 0
        params["W_in"], params["b"] = 0.5 * params["W_in"], params["b"] + 0.6
    steps = 3 if cell.S == 1 or rule == "kf_rtrl" else 2
    signs = 2 if rule == "kf_rtrl" else cell.state_size
    batch = late(steps)
    patterns = np.array(list(itertools.product((-1.0, 1.0), repeat=steps * signs)))
    found, expected = mean_over(subject, cell, params, batch, patterns), gradient(cell, params, batch)
    assert np.abs(found - expected).max() < 1e-10 * np.abs(expected).max()
    assert np.abs(mean_over(subject, cell, params, batch, patterns[:-1]) - expected).max() > 1e-6


#: Rule -> its options, and the length of its noise in a segment of K steps of one row, given cell and p.
LINEAR = {
    "np episode": ({"credit": "episode"}, lambda cell, K, p: K * (cell.units + OUTPUTS)),
    "np trace": ({"credit": "trace"}, lambda cell, K, p: K * (cell.units + OUTPUTS)),
    "wp episode": ({}, lambda cell, K, p: p),
    "wp trace": ({"resample": "step", "credit": "trace"}, lambda cell, K, p: K * p),
    "forward_gradient": ({}, lambda cell, K, p: p),
    "spsa": ({}, lambda cell, K, p: 3 * p),
    "es": ({"population": 1}, lambda cell, K, p: p),
    "pes": ({"population": 1}, lambda cell, K, p: p),
}


SMOOTH_NETWORKS = [(id, k) for id, k in NETWORKS if id in SMOOTH]


@pytest.mark.parametrize(
    ("name", "id", "layers"),
    thorough(
        [(name, *network) for name in LINEAR for network in SMOOTH_NETWORKS],
        but=[
            (name, *network)
            for i, name in enumerate(LINEAR)
            for j, network in enumerate(SMOOTH_NETWORKS)
            if (i + j) % 2 == 0
        ],
    ),
)
def test_the_mean_over_white_noise_is_the_gradient(name, id, layers):
    """As σ → 0 an estimate is quadratic in the noise ξ: E over ξ = ±√N e_k, k = 1…N, for which E ξξᵀ = I."""
    cell, batch = tiny(id, layers), late(3)
    rule, (options, length) = name.split()[0], LINEAR[name]
    subject = learner(rule, **options, **{} if rule == "forward_gradient" else {"sigma": 1e-6})
    params, p = params_of(cell), sum(int(np.prod(s)) for s in cell.shapes().values())
    N = length(cell, 3, p)
    if rule == "spsa":  # it draws the same numbers three times, from one key
        noises = [np.tile(s * np.sqrt(p) * np.eye(p)[k], 3) for k in range(p) for s in (1, -1)]
    else:
        noises = [s * np.sqrt(N) * np.eye(N)[k] for k in range(N) for s in (1, -1)]
    found, expected = mean_over(subject, cell, params, batch, noises), gradient(cell, params, batch)
    if rule in GRADIENT_OF_OWN_IS_ZERO:
        names = np.concatenate([np.full(np.prod(s), name) for name, s in cell.shapes().items()])
        found, expected = (x[~np.isin(names, cell.phi)] for x in (found, expected))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


#: Rule -> whether it sees what an earlier segment did to a later one.
OVER_SEGMENTS = {"pes": True, "es": False, "spsa": False, "forward_gradient": False}


@pytest.mark.parametrize("K", [1, 2])
@pytest.mark.parametrize("name", OVER_SEGMENTS)
def test_on_a_stream_pes_alone_has_the_mean_of_the_gradient(name, K):
    """The segments of a sequence, at fixed weights, added up; ξ of all segments is white as above."""
    cell, batch = tiny("tanh"), late(4)
    options = {} if name == "forward_gradient" else {"sigma": 1e-6}
    subject = learner(name, **options, **{"population": 1} if "es" in name else {})
    params, p = params_of(cell), sum(int(np.prod(s)) for s in cell.shapes().values())
    segments = 4 // K
    N, times = segments * p, 3 if name == "spsa" else 1  # spsa draws the same numbers three times
    noises = [
        np.repeat((s * np.sqrt(N) * np.eye(N)[k]).reshape(segments, 1, p), times, axis=1).ravel()
        for k in range(N)
        for s in (1, -1)
    ]
    found = mean_over(Segmented(subject, K), cell, params, batch, noises)
    expected = gradient(cell, params, batch)
    exact = np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert exact == OVER_SEGMENTS[name]


class Segmented:
    """A rule on segments of K steps of a sequence: the sum of their estimates."""

    def __init__(self, rule, K):
        self.rule, self.K, self.init = rule, K, rule.init

    def segment(self, ops, cell, params, state, batch, key):
        total = {}
        for start in range(0, len(batch.weights), self.K):
            part = Batch(*(x[start : start + self.K] for x in batch))
            found = self.rule.segment(ops, cell, params, state, part, key)
            state = found.state
            total = {k: ops.dense(g) + total.get(k, 0.0) for k, g in found.grads.items()}
        return found._replace(grads=total)


# -- every rule ----------------------------------------------------------------------------------------------


def agree(one, other):
    """Whether two trees of one shape differ by rounding alone; `oua` begins with a gradient of 0."""
    zero = all(np.abs(x).max() == 0 for tree in (one, other) for x in tree.values())
    return set(one) == set(other) and (zero or relative_error(one, other) < 1e-9)


#: On one layer of tanh, tests/learners does.
PAIRS = [(rule, *network) for rule in RULES for network in NETWORKS[1:-1]]
#: A third of them, in which every rule and every network is: a rule knows no cell by name.
DIAGONALS = [
    (rule, *network)
    for i, rule in enumerate(RULES)
    for j, network in enumerate(NETWORKS[1:-1])
    if (i + j) % 3 == 0
]


@pytest.mark.parametrize(("rule", "id", "layers"), thorough(PAIRS, but=DIAGONALS))
def test_backends_agree_with_the_same_noise(both, rule, id, layers):
    """Two segments, so that the carried state is compared by what it does."""
    cell = small(id, layers, decorrelate="hidden", hidden=3)
    subject = learner(rule, **OPTIONS.get(rule, {}))
    if subject.fits(cell):
        pytest.skip(subject.fits(cell))
    params, results = params_of(cell), []
    for ops in both:
        state, outcomes = None, []
        for number in range(2):
            batch = make_batch(2, rows=2, seed=number)
            loss, grads, state, assigned = estimate(ops, subject, cell, params, batch, number, state)
            outcomes.append((loss, grads, assigned))
        results.append(outcomes)
    for (loss, grads, assigned), (loss2, grads2, assigned2) in zip(*results, strict=True):
        assert loss == pytest.approx(loss2, rel=1e-10)
        assert set(grads) in (set(), set(cell.shapes()))
        assert agree(grads, grads2) and agree(assigned, assigned2)
    for name in cell.phi if grads else ():  # in the last segment
        assert (np.abs(grads[name]).max() == 0) == (rule in GRADIENT_OF_OWN_IS_ZERO), name

"""The checks of a cell, and of a rule with another cell than the usual one."""

from __future__ import annotations

import dataclasses
import json
import re
from importlib.resources import files

import numpy as np
import pytest

from creditbench.cells import Cell, cell_class
from creditbench.check import cell, claims, learning, lists, pairs
from creditbench.check.base import Broken, NotApplicable, outcomes
from creditbench.check.cell import CellSubject
from creditbench.check.subject import Subject
from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.learner import Claims, Learner
from creditbench.plugins import registry
from creditbench.plugins.importing import Plugin
from creditbench.results.measured import read_checks

TEMPLATE = files("creditbench") / "plugins" / "templates" / "cell.py"


def looked(kind: type[Cell], name: str, backend: str = "torch"):
    """The result of one check of a cell, in this process."""
    plugin = dataclasses.replace(registry.find("cells", "gru"), cls=kind)
    (found,) = outcomes([c for c in lists.CELL if c.name == name], CellSubject(plugin, backend), plugin.path)
    return found


@pytest.mark.needs("jax", "torch")
def test_a_sound_cell_passes_all_checks():
    """A diagonal, complex one with parameters of its own; the other cells have tests of their own."""
    plugin = registry.find("cells", "lru")
    for backend in ("torch", "jax"):
        found = list(outcomes(lists.CELL, CellSubject(plugin, backend), plugin.path))
        left = [result.name for result in found if not result.held]
        assert left == ([] if backend == "torch" else ["rules"]), found


GRU, LRU, LIF = map(cell_class, ("gru", "lru", "lif"))


def mutant(base: type[Cell], **changes) -> type[Cell]:
    return dataclasses.dataclass(frozen=True)(type("Mutant", (base,), changes))


def short(self, ops, s, a, phi):
    return GRU.f(self, ops, s, a, phi)[0]


def grows(self, ops, s, a, phi):
    return (1e10 * s[0] + a[0],)


def wrong_carry(self, ops, s, a, phi, after):
    carry, slope, own = GRU.slopes(self, ops, s, a, phi, after)
    return tuple(tuple(1.001 * x for x in row) for row in carry), slope, own


def wrong_slope(self, ops, s, a, phi, after):
    carry, ((x, r, z, h),), own = GRU.slopes(self, ops, s, a, phi, after)
    return carry, ((x, r, z + 1.0, h),), own


def two(self, ops, s, a, phi, after):
    return GRU.slopes(self, ops, s, a, phi, after)[:2]


def flat(self, ops, s, a, phi, after):
    carry, slope, own = GRU.slopes(self, ops, s, a, phi, after)
    return carry[0][0], slope, own


def by_numpy(self, ops, s, a, phi):
    return (0.5 * s[0] + ops.from_numpy(np.tanh(np.asarray(a[0]))),)


def mixes(self, ops, s, a, phi):
    return (0.5 * s[0] + a[0] - a[0].mean(-1, keepdims=True),)


def tau(self, rng):
    return {"tau": np.zeros(self.hidden)}


def wrong_shapes(self):
    return {name: shape for name, shape in Cell.shapes(self).items() if name != "tau"}


def wrong_push(self, ops, params, now, v):
    return 1.001 * Cell.push(self, ops, params, now, v)


def hides_layers() -> type[Cell]:
    return dataclasses.make_dataclass("Hides", [("layers", int, 2)], bases=(GRU,), frozen=True)


def no_dataclass() -> type[Cell]:
    return type("Plain", (GRU,), {"__annotations__": {"pace": float}, "pace": 1.0})


def wrong_own(self, ops, s, a, phi, after):
    carry, slope, own = LRU.slopes(self, ops, s, a, phi, after)
    return carry, slope, tuple(tuple(-x for x in row) for row in own)


def wrong_spike(self, ops, s):
    return ((LIF.out_slopes(self, ops, s)[0][0] * 2.0,),)


def wrong_run(self, ops, params, inputs):
    return 1.001 * Cell.run(self, ops, params, inputs)


def draws(self, seed):
    return Cell.init(self, seed) | {"W_in": 0.0}


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (mutant(GRU, S=0), "metadata", "S is 0"),
        (mutant(GRU, sees_input=(0, 5)), "metadata", "sees_input is (0, 5)"),
        (mutant(GRU, phi=("W_in",)), "metadata", "phi has 'W_in'"),
        (mutant(GRU, name=" "), "metadata", "name is ' '"),
        (mutant(GRU, sees_reccurence=(0, 0)), "metadata", "did you mean 'sees_recurrence'"),
        (hides_layers(), "metadata", "the field layers hides what every cell has"),
        (no_dataclass(), "metadata", "pace is annotated and is no field"),
        (mutant(GRU, phi=("tau",)), "parameters", "phi names tau, and own_parameters gives none"),
        (mutant(GRU, own_parameters=tau), "parameters", "phi names none, and own_parameters gives tau"),
        (mutant(GRU, phi=("tau",), shapes=wrong_shapes, own_parameters=tau), "parameters", "differ in tau"),
        (mutant(GRU, init=draws), "parameters", "init draws W_in of shape ()"),
        (mutant(GRU, f=short), "unit", "f returned a Tensor, and must return a tuple of 1 arrays"),
        (mutant(GRU, f=by_numpy, slopes=Cell.slopes), "unit", "Cannot access data pointer"),
        (mutant(GRU, f=mixes, slopes=Cell.slopes), "unit", "f mixes units: where one unit's values change"),
        (mutant(GRU, o=lambda self, ops, s: (s[0] + 1.0,)), "rest", "o(0) is 1"),
        (mutant(GRU, f=grows, slopes=Cell.slopes), "finite", "is not finite within 100 steps"),
        (mutant(GRU, slopes=wrong_carry), "derivatives", "most in ∂s[0]/∂s[0]"),
        (
            mutant(GRU, slopes=wrong_slope),
            "derivatives",
            "slope is 1 from the forward mode of f, most in ∂s[0]/∂a[2]",
        ),
        (mutant(GRU, slopes=two), "derivatives", "must return the tuple (∂s/∂s, ∂s/∂a, ∂s/∂φ)"),
        (
            mutant(GRU, slopes=flat),
            "derivatives",
            "slopes gives ∂s/∂s as a Tensor: it is a tuple of rows, 1,",
        ),
        (mutant(LRU, slopes=wrong_own), "derivatives", "∂s/∂φ is"),
        (mutant(LIF, out_slopes=wrong_spike), "derivatives", "∂h/∂s is"),
        (mutant(GRU, run=wrong_run), "unrolled", "from those of `run`"),
        (mutant(GRU, slopes=wrong_carry), "reverse mode", "the largest difference is"),
        (mutant(LRU, slopes=wrong_own), "reverse mode", "the largest difference is"),
        (mutant(GRU, push=wrong_push), "influence", "the largest difference from reverse mode is"),
        (mutant(LRU, slopes=wrong_own), "influence", "the largest difference from reverse mode is"),
        (mutant(GRU, own_transition=None), "rules", "snap1 fails with it: TypeError"),
    ],
)
def test_each_check_catches_its_own_fault(kind, name, said):
    found = looked(kind, name)
    assert found.held is False and said in found.detail, found
    assert lists.advice("cells", name)


def test_what_a_cell_writes_by_hand_may_be_left_out():
    """Then the framework's forward mode gives it."""
    kind = mutant(LIF, slopes=Cell.slopes, out_slopes=Cell.out_slopes)
    for name in ("derivatives", "reverse mode"):
        assert looked(kind, name).held is True


def test_backends_that_differ_are_told_apart():
    numbers = {b: cell.numbers(CellSubject(registry.find("cells", "linear"), b)) for b in ("jax", "torch")}
    assert cell.compare(numbers).startswith("to ")
    with pytest.raises(NotApplicable, match=r"^jax alone gave numbers"):
        cell.compare({"jax": numbers["jax"]})
    with pytest.raises(NotApplicable, match=r"^no backend gave numbers"):
        cell.compare({})
    numbers["torch"]["1 the loss"] = 2.0
    with pytest.raises(
        Broken, match=r"the loss of jax and of torch differ by .* \(bias False, decorrelate hidden"
    ):
        cell.compare(numbers)


def test_a_constant_of_the_class_is_no_slip():
    kind = mutant(GRU, __annotations__={"MOST": "ClassVar[int]"}, MOST=3, clip=lambda self, x: x)
    assert looked(kind, "metadata").held is True


def test_what_sees_what_is_said():
    """And whether credit goes from unit to unit."""
    assert looked(GRU, "metadata").detail.endswith("x̂ goes to a[0], a[1], a[2]; ĥ goes to a[1], a[2], a[3]")
    assert looked(LRU, "metadata").detail.endswith("ĥ goes to no gate")
    assert looked(GRU, "influence").detail.startswith("W_rec takes it from unit to unit")
    assert looked(LRU, "influence").detail.startswith("no unit sees another: that of each on itself, O(p)")


def test_every_rule_is_run_with_a_cell_or_says_why_not(tmp_path, monkeypatch):
    """The template has one parameter a unit, and one number."""
    said = looked(LRU, "rules").detail
    assert re.match(r"\d\d go with it; ", said) and "snapn: no: its graph is that of W_rec" in said
    monkeypatch.chdir(tmp_path)
    assert main(["new", "cell", "slow_unit"]) == 0
    template = registry.load("cells", [tmp_path / "slow_unit.py"])["slow_unit"].cls
    found = looked(template, "rules")
    assert found.held is True and "reward_hebbian: leaves tau as they start" in found.detail
    assert looked(template, "influence").held is True


def test_what_grows_with_p_is_said_where_p_is_less():
    told = rule_looked("rtrl", claims.CHECKS, "memory", LRU)
    assert told.held is True and told.detail.endswith("claimed O(p) (without W_rec p grows as n)")
    assert "without W_rec" not in rule_looked("bptt", claims.CHECKS, "memory", LRU).detail


def test_the_file_of_an_id_in_the_working_folder_is_suggested(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("")
    for words in (["check", "mine"], ["show", "cell", "mine"], ["check", "anp", "--cell", "mine"]):
        assert main(words) == 2
        assert "'mine': write mine.py for the file of this name" in capsys.readouterr().err


def test_an_if_on_values_is_caught_where_programs_are_traced():
    def chooses(self, ops, s, a, phi):
        return (0.5 * s[0] + a[0] if a[0].sum() > 0 else 0.5 * s[0],)

    found = looked(mutant(GRU, f=chooses, slopes=Cell.slopes), "unit", "jax")
    assert found.held is False and "TracerBoolConversionError" in found.detail


@pytest.mark.slow
@pytest.mark.needs("jax", "torch")
@pytest.mark.thorough
def test_the_template_passes_all_checks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "cell", "slow_unit"]) == 0
    capsys.readouterr()
    assert main(["check", "slow_unit.py", "--json"]) == 0
    rows = {row["name"]: row["held"] for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == lists.names("cells") and set(rows.values()) == {True}


@pytest.mark.slow
@pytest.mark.needs("jax")
def test_the_template_is_checked_and_a_broken_one_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "cell", "slow_unit"]) == 0
    assert "creditbench run --cell slow_unit.py --learner bptt --task mackey_glass" in capsys.readouterr().err
    few = ["unit", "rest", "derivatives", "reverse mode"]
    assert main(["check", "slow_unit.py", "--json", "--backend", "jax", "--only", ",".join(few)]) == 0
    rows = {row["name"]: row["held"] for row in json.loads(capsys.readouterr().out)}
    assert set(rows) >= {"import", *few} and all(rows[name] for name in few)
    path = tmp_path / "slow_unit.py"
    path.write_text(path.read_text().replace("ops.xp.tanh(s[0])", "ops.xp.cos(s[0])"))
    assert main(["check", "slow_unit.py", "--only", "rest", "--backend", "jax"]) == 1
    said = capsys.readouterr().err
    assert "rest: o(0) is 1" in said and "what to do: let `o` be 0" in said
    assert main(["check", "gru", "--cell", "lif"]) == 2
    assert "--cell is lif and gru is no learner: leave --cell out" in capsys.readouterr().err
    assert main(["check", "np", "--cell", "gruu"]) == 2
    assert "unknown cell 'gruu': did you mean 'gru'" in capsys.readouterr().err
    assert main(["new", "cell", "gru"]) == 2
    assert "the id 'gru' is taken by" in capsys.readouterr().err


# -- constants that are set --------------------------------------------------------------------------------

ONLY_SOUND_AT_0 = """
from dataclasses import dataclass

from creditbench.cells import Cell


@dataclass(frozen=True)
class Drifts(Cell):
    id = "drifts"
    name = "Leaky sum"
    paper = "none"
    sees_recurrence = (0, 0)
    pace: float = 0.0

    def f(self, ops, s, a, phi):
        return (0.5 * s[0] + a[0],)

    def slopes(self, ops, s, a, phi, after):
        return ((0.5 + self.pace,),), ((1.0,),), ((),)
"""


@pytest.mark.slow
def test_constants_are_checked_at_the_values_that_are_set(tmp_path, capsys):
    path = tmp_path / "drifts.py"
    path.write_text(ONLY_SOUND_AT_0)
    words = ["check", str(path), "--only", "derivatives", "--backend", "jax", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)[0]["detail"] == "cell 'drifts'"
    assert main([*words, "--set", "drifts.pace=0.25"]) == 1
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["import"]["detail"] == "cell 'drifts'; drifts.pace = 0.25"
    assert rows["derivatives"]["held"] is False and "∂s[0]/∂s[0]" in rows["derivatives"]["detail"]
    # Of a rule and of its cell at once.
    words = ["check", "anp", "--cell", "lif", "--only", "metadata", "--backend", "jax", "--json"]
    assert main([*words, "--set", "anp.sigma=1e-2", "--set", "lif.decay=0.8"]) == 0
    assert (
        json.loads(capsys.readouterr().out)[0]["detail"] == "learner 'anp'; anp.sigma = 1e-2; lif.decay = 0.8"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lif", "--set", "lif.dekay=0.8"], "unknown parameter of lif 'dekay': did you mean 'decay'"),
        (["lif", "--set", "lif.decay=2"], "decay is 2.0: the cell lif needs one in [0, 1)"),
        (["lif", "--set", "lif.decay=x"], "lif.decay is 'x': give a value of the type float"),
        (["anp", "--set", "anp.lr=0.1"], "anp.lr is set, and check takes the rule's own: leave it out"),
        (["weather", "--set", "weather.data=x.csv"], "weather.data is set, and check takes the data"),
        (["anp", "--set", "lif.decay=0.8"], "unknown task, learner or cell in --set 'lif'"),
        (["adding", "--set", "adding.length=1"], "length is 1"),
        (["anp", "--set", "sigma=0.8"], "setting 'sigma' names no field"),
        (["anp", "--set", "anp.sigma=1e-2", "--results", "here"], "--results is here: a leaderboard shows"),
        (["plain.py", "--set", "plain.x=1"], "is no text in its class: write it as id ="),
    ],
)
def test_settings_that_make_no_sense_are_refused(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.py").write_text(ONLY_SOUND_AT_0.replace('"drifts"', 'str("drifts")'))
    assert main(["check", *words, "--only", "metadata", "--backend", "torch"]) == 2
    assert said in capsys.readouterr().err


# -- a rule with a cell ------------------------------------------------------------------------------------


def rule_looked(name: str, checks, which: str, kind: type[Cell], backend: str = "torch", cls=None):
    plugin = registry.find("learners", name)
    plugin = plugin if cls is None else dataclasses.replace(plugin, cls=cls)
    (found,) = outcomes([c for c in checks if c.name == which], Subject(plugin, backend, kind), plugin.path)
    return found


def test_a_rule_that_does_not_fit_is_not_checked_further(tmp_path, capsys):
    words = ["check", "kf_rtrl", "--cell", "lru", "--json", "--results", str(tmp_path)]
    assert main(words) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    why = "kf_rtrl does not go with lru: its influence has no place for a unit's own nu, theta"
    assert rows["metadata"]["held"] is True
    assert {name for name, row in rows.items() if row["held"] is None and row["detail"] == why} == {
        name for name in rows if name not in ("import", "metadata")
    }
    assert {(row.learner, row.cell) for row in read_checks(tmp_path)} == {("kf_rtrl", "lru")}


def test_a_reason_that_is_no_text_is_a_fault():
    class Says(registry.find("learners", "bptt").cls):
        def fits(self, cell):
            return 3

    found = rule_looked("bptt", lists.LEARNER, "cell", GRU, cls=Says)
    assert found.held is False and "fits returned 3" in found.detail


@pytest.mark.parametrize("id", ["gru", "lru", "lif"])
def test_an_exact_rule_is_unbiased_and_online_with_each_cell(id):
    kind = cell_class(id)
    assert rule_looked("rtrl", claims.CHECKS, "unbiased", kind).held is True
    assert rule_looked("rtrl", claims.CHECKS, "online", kind).held is True
    truncated = rule_looked("rtrl", claims.CHECKS, "unbiased", kind, cls=_claims_exact("eprop"))
    assert truncated.held is (id == "lru")  # a unit of lru acts on itself alone


def test_claims_that_hold_without_recurrent_weights_are_checked_there():
    """RTRL is exact in O(p) then, and SnAp-1 and e-prop are RTRL: Zucchet et al. 2023."""
    for rule, name in (("rtrl", "memory"), ("rtrl", "time")):
        found = rule_looked(rule, claims.CHECKS, name, LRU)
        assert found.held is True and "claimed O(p)" in found.detail
    for rule in ("snap1", "eprop"):
        assert rule_looked(rule, claims.CHECKS, "unbiased", LRU).held is True
        assert rule_looked(rule, claims.CHECKS, "unbiased", GRU).detail == "not claimed"
    greedy = dataclasses.replace(
        registry.find("learners", "rtrl").cls.claims, without_recurrence={"time": "O(1)"}
    )
    kept = type("Kept", (registry.find("learners", "rtrl").cls,), {"claims": greedy})
    assert rule_looked("rtrl", claims.CHECKS, "time", LRU, cls=kept).held is False
    with pytest.raises(UsageError, match="claims 'speed': take one of unbiased, online"):
        Claims(without_recurrence={"speed": "O(1)"})


def _claims_exact(name: str) -> type[Learner]:
    base = registry.find("learners", name).cls
    claimed = dataclasses.replace(base.claims, unbiased=True)
    return dataclasses.dataclass(frozen=True, kw_only=True)(type("Exact", (base,), {"claims": claimed}))


def test_a_rule_without_derivatives_is_not_held_to_a_surrogate():
    found = rule_looked("wp", claims.CHECKS, "unbiased", LIF)
    assert found.held is None and "the rule takes no derivative" in found.detail
    taking = {
        name: claims.takes_derivatives(Subject(registry.find("learners", name), "torch", LIF))
        for name in ("wp", "np", "bptt", "uoro", "eprop", "forward_gradient")
    }
    assert taking == {"wp": False, "np": False} | dict.fromkeys(
        ("bptt", "uoro", "eprop", "forward_gradient"), True
    )


def test_a_units_own_parameters_may_stay_as_they_start():
    found = rule_looked("np", learning.CHECKS, "trained", LRU)
    assert found.held is None and found.detail.startswith("nu, theta are never trained")

    class Half(registry.find("learners", "bptt").cls):
        def segment(self, ops, cell, params, state, batch, key):
            found = super().segment(ops, cell, params, state, batch, key)
            left = {name: 0.0 * found.grads[name] for name in cell.phi}
            return found._replace(grads={**found.grads, **left})

    found = rule_looked("bptt", claims.CHECKS, "unbiased", LRU, cls=Half)
    assert found.held is True and found.detail.endswith("; leaves nu, theta as they start")


def test_pairs_are_found_by_running_the_rule():
    def goes(name: str, kind: type[Cell], cls=None) -> str:
        plugin: Plugin = registry.find("learners", name)
        return pairs.goes_with(plugin if cls is None else dataclasses.replace(plugin, cls=cls), kind)

    assert goes("bptt", LRU) == goes("es", LRU) == goes("oua", LRU) == goes("np", GRU) == "yes"
    assert goes("np", LRU) == "leaves nu, theta as they start"
    assert goes("snapn", LRU).startswith("no: its graph is that of W_rec")

    class Fails(registry.find("learners", "bptt").cls):
        def segment(self, ops, cell, params, state, batch, key):
            found = super().segment(ops, cell, params, state, batch, key)
            return found._replace(grads=found.grads | {"c": found.grads["c"] * float("nan")})

    with pytest.raises(Broken, match="bptt with gru: its gradient is not finite"):
        goes("bptt", GRU, Fails)

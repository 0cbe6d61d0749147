"""Trials end to end: seeds, protocols, evaluation, divergence."""

import dataclasses
import itertools

import numpy as np
import pytest

from creditbench.cells import Cell
from creditbench.errors import InvalidEstimateError, UsageError
from creditbench.learner import Estimate
from creditbench.learner.training import check_estimate
from creditbench.ops import make_ops
from creditbench.plugins import registry
from creditbench.task import Sequences
from creditbench.trials.blocks import OwnBlocks, scaled_weights
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.trainer import Trainer, _Run, run_trials
from creditbench.trials.tuning import draw, space, trials_of
from tests.conftest import thorough


def trials(task="mackey_glass", learner="anp", backend="jax", seeds=(0,), dtype="float32", **options):
    defaults = dict(hidden=8, preset="smoke", evaluations=5, budget=50)
    grid = make_grid(
        Options(tasks=(task,), learners=(learner,), backends=(backend,), seeds=seeds, **(defaults | options))
    )
    return [trial.model_copy(update={"dtype": dtype}) for trial in grid.trials]


@pytest.fixture(params=["jax", "torch"])
def backend(request):
    return request.param


#: A series that is made and evaluated quickly.
SHORT = {"mackey_glass.steps": "300"}


def numbers(record):
    """The fields that training decided, without clocks."""
    return [(p.step, p.loss, p.validation) for p in record.curve], record.test_score, record.validation_best


@pytest.mark.parametrize(
    "learner",
    thorough(["anp", "anp+D", "np", "wp", "bptt", "readout_rls"], but=["anp+D", "bptt", "readout_rls"]),
)
def test_a_trial_gives_the_same_numbers_every_time(backend, learner):
    group = trials(learner=learner, backend=backend, segment=5, settings=SHORT)
    first, second = (next(run_trials(group)) for _ in range(2))
    assert first.status == "ok"
    assert numbers(first) == numbers(second)


@pytest.mark.parametrize("task", ["mackey_glass", "adding"])
@pytest.mark.parametrize("learner", ["anp+D", "wp"])
def test_a_seed_alone_is_the_seed_in_company(task, learner, backend):
    """50 updates in float64; under JAX the three seeds are trained as one program."""
    options = dict(task=task, learner=learner, backend=backend, dtype="float64")
    options |= dict(settings=SHORT) if task == "mackey_glass" else dict(budget=50 * 20, batch=4)
    alone = next(run_trials(trials(**options, seeds=(3,))))
    company = list(run_trials(trials(**options, seeds=(0, 2, 3)), together=True))[2]
    assert company.trained_together == (3 if backend == "jax" else 1)
    assert company.trial == alone.trial
    assert alone.curve[-1].step == (50 if task == "mackey_glass" else 1000)
    for a, b in zip(alone.curve, company.curve, strict=True):
        assert a.validation == pytest.approx(b.validation, rel=1e-9)
        assert a.loss == (None if b.loss is None else pytest.approx(b.loss, rel=1e-9))
    assert alone.test_score == pytest.approx(company.test_score, rel=1e-9)


@pytest.mark.parametrize(
    ("task", "learner"),
    thorough(
        [
            *(("mackey_glass", id) for id in sorted(registry.load("learners"))),
            ("adding", "np"),
            ("adding", "anp+D"),
        ],
        but=[
            *(("mackey_glass", id) for id in ("anp", "bptt", "dni", "eprop", "es", "readout_rls", "snapn")),
            ("adding", "np"),
            ("adding", "anp+D"),
        ],
    ),
)
def test_a_point_alone_is_the_point_in_company(task, learner):
    """Points of a rule's search space train as one program with their numbers as arguments; float64, JAX."""
    options = dict(budget=100 if task == "adding" else 200, hidden=4, dtype="float64", evaluations=1)
    options |= dict(settings=SHORT) if task == "mackey_glass" else {}
    (base,) = trials(task=task, learner=learner, **options)
    points = [p for p in draw(space(base), 8, (0, 0), base.decorrelate != "none") if p.optimizer == "sgd"][:2]
    two = [t.model_copy(update={"lr": t.lr / 1e4}) for t in trials_of(base, points, {})]
    assert two[0].program == two[1].program and two[0].family != two[1].family
    company = list(run_trials(two, together=True))
    assert [(r.trial, r.trained_together) for r in company] == [(trial, 2) for trial in two]
    alone = next(run_trials(two[1:]))
    assert alone.status == company[1].status == "ok", company[1].status_detail
    for a, b in zip(alone.curve, company[1].curve, strict=True):
        assert a.validation == pytest.approx(b.validation, rel=1e-7)
    assert company[0].curve[-1].validation != company[1].curve[-1].validation or "readout" in learner


@pytest.mark.parametrize("task", ["mackey_glass", "adding"])
def test_seeds_of_a_program_compile_or_record_it_once(task, backend, monkeypatch):
    made, ops = [], type(make_ops(backend))
    plain = ops.compile
    monkeypatch.setattr(ops, "compile", lambda self, f, *a, **k: made.append(f) or plain(self, f, *a, **k))
    options = dict(settings=SHORT) if task == "mackey_glass" else dict(budget=200, batch=4)
    counts, records = [], []
    for seeds in ((2,), (0, 1, 2)):
        made.clear()
        records.append(list(run_trials(trials(task, "anp", backend, seeds, **options))))
        counts.append(len(made))
    assert counts[0] == counts[1] > 1
    # What an earlier seed has left in the memory of a recording changes no bit.
    assert numbers(records[0][0]) == numbers(records[1][2])


def test_trials_that_are_not_one_program_are_refused():
    (a,), (b,) = trials(lrs=(1e-3,)), trials(lrs=(1e-3,), hidden=9)
    with pytest.raises(ValueError, match="differ in nothing but"):
        next(run_trials([a, b], together=True))
    with pytest.raises(ValueError, match="differ in nothing but"):
        next(run_trials([a, a.model_copy(update={"lr": 1e-4})]))


def test_a_seed_draws_the_same_in_any_company(backend):
    """Weights, data, order and noise, bit for bit."""
    alone, company = Trainer(trials(backend=backend, seeds=(3,))[0]), Trainer(trials(backend=backend)[0])
    ops, weights = alone.ops, []
    for one in (alone, company):
        with one.blocks.training(one.cell):
            weights.append(one.ops.to_numpy(one.blocks.start([alone.trial])[0]).values())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)
    keys = [p.ops.split(p.ops.key(3), 7) for p in (alone, company)]
    np.testing.assert_array_equal(*(ops.to_numpy(ops.normal(k, (5,))) for k in keys))
    if backend == "jax":
        stacked = ops.xp.stack([ops.key(s) for s in range(5)])
        together = ops.vmap(lambda key: ops.normal(ops.split(key, 7), (5,)))(stacked)
        np.testing.assert_array_equal(ops.to_numpy(together)[3], ops.to_numpy(ops.normal(keys[0], (5,))))


def test_backends_learn_alike():
    """A rule without noise follows the same curve in both backends, in float64."""
    for learner in ("bptt", "readout_rls"):
        records = [
            next(run_trials(trials(learner=learner, backend=b, dtype="float64", budget=500)))
            for b in ("jax", "torch")
        ]
        for a, b in zip(*(r.curve for r in records), strict=True):
            assert a.validation == pytest.approx(b.validation, rel=1e-8)


def test_training_improves_on_the_start(backend):
    record = next(
        run_trials(
            trials(learner="bptt", backend=backend, hidden=32, budget=4000, optimizer="adam", lrs=(3e-3,))
        )
    )
    assert record.status == "ok"
    assert record.curve[0].step == 0
    assert record.validation_best < 0.8 * record.curve[0].validation
    assert [p.seconds for p in record.curve] == sorted(p.seconds for p in record.curve)
    assert record.normalised_score == pytest.approx(
        (record.trivial - record.test_score) / (record.trivial - record.solved)
    )


def test_divergence_is_recorded_with_its_step_and_stops(backend):
    record = next(
        run_trials(
            trials(learner="bptt", backend=backend, segment=5, budget=500, optimizer="sgd", lrs=(1e9,))
        )
    )
    assert record.status == "diverged"
    step = int(record.status_detail.removeprefix("step "))
    assert 0 < step <= 500
    assert record.curve[-1].step < 500
    assert record.normalised_score is None and record.test_score is None


def test_weights_best_on_validation_are_tested(backend, monkeypatch):
    """The test split is used once, with the weights of the best point of the curve."""
    seen = []
    evaluate = Trainer.evaluate

    def spy(self, params, sequences, inputs):
        metric = evaluate(self, params, sequences, inputs)
        seen.append((sequences.targets.tobytes(), metric, self.ops.to_numpy(params["W_rec"]).copy()))
        return metric

    monkeypatch.setattr(Trainer, "evaluate", spy)
    trial = trials(backend=backend, lrs=(0.5,), budget=200)[0]
    record = next(run_trials([trial]))
    data = {s: Trainer(trial).task.generate(s, trial.seed, trial.batch) for s in ("validation", "test")}
    tests, validations = (
        [entry for entry in seen if entry[0] == data[split].targets.tobytes()]
        for split in ("test", "validation")
    )
    assert len(tests) + len(validations) == len(seen)
    assert len(tests) == 1
    best = min(validations, key=lambda entry: entry[1])
    assert record.validation_best == best[1]
    np.testing.assert_array_equal(tests[0][2], best[2])


def test_episode_batches_are_the_tasks_sequences(backend):
    """Every sequence once per epoch, with weights that sum to one in each segment."""
    trial = trials(task="adding", backend=backend, batch=10, budget=20 * 120, evaluations=4)[0]
    run = _Run(Trainer(trial), trial)
    rows = run.train.inputs.shape[1]
    taken = run.order.ravel()[:rows]
    assert len(set(taken)) == len(taken) == min(rows, 1200)
    batch = run.batches(0)
    assert batch.inputs.shape == (run.segments, 20, 10, 2)
    np.testing.assert_allclose(batch.weights.sum(axis=(1, 2)), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(batch.inputs[1, :, 4], run.train.inputs[:, run.order[1, 4]])


@pytest.mark.parametrize("task", ["adding", "sequential_digits", "dyck"])
def test_gathered_episodes_train_as_those_handed_over(backend, task, monkeypatch):
    """Bit for bit, whether the device gathers its segments or gets them as a confined process does."""
    group = trials(task=task, learner="bptt", backend=backend, batch=6, budget=2000, evaluations=2)
    gathered = next(run_trials(group))
    monkeypatch.setattr(OwnBlocks, "holds_data", False)
    assert gathered.status == "ok"
    assert numbers(next(run_trials(group))) == numbers(gathered)


def test_scaled_weights_sum_to_one_in_each_segment_that_is_scored(backend):
    ops, rng = make_ops(backend), np.random.default_rng(0)
    weights = rng.random((5, 9), np.float32)
    weights[:, :2] = 0
    chosen = np.array([[0, 1, 0], [1, 4, 8], [7, 7, 2]], np.int32)
    data = Sequences(*ops.from_numpy((weights[..., None], weights[..., None], weights)))
    found = ops.to_numpy(scaled_weights(ops, data, ops.from_numpy(chosen)))
    expected = np.stack([weights[:, rows] / (weights[:, rows].sum() or 1) for rows in chosen])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_stream_segments_follow_each_other_and_wrap(backend):
    trial = trials(backend=backend, segment=7, budget=700, evaluations=5, batch=2)[0]
    run = _Run(Trainer(trial), trial)
    first, second = run.batches(0), run.batches(run.segments)
    joined = np.concatenate([first.inputs, second.inputs]).reshape(-1, 2, 1)
    np.testing.assert_array_equal(joined, run.train.inputs[: len(joined)])
    loop = run.unit * run.blocks
    assert 0.95 * len(run.train.inputs) < 7 * loop <= len(run.train.inputs)
    np.testing.assert_array_equal(run.batches(loop).inputs[0], first.inputs[0])
    seams = [k for k in range(0, 3 * loop, run.unit) if run.at_seam(k)]
    assert seams == [loop, 2 * loop]


def stretched(monkeypatch, length=60, stretches=3):
    """mackey_glass with a short row that consists of stretches."""
    task = registry.find("tasks", "mackey_glass").cls
    generate = task.generate

    def short(self, split, seed, batch):
        whole = generate(self, split, seed, batch)
        return Sequences(*(x[: length * stretches] for x in whole)) if split == "train" else whole

    monkeypatch.setattr(task, "generate", short)
    monkeypatch.setattr(task, "stretches", lambda self, batch: stretches)


@pytest.mark.parametrize(("segment", "evaluations"), [(1, 4), (7, 3), (20, 6)])
def test_a_block_lies_in_one_stretch(monkeypatch, segment, evaluations):
    """Blocks have one length, stretches keep their order, and no segment crosses a seam."""
    stretched(monkeypatch)
    trial = trials(segment=segment, budget=600, evaluations=evaluations)[0]
    run = _Run(Trainer(trial), trial)
    assert run.segments % run.unit == 0 and run.unit * run.blocks * segment <= 60
    seen = []
    for first in range(0, run.segments * evaluations, run.unit):
        inputs = run.batches(first).inputs.reshape(-1)
        start = np.flatnonzero(run.train.inputs[:, 0, 0] == inputs[0])[0]
        np.testing.assert_array_equal(inputs, run.train.inputs[start : start + len(inputs), 0, 0])
        assert start // 60 == (start + len(inputs) - 1) // 60
        assert run.at_seam(first) == (start % 60 == 0 and first > 0)
        seen.append(start // 60)
    assert seen[0] == 0 and set(seen) == {0, 1, 2}
    assert {(b - a) % 3 for a, b in itertools.pairwise(seen)} <= {0, 1}


def test_the_network_is_at_rest_after_a_seam(backend, monkeypatch):
    """Three stretches against training by hand: a new state for each, the same weights and optimiser."""
    stretched(monkeypatch)
    trial = trials(
        learner="bptt",
        backend=backend,
        segment=20,
        budget=180,
        evaluations=3,
        optimizer="adam",
        dtype="float64",
    )[0]
    record = next(run_trials([trial]))
    trainer = Trainer(trial)
    ops, cell, blocks, run = trainer.ops, trainer.cell, trainer.blocks, _Run(trainer, trial)
    rule = blocks.learner
    with blocks.training(cell):
        params, moments, state = blocks.start([trial])
    losses = []
    for k in range(9):
        if k % 3 == 0:
            state = rule.init(ops, cell, params, 1)
        batch = type(run.batches(k, 1))(*(ops.from_numpy(x[0]) for x in run.batches(k, 1)))
        estimate = rule.segment(ops, cell, params, state, batch, None)
        params, moments = blocks.optimizer.update(ops, params, moments, estimate.grads)
        state = estimate.state
        losses.append(float(estimate.loss))
    found = [point.loss for point in record.curve[1:]]
    np.testing.assert_allclose(found, np.reshape(losses, (3, 3)).mean(1), rtol=1e-10)


def test_windows_are_what_comes_next_and_wrap():
    trial = trials(task="adding", backend="torch", batch=10, budget=20 * 8, evaluations=4)[0]
    run = _Run(Trainer(trial), trial)
    for evaluation in (1, 4):
        found = run.windows(evaluation, 3, 2)  # of episodes the length is their own
        first = evaluation * run.segments % len(run.order)
        np.testing.assert_array_equal(found.inputs[0], run.batches(first).inputs[0])
        np.testing.assert_array_equal(found.inputs[1], run.batches(first).inputs[1])
    trial = trials(backend="torch", segment=7, budget=700, evaluations=5, batch=2)[0]
    run = _Run(Trainer(trial), trial)
    series, start = run.train.inputs, run.segments * 7
    found = run.windows(1, 6, 3)
    np.testing.assert_array_equal(found.inputs.reshape(18, 2, 1), series[start : start + 18])
    np.testing.assert_allclose(found.weights.sum(axis=(1, 2)), 1.0, rtol=1e-6)
    assert run.windows(1, len(series), 2).inputs.shape == (2, *series.shape)
    with pytest.raises(UsageError, match=f"give 1 to {len(series)}"):
        run.windows(0, len(series) + 1, 1)


@dataclasses.dataclass
class Scalar:
    shape: tuple = ()


def test_estimates_are_checked():
    params = {"W_rec": np.zeros((2, 2))}
    check_estimate(Estimate(Scalar(), {"W_rec": np.zeros((2, 2))}, None), params)
    for bad, message in (
        (None, "returned NoneType"),
        (Estimate(Scalar((3,)), {}, None), "loss has shape"),
        (Estimate(Scalar(), {"W": np.zeros(2)}, None), "no parameter"),
        (Estimate(Scalar(), {"W_rec": np.zeros((2, 3))}, None), r"has shape \(2, 3\), not \(2, 2\)"),
    ):
        with pytest.raises(InvalidEstimateError, match=message):
            check_estimate(bad, params)


def test_the_noise_depends_on_the_seed(backend, monkeypatch):
    """With the same weights and data, another seed still draws other noise."""
    group = trials(backend=backend, seeds=(0, 1))
    task = registry.find("tasks", "mackey_glass").cls
    init, generate = Cell.init, task.generate
    monkeypatch.setattr(Cell, "init", lambda self, seed: init(self, 0))
    monkeypatch.setattr(task, "generate", lambda self, split, seed, batch: generate(self, split, 0, batch))
    first, second = run_trials(group)
    assert first.curve[0].validation == second.curve[0].validation
    assert first.curve[-1].validation != second.curve[-1].validation


def test_a_metric_that_is_not_a_number_is_no_result(backend, monkeypatch):
    """A seed whose test metric is not finite is invalid; it says so, and has no score."""
    task = registry.find("tasks", "mackey_glass").cls
    score = task.score

    def lacking(self, outputs, sequences):
        test = self.generate("test", 1, 1)
        same = np.array_equal(sequences.targets, test.targets)
        return float("nan") if same else score(self, outputs, sequences)

    monkeypatch.setattr(task, "score", lacking)
    good, bad = (next(run_trials(trials(backend=backend, seeds=(seed,)))) for seed in (0, 1))
    assert good.status == "ok" and np.isfinite(good.normalised_score)
    assert bad.status == "invalid" and "test split is nan" in bad.status_detail
    assert bad.normalised_score is None and bad.test_score is None and bad.validation_best is not None


def test_without_a_solved_score_there_is_no_normalised_one(backend, monkeypatch):
    """Nor if solved is no better than trivial."""
    task = registry.find("tasks", "mackey_glass").cls
    for solved in (None, 2.0):
        monkeypatch.setattr(task, "solved_score", lambda self, sequences, solved=solved: solved)
        record = next(run_trials(trials(backend=backend)))
        assert record.status == "ok" and np.isfinite(record.test_score)
        assert record.normalised_score is None and record.steps_to_target is None
        assert record.solved == solved

# Needs only Python 3.11 or newer and make; everything else goes into .venv.
# Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
CONFIG ?= grids/quick.toml
ARGS ?=
VERSION ?= v0.2
BASE ?= main

RUN = results/run-$(VERSION)
BIN = .venv/bin
INSTALLED = .venv/installed

.PHONY: help install run results task tables paper published fair test test-one test-thorough test-gpu lint bench perf-gate asv docs release check-submission clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-24s %s\n", $$1, $$2 }'

install: $(INSTALLED) ## the virtual environment .venv and everything in it

# The stamp is written last, so that an installation which broke off is taken up again.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is missing or older than Python 3.11: name another, as in: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $(INSTALLED)

run: $(INSTALLED) ## the quick benchmark, resumable; CONFIG=FILE.toml for another
	$(BIN)/creditbench run --config $(CONFIG) $(ARGS)

results: $(INSTALLED) ## tune, run and tabulate a version, its figures and the leaderboard's page, resumable; TASKS="weather" for some of it
	mkdir -p results/$(VERSION)/tuned $(RUN)
	for task in $(TASKS); do \
	  $(MAKE) --no-print-directory task TASK=$$task BACKEND=jax || exit; done
	for task in $(filter $(TASKS),$(TORCH)); do \
	  $(MAKE) --no-print-directory task TASK=$$task BACKEND=torch || exit; done
	$(MAKE) --no-print-directory $(RUN)/scaling/scaling.csv $(RUN)/gradients/gradients.csv $(CHECKED) tables

# One task under one backend: tuned, and run with what each study found. What the version has already is taken from there.
task: $(INSTALLED)
	$(BIN)/creditbench tune $(GIVEN) --points $(POINTS) --studies 3 --results $(RUN)/tuning --output $(TUNED) --keep || test $$? -eq 1
	$(BIN)/creditbench run $(GIVEN) --tuned $(TUNED) --results $(RUN) $(REUSED) $(ARGS) || test $$? -eq 1

tables: $(INSTALLED) ## the tables, figures and page of a version, of what was run so far
	$(BIN)/creditbench table $(KNOWN) --results $(RUN) --compact results/$(VERSION)
	for name in scaling gradients; do \
	  test ! -f results/$(VERSION)/$$name.csv || \
	    $(BIN)/creditbench figure $$name --results results/$(VERSION) --output results/$(VERSION)/$$name.png || exit; done
	$(BIN)/creditbench figure pareto --results results/$(VERSION) --output results/$(VERSION)/pareto.png
	for name in curves profiles; do \
	  $(BIN)/creditbench figure $$name --results results/$(VERSION) --rule $(SHOWN) --output results/$(VERSION)/$$name.png || exit; done
	$(BIN)/creditbench leaderboard --results results/$(VERSION) --output results/leaderboard

TASKS ?= $(patsubst grids/board/%.toml,%,$(wildcard grids/board/*.toml))
# Tasks that PyTorch runs too, with tuning of its own.
TORCH = mackey_glass weather copy_memory
TUNED = results/$(VERSION)/tuned/$(TASK).$(BACKEND).toml
GIVEN = --config grids/board/$(TASK).toml --backend $(BACKEND)
KNOWN = $(if $(wildcard results/$(VERSION)/trials.csv),--results results/$(VERSION))
REUSED = $(if $(wildcard results/$(VERSION)/trials.csv),--reuse results/$(VERSION))
POINTS = 16
# What figures of curves show: more lines than these six cannot be told apart.
SHOWN = bptt,tbptt,eprop,anp,wp,readout_rls

# A trial that failed is a result: it is recorded, and what comes after is made of the others. So is a claim that did not hold.
LEARNERS = $(BIN)/creditbench list learners --json | $(BIN)/python -c \
  'import json, sys; print(",".join(learner["id"] for learner in json.load(sys.stdin)))'

$(RUN)/scaling/scaling.csv: | $(INSTALLED)
	$(BIN)/creditbench scale --learner $$($(LEARNERS)) --axis T,n --output $(@D) || test $$? -eq 1

CHECKED = $(patsubst learners/%.py,$(RUN)/checks/%.json,$(wildcard learners/*.py))

$(RUN)/checks/%.json: learners/%.py | $(INSTALLED)
	$(BIN)/creditbench check $* --timeout 1800 --results $(RUN) || test $$? -eq 1

$(RUN)/gradients/gradients.csv: | $(INSTALLED)
	$(BIN)/creditbench gradients --learner $$($(LEARNERS)) --task mackey_glass,copy_memory --output $(@D)

WTH ?=
DIGITS ?=

paper: published fair ## the claim of the paper put to the test, as published and fairly, resumable; WTH=FILE.csv takes the paper's own weather file

published: $(INSTALLED) ## the published rules under the published protocol; DIGITS=hf:ylecun/mnist takes the paper's own digits
	mkdir -p results/paper
	for task in copy_memory mackey_glass weather sequential_digits; do \
	  given="--config grids/paper/published/$$task.toml"; \
	  if test $$task = weather -a -n "$(WTH)"; then given="$$given --data weather=$(WTH)"; fi; \
	  if test $$task = sequential_digits -a -n "$(DIGITS)"; then given="$$given --data sequential_digits=$(DIGITS)"; fi; \
	  $(BIN)/creditbench run $$given || test $$? -eq 1 || exit; \
	done
	$(BIN)/creditbench table --results results/run-published --compact results/paper/published
	$(BIN)/creditbench figure curves --results results/paper/published --output results/paper/published/curves.png

fair: $(INSTALLED) ## every rule of the paper tuned alike, as it is here
	mkdir -p results/paper/tuned
	for task in mackey_glass copy_memory weather sequential_digits; do \
	  given="--config grids/paper/$$task.toml"; \
	  if test $$task = weather -a -n "$(WTH)"; then given="$$given --data weather=$(WTH)"; fi; \
	  $(BIN)/creditbench tune $$given --points $(POINTS) --studies 3 --results results/run-paper/tuning \
	    --output results/paper/tuned/$$task.toml --keep || test $$? -eq 1 || exit; \
	  $(BIN)/creditbench run $$given || test $$? -eq 1 || exit; \
	done
	for units in 100 200 500 1000; do \
	  $(BIN)/creditbench run --config grids/paper/units.toml --hidden $$units || test $$? -eq 1 || exit; done
	test -f results/run-paper/scaling/scaling.csv || $(BIN)/creditbench scale --learner bptt,tbptt,np,wp,anp --set tbptt.K=1 \
	  --backend jax --axis n --sizes 100,200,500,1000,2000 --quantity time,algorithm_bytes --output results/run-paper/scaling || test $$? -eq 1
	$(BIN)/creditbench table --results results/run-paper --compact results/paper/fair
	$(BIN)/creditbench table --results results/run-paper-units --compact results/paper/units
	$(BIN)/creditbench figure units --results results/paper/units --output results/paper/units/units.png
	$(BIN)/creditbench figure curves --results results/paper/fair --output results/paper/fair/curves.png
	$(BIN)/creditbench figure scaling --results results/paper/fair --axis n --output results/paper/fair/scaling.png

NOTHING := 5 # what pytest exits with where ARGS chooses none of its tests

# Bytecode is kept: the tests start hundreds of processes that import the same files.
test: export PYTHONDONTWRITEBYTECODE =
test: $(INSTALLED) ## the tests; ARGS="-k anp" for some
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not alone and not thorough" $(ARGS) || test $$? -eq $(NOTHING)
	$(BIN)/python -m pytest -m alone $(ARGS) || test $$? -eq $(NOTHING)

test-thorough: export PYTHONDONTWRITEBYTECODE =
test-thorough: $(INSTALLED) ## the tests that follow from others, as JAX's of what PyTorch holds to an oracle and JAX to PyTorch
	$(BIN)/python -m pytest -n auto --dist worksteal -m thorough $(ARGS)

FRAMEWORK ?= jax

test-one: ## the tests in an environment with one framework alone; FRAMEWORK=torch for the other
	$(PYTHON) -m venv .venv/only-$(FRAMEWORK)
	.venv/only-$(FRAMEWORK)/bin/python -m pip install --quiet --editable '.[test,$(FRAMEWORK)]'
	.venv/only-$(FRAMEWORK)/bin/python -m pytest -n auto --dist worksteal -m "not alone" $(ARGS)

test-gpu: $(INSTALLED) ## the tests of what runs on an accelerator, where there is one
	JAX_PLATFORMS= XLA_FLAGS= $(BIN)/python -m pytest -m gpu $(ARGS)

lint: $(INSTALLED) ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell

bench: $(INSTALLED) ## how fast the rules are, on one thread and on all
	CREDITBENCH_THREADS=1 $(BIN)/python -m pytest benchmarks --benchmark-only $(ARGS)
	CREDITBENCH_THREADS=$$($(BIN)/python -c "import os; print(os.cpu_count())") $(BIN)/python -m pytest benchmarks --benchmark-only $(ARGS)

perf-gate: $(INSTALLED) ## whether this checkout is slower or bigger than BASE=main, both measured here in turn
	$(BIN)/creditbench perf-gate --base "$(BASE)" $(ARGS)

# What is measured is the checkout, as it is installed in .venv.
asv: $(INSTALLED) ## the history of every rule's cost and score: measure this commit, make the page .asv/html
	$(BIN)/asv machine --yes
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/asv run --python=same --set-commit-hash "$$(git rev-parse HEAD)" $(ARGS)
	$(BIN)/asv publish

SITE = docs/_build

# What builds the site is installed once it is asked for.
.venv/docs: $(INSTALLED)
	$(BIN)/python -m pip install --editable '.[docs]'
	@touch $@

docs: .venv/docs ## the documentation site, docs/_build/html, with the board's page and asv's, if there is one
	rm -rf $(SITE)/html $(SITE)/extra
	$(BIN)/creditbench leaderboard --results results/$(VERSION) --output $(SITE)/extra/board/page
	test ! -d .asv/html || cp -r .asv/html $(SITE)/extra/asv
	$(BIN)/python -m sphinx -n -W --keep-going -b html docs $(SITE)/html

TRIED = .release
TAG ?=

# The wheel is tried where nothing of this checkout is: what it lacks would be found here.
release: $(INSTALLED) ## the packages of a release and its results in dist/, the wheel tried in a fresh environment; TAG=v1.0
	test -z "$(TAG)" || test "$(TAG)" = "v$$($(BIN)/python -c 'import creditbench; print(creditbench.__version__)')" || \
	  { echo "the tag is $(TAG), and creditbench.__version__ is another: set it, or name its tag" >&2; exit 1; }
	rm -rf dist $(TRIED)
	$(BIN)/python -m build --no-isolation --outdir dist
	$(PYTHON) -m venv $(TRIED)
	$(TRIED)/bin/python -m pip install --quiet "$$(ls dist/*.whl)[all]"
	cd $(TRIED) && bin/creditbench run --task mackey_glass,adding --learner bptt,eprop --backend jax,torch --preset smoke \
	  --seeds 2 --results tried
	cd $(TRIED) && bin/creditbench new learner tried_rule && bin/creditbench check tried_rule.py --only import,estimate
	cd $(TRIED) && bin/creditbench leaderboard --results ../results/$(VERSION) --output page
	tar -czf dist/results-$(VERSION).tar.gz results/$(VERSION)

check-submission: $(INSTALLED) ## check the rules, tasks and cells that differ from BASE=main, and run them beside it
	$(BIN)/python .github/submission.py --base "$(BASE)" $(ARGS)

clean: ## remove .venv and caches, keep results
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .benchmarks .asv/env docs/_build dist $(TRIED)

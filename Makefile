# Needs only Python 3.11 or newer and make; everything else goes into .venv.
# Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
CONFIG ?= benchmarks/quick.toml
ARGS ?=
VERSION ?= v0.1
BASE ?= main

RUN = results/run-$(VERSION)
BIN = .venv/bin
INSTALLED = .venv/installed

.PHONY: help install run results test lint bench perf-gate asv check-submission clean

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

results: $(INSTALLED) ## the tables of a version, its figures and the leaderboard's page, resumable; VERSION=v0.2 for another
	$(BIN)/creditbench run --config benchmarks/results.toml --results $(RUN) $(ARGS) || test $$? -eq 1
	$(MAKE) --no-print-directory $(RUN)/scaling/points.csv $(RUN)/gradients/gradients.json
	$(BIN)/creditbench table --results $(RUN) --compact results/$(VERSION)
	for name in curves pareto profiles scaling gradients; do \
	  $(BIN)/creditbench figure $$name --results results/$(VERSION) --output results/$(VERSION)/$$name.png || exit; done
	$(BIN)/creditbench leaderboard --results results/$(VERSION) --output results/leaderboard

# A trial that failed is a result: it is recorded, and what comes after is made of the others. So is a claim that did not hold.
LEARNERS = $(BIN)/creditbench list learners --json | $(BIN)/python -c \
  'import json, sys; print(",".join(learner["id"] for learner in json.load(sys.stdin)))'

$(RUN)/scaling/points.csv: | $(INSTALLED)
	$(BIN)/creditbench scale --learner $$($(LEARNERS)) --axis T,n --output $(@D) || test $$? -eq 1

$(RUN)/gradients/gradients.json: | $(INSTALLED)
	$(BIN)/creditbench gradients --learner $$($(LEARNERS)) --task mackey_glass,copy_memory --output $(@D)

test: $(INSTALLED) ## the tests; ARGS="-k anp" for some
	$(BIN)/python -m pytest -n auto $(ARGS)

lint: $(INSTALLED) ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

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

check-submission: $(INSTALLED) ## check the rules and tasks that differ from BASE=main, and run them beside it
	$(BIN)/python .github/submission.py --base "$(BASE)" $(ARGS)

clean: ## remove .venv and caches, keep results
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .benchmarks .asv/env

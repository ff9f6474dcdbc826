# One command each; every target makes the environment that it needs. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
export PYTHON
BIN := .venv/bin

# The environment is made again when the lock or the project's own metadata changes, and at no other time.
STAMP := .venv/.installed-$(shell cat requirements.lock pyproject.toml .ci/install | sha256sum | cut -c 1-16)

ROUNDS ?= 20
WORLDS ?= 2000
DRAWS ?= 1000
DATA ?=
SEED ?= 1
OUT ?= out/kill
BROKER ?=
SABOTAGE ?=
OUTAGE ?=
ARGS ?=

.PHONY: help setup triton demo test check unit lint format types imports
.PHONY: kill sabotages fuzz bench slow agree calibration lock clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)$$/\1\t\2/p' Makefile | expand -t 10

setup: $(STAMP) ## create .venv from the lock, with .venv/bin/signalbox in it
	@:

$(STAMP):
	@echo 'setup: filling .venv from requirements.lock'
	@.ci/install .venv requirements.lock
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
	@# Workers start twice as fast when the bytecode of what they import is there already.
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c 'import signalbox, streams.worker, streams.clients.triton, infra.local.demo, infra.simulated_llm.__main__'
	@rm -f .venv/.installed-*
	@touch $@

triton: setup ## create the Triton environment and build its models
	@python=$$($(BIN)/python -m infra.local.triton_env); $(BIN)/python -m triton_models.build --python "$$python"

demo: setup triton ## the whole product on this machine, end to end
	@$(BIN)/signalbox demo $(ARGS)

test: setup triton ## every test, those on real Kafka and Triton included
	@$(BIN)/python -m infra.local.kafka_jars
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: explore
explore: setup ## other examples of each property than `make test` tries, and more of them
	@$(BIN)/python -m pytest -m 'hypothesis and not live' --timeout=0 --hypothesis-profile=explore $(ARGS)

check: format-check lint types imports unit ## format, lint, types, imports and the tests that need no other process

unit: setup ## the tests that need no other process
	@$(BIN)/python -m pytest -m 'not live' $(ARGS)

.PHONY: format-check
format-check: setup
	@$(BIN)/ruff format --check .

lint: setup ## ruff
	@$(BIN)/ruff check .

format: setup ## rewrite the code in its one format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

types: setup ## mypy, strict
	@$(BIN)/mypy

imports: setup ## import-linter: which room may import which
	@$(BIN)/lint-imports --no-logo

kill: setup triton ## kill workers at aimed moments: ROUNDS=20 SEED=1 OUT=out/kill [BROKER=kafka|memory] [SABOTAGE=] [OUTAGE=]
	@$(BIN)/python -m tests.live.kill --rounds '$(ROUNDS)' --seed '$(SEED)' --out '$(OUT)' $(if $(OUTAGE),--outage '$(OUTAGE)') \
		$(if $(BROKER),--broker '$(BROKER)') $(if $(SABOTAGE),--sabotage '$(SABOTAGE)') $(ARGS)

sabotages: setup ## the faults that SABOTAGE= can plant, one a line
	@$(BIN)/python -m tests.live.kill_sabotage

fuzz: setup ## a million spoiled records in memory, 20,000 on each topic of a broker: docs/results/fuzz.md
	@$(BIN)/python -m infra.local.kafka_jars >/dev/null
	@$(BIN)/python -m tests.fuzz.fuzz --write docs/results/fuzz.md $(ARGS)

bench: setup triton ## measure cost and latency of a request: ARGS=...
	@$(BIN)/python -m tests.live.bench $(ARGS)

.PHONY: hop browser history
hop: setup ## measure one hop beside a raw loop and Faust as shipped: ARGS=...
	@$(BIN)/python -m infra.local.kafka_jars
	@$(BIN)/python -m tests.live.bench_hop --out docs/results/hop.md $(ARGS)

slow: setup triton ## 50,000 lines through a classifier of 200 texts/s: no signal may be late
	@$(BIN)/python -m tests.live.slow_signal $(ARGS)

agree: setup ## compare 100,000 random policies and signals between both evaluators and a reference
	@$(BIN)/python -m tests.agents.engine.test_agreement $(if $(ARGS),$(ARGS),20000 5 0)

calibration: setup ## how often intervals hold the truth: WORLDS=2000 OUT=out/calibration [RATINGS=few] [SABOTAGE=]
	@OMP_NUM_THREADS=1 $(BIN)/python -m replay.calibration --worlds '$(WORLDS)' \
		--out '$(if $(filter out/kill,$(OUT)),out/calibration,$(OUT))' $(if $(SABOTAGE),--sabotage '$(SABOTAGE)') \
		$(if $(RATINGS),--ratings '$(RATINGS)') $(ARGS)

.PHONY: outcomes
outcomes: setup ## coverage on logs drawn from outcome tables: DATA=folder of the third-party tables, DRAWS=1000
	@$(BIN)/python -m tests.replay.outcome_tables '$(DATA)' out/outcomes
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.replay.outcome_report out/outcomes '$(DRAWS)' docs/results/full_feedback.md

history: setup ## record what this engine decides, as tests/histories/logs/<date>-<commit>-<policy>.tar.xz (commit first)
	@$(BIN)/python -m tests.histories.record $(ARGS)

compare: setup ## a million logged decisions from Parquet under a new policy: ARGS=1000000
	@$(BIN)/python -m replay.replay_bench $(ARGS)

browser: ## install Debian's Chromium, in which a test opens the report (as root)
	apt-get install -y --no-install-recommends chromium

lock: setup ## write requirements.lock again from pyproject.toml; ARGS=--upgrade takes newer versions
	@$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet --output-file requirements.lock $(ARGS)

clean: ## remove the environments and the tools' caches
	rm -rf .venv .venv-* build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

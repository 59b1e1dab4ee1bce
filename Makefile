# make demo, make test and make check work on a machine with Python 3.11+, git and make and nothing installed:
# each first creates .venv, and installs again only when pyproject.toml or constraints.txt has changed.

PYTHON ?= python3
VENV := .venv/bin/python
PIP := $(VENV) -m pip install -qq --disable-pip-version-check -c constraints.txt

# Networks here are small: more OpenMP threads only get in one another's way, many times over beside a busy process.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check format

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

demo: .venv/package.stamp ## train for about two minutes, evaluate beside the baselines, draw a GIF
	@$(VENV) -m benchmarks.demo

test: .venv/dev.stamp ## run the whole test suite
	@$(VENV) -m pytest -n 2 --dist worksteal

check: .venv/dev.stamp ## check format, lint and types, then run the whole test suite
	@echo "ruff format --check"; $(VENV) -m ruff format --check .
	@echo "ruff check"; $(VENV) -m ruff check .
	@echo "mypy --strict"; $(VENV) -m mypy
	@$(VENV) -m pytest -n 2 --dist worksteal

format: .venv/dev.stamp ## format the code and mend what the linter can
	@$(VENV) -m ruff check --fix --quiet . ; $(VENV) -m ruff format .

# A venv whose creation fails half-way (Debian without python3-venv) must not look finished the next time.
$(VENV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is missing or older than 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Creating .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "python -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

.venv/package.stamp: pyproject.toml constraints.txt | $(VENV)
	@echo "Installing marl_stable into .venv (the first time a minute or more: torch is large)"
	@$(PIP) -e .
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | $(VENV)
	@echo "Installing marl_stable with the dev extra into .venv (the first time a minute or more: torch is large)"
	@$(PIP) -e '.[dev]'
	@touch .venv/package.stamp $@

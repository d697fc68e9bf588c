# On a fresh machine `make demo` and `make test` do all the set-up themselves.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
PY := .venv/bin/python
# Touched after a complete install: a newer lock or pyproject.toml installs again.
INSTALLED := .venv/.installed

# What cluster-check looks at: make cluster-check CLUSTER=other.yaml
CLUSTER ?= cluster.yaml

.PHONY: help demo test check lint cluster-check lock clean

help: ## list these targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1	\2/p' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## segment generated scenes, offline, in a minute or two
	@$(PY) -m job demo

test: $(INSTALLED) ## run the tests
	@$(PY) -m pytest

check: lint test ## every check: ruff, mypy, tests

lint: $(INSTALLED) ## ruff (lint and format) and mypy
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy

cluster-check: $(INSTALLED) ## look before `ray up`: AWS account, quotas, token, programs
	@$(PY) -m deploy.check $(CLUSTER)

# pip and not uv: pip's own configuration may name the torch build for this machine. No pip-sync
# either: with a CUDA torch it would remove the CUDA libraries, which a lock made with the CPU
# build does not list (torch pins them itself).
$(INSTALLED): requirements.lock $(wildcard pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed, and '$(PYTHON)' is not that." \
	    "Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@echo "Installing requirements.lock into .venv (minutes the first time) ..."
	@$(PY) -m pip install -qq --disable-pip-version-check -r requirements.lock
	@# The project itself, for scripts anywhere: nothing is fetched, the lock has all it needs, also
	@# setuptools (torch depends on it).
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation \
	  --check-build-dependencies -e .
	@touch $@

# Keeps the versions that still fit. To raise them: make lock UPGRADE=--upgrade. Run it with the
# Python of the cluster's image (3.11).
lock: $(INSTALLED) ## rewrite requirements.lock from pyproject.toml, and runtime_env.yaml's versions
	@$(PY) -m piptools compile -q --all-extras --strip-extras --no-header --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host $(UPGRADE) -o requirements.lock pyproject.toml
	@# "+cpu" names one machine's build; the plain version takes each machine's own
	@sed -i.bak -E 's/^(torch==[^+]+)\+.*/\1/' requirements.lock
	@while IFS== read -r name _ version; do \
	  sed -i.bak -E "s/^( +- $$name(\[[a-z]+\])?==).*/\1$$version/" runtime_env.yaml; \
	done < <(grep -E '^[a-z0-9-]+==' requirements.lock)
	@digest=$$($(PY) -c 'import hashlib, pathlib; \
	  print(hashlib.sha256(pathlib.Path("requirements.lock").read_bytes()).hexdigest()[:12])') && \
	  sed -i.bak -E "s/# requirements.lock [0-9a-f]{12}/# requirements.lock $$digest/" \
	  runtime_env.yaml
	@rm -f requirements.lock.bak runtime_env.yaml.bak
	@git --no-pager diff --stat -- requirements.lock runtime_env.yaml

clean: ## remove the environment, caches and what the demo wrote
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info demo-output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# On a fresh machine `make demo` and `make check` do all the set-up themselves.
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

# Two files of tests at a time on the two cores of a small machine, in order, so that the long ones
# come first; one thread each, or they fight for them. One after the other, for a debugger or a clean
# timing: make test TESTS_AT_ONCE=0
TESTS_AT_ONCE ?= 2
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(TESTS_AT_ONCE) --dist loadfile \
  --no-loadscope-reorder

.PHONY: help demo quick unit test check lint simulate cluster-check lock clean

help: ## list these targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1	\2/p' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## segment generated scenes, offline, in a minute or two
	@$(PY) -m job demo

quick: $(INSTALLED) ## lint, types and the tests that need no Ray and no S3, in two minutes
	@$(MAKE) --no-print-directory -j2 lint unit

unit: $(INSTALLED)
	@$(PYTEST) tests/unit

test: $(INSTALLED) ## run every test
	@$(PYTEST)

# As many schedules: make simulate SEEDS=100000
SEEDS ?= 1000

simulate: $(INSTALLED) ## play the rules of exactly one row through, with SEEDS=1000 schedules
	@SEEDS=$(SEEDS) $(PY) -m tests.simulation

check: lint test ## every check: lint, types, tests

lint: $(INSTALLED) ## ruff (lint and format), mypy, import-linter, docs/options.md
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-cache --no-logo
	@$(PY) -m docs.options --check

cluster-check: $(INSTALLED) ## look before `ray up`: AWS account, quotas, token, programs
	@$(PY) -m deploy.check $(CLUSTER)

# pip and not uv: pip's own configuration may name the torch build for this machine. No pip-sync
# either: with a CUDA torch it would remove the CUDA libraries, which no lock lists (`lock` says why).
$(INSTALLED): requirements.lock requirements-dev.lock $(wildcard pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed, and '$(PYTHON)' is not that." \
	    "Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@echo "Installing requirements-dev.lock into .venv (minutes the first time) ..."
	@$(PY) -m pip install -qq --disable-pip-version-check -r requirements-dev.lock
	@# The project itself, for scripts anywhere: nothing is fetched, the lock has all it needs, also
	@# setuptools.
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation \
	  --check-build-dependencies -e .
	@touch $@

# Keeps the versions that still fit. To raise them: make lock UPGRADE=--upgrade. Run it with the
# Python of the cluster's image (3.11).
# requirements.lock is what a node needs; requirements-dev.lock is that, at the same versions, and
# what a developer needs besides. Both pin setuptools, which torch depends on and the editable
# install builds with. pip is left out: it installs the rest. So are the CUDA packages of a GPU
# node: the torch of its platform pins each of them itself, to an exact version.
COMPILE := $(PY) -m piptools compile -q --strip-extras --no-header --no-emit-index-url \
  --no-emit-find-links --no-emit-trusted-host --no-emit-options --unsafe-package pip
# "+cpu" names one machine's build; the plain version takes each machine's own
ANY_BUILD := sed -i.bak -E 's/^(torch==[^+]+)\+.*/\1/'

lock: $(INSTALLED) ## rewrite both locks from pyproject.toml, and runtime_env.yaml's versions
	@$(COMPILE) $(UPGRADE) -o requirements.lock pyproject.toml
	@$(ANY_BUILD) requirements.lock
	@$(COMPILE) $(UPGRADE) --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml
	@$(ANY_BUILD) requirements-dev.lock
	@while IFS== read -r name _ version; do \
	  sed -i.bak -E "s/^( +- $$name(\[[a-z]+\])?==).*/\1$$version/" runtime_env.yaml; \
	done < <(grep -E '^[a-z0-9-]+==' requirements.lock)
	@digest=$$($(PY) -c 'import hashlib, pathlib; \
	  print(hashlib.sha256(pathlib.Path("requirements.lock").read_bytes()).hexdigest()[:12])') && \
	  sed -i.bak -E "s/# requirements.lock [0-9a-f]{12}/# requirements.lock $$digest/" \
	  runtime_env.yaml
	@rm -f requirements.lock.bak requirements-dev.lock.bak runtime_env.yaml.bak
	@git --no-pager diff --stat -- requirements.lock requirements-dev.lock runtime_env.yaml

clean: ## remove the environment, caches and what the demo wrote
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info demo-output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The everyday commands. `make` alone lists them.

VENV := .venv
python := $(VENV)/bin/python
stamps := $(VENV)/.runtime $(VENV)/.test

# What the caller has activated is not what the commands below run in.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV

# The first Python that is new enough and can make environments: the one named with PYTHON=..., else
# those on the path, pyenv's (whose commands only answer where their version is selected) and uv's.
candidates = $(or $(PYTHON),python3.12 python3.13 python3.14 python3 python \
    "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python "`uv python find --system '>=3.12'`")
suitable := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 12))
found_python = $(shell for candidate in $(candidates); do \
    "$$candidate" -c '$(suitable)' && echo "$$candidate" && break; done 2>/dev/null)
base_python = $(or $(found_python),$(error qjax needs Python 3.12 or newer with its venv module \
    and found none: install it, or name one as in: make demo PYTHON=path/to/python3.12))

# An environment whose set-up was interrupted, that lost its interpreter or packages, or that was
# moved here from another folder is made anew.
packages := "jax", "jaxlib", "flax", "optax", "orbax", "hydra", "tensorboardX", "sklearn"
sound := import os, pip, qjax, sys; from importlib.util import find_spec; \
    sys.exit(sys.version_info < (3, 12) or not all(map(find_spec, ($(packages)))) \
        or not os.path.samefile(os.path.dirname(qjax.__file__), "$(CURDIR)/qjax"))
environment := $(shell cd / && "$(CURDIR)/$(python)" -I -c '$(sound)' 2>/dev/null && echo sound)

# Compiling only what is imported, when it is imported, halves the set-up.
install := $(python) -m pip install -qq --disable-pip-version-check --no-compile

# A core each, a file of tests at a time, so that its compiled functions serve all of it.
side_by_side := -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test slow check format table clean anew

help:  ## list these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort | expand -t 10

demo: $(VENV)/.runtime  ## train PACT at 4 bits on the embedded digits, evaluate it as integers
	$(python) -m qjax.train +experiment=pact_w4a4

test: $(VENV)/.test  ## run the tests that take seconds
	$(python) -m pytest $(side_by_side) -m "not slow and not network"

slow: $(VENV)/.test  ## run the tests that take minutes
	$(python) -m pytest $(side_by_side) -m "slow and not network"

check: $(VENV)/.test  ## lint, formatting and types
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m pyright

format: $(VENV)/.test  ## put imports and layout in order
	$(python) -m ruff check --fix
	$(python) -m ruff format

table: $(VENV)/.runtime  ## rebuild every table and figure from its records
	$(python) -m qjax.table paper=all

clean:  ## remove the environment and the caches, keep what runs wrote
	rm -rf $(VENV) .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.test: extras := [test]
$(stamps): pyproject.toml constraints.txt
	@echo "Installing qjax$(extras) into $(VENV), which takes a minute or two"
	@$(install) -c constraints.txt -e '.$(extras)'
	@touch $@

ifndef environment
$(stamps): anew
endif

anew:
	@'$(base_python)' -m venv --clear $(VENV)

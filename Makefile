# Everything runs from .venv, which `make install` builds: `make demo` and `make test` need nothing before.
VENV ?= .venv
RUN = $(VENV)/bin/python
DEMO_FLAGS ?=
RESULTS_FLAGS ?=
TEST_WORKERS ?= 2
TEST_FLAGS ?= -n $(TEST_WORKERS) --dist=loadgroup --durations=10

# The first interpreter that is new enough and can make virtual environments. PYTHON=... overrides.
CANDIDATES = python3.11 python3.12 python3.13 python3
SUITABLE = import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in $(CANDIDATES); do \
	if "$$name" -c '$(SUITABLE)' >/dev/null 2>&1; then echo "$$name"; break; fi; done)

.PHONY: install test test-all lint format docs docs-serve notebook dist demo results clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
	@"$(PYTHON)" -c '$(SUITABLE)' >/dev/null 2>&1 || { \
		echo "error: Python 3.11, 3.12 or 3.13 with the venv module is needed, tried: $(or $(PYTHON),$(CANDIDATES))."; \
		echo "On Debian: apt install python3 python3-venv. Or name one: make install PYTHON=/path/to/python"; \
		exit 1; } >&2
	"$(PYTHON)" -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

# All but the tests marked `slow`, which take long and guard what seldom changes.
test: install
	TF_CPP_MIN_LOG_LEVEL=2 $(RUN) -m pytest -m "not slow" $(TEST_FLAGS)

test-all: install $(VENV)/.installed-docs
	TF_CPP_MIN_LOG_LEVEL=2 $(RUN) -m pytest $(TEST_FLAGS)

# Rules, format, and types: strict for what users import, see pyproject.toml.
lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: install
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

$(VENV)/.installed-docs: $(VENV)/.installed requirements-docs.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements-docs.txt
	touch $@

# The table of all settings and the figures, from the code, and the site, in site/. Only the installation uses a network.
docs: install $(VENV)/.installed-docs
	TF_CPP_MIN_LOG_LEVEL=3 $(RUN) -m tas_tf.cli.document docs/METHOD.md
	$(RUN) docs/tools/figures.py
	$(RUN) -m mkdocs build --strict

# Shows the site on http://127.0.0.1:8000, and builds it again when a page changes.
docs-serve: install $(VENV)/.installed-docs
	$(RUN) -m mkdocs serve

# examples/compress.ipynb of examples/compress.py, with its outputs: some minutes.
notebook: install
	$(RUN) docs/tools/notebook.py

# The wheel and the source distribution, in dist/, as an index takes them.
dist: install
	rm -rf dist
	$(RUN) -m build --no-isolation
	$(RUN) -m twine check --strict dist/*

demo: install
	$(RUN) -m trainers.pipeline --flagfile=flags/digits.cfg $(DEMO_FLAGS)

# Takes hours, see benchmarks/results.py. After an interruption, the same command continues.
results: install
	$(RUN) -m benchmarks.results $(RESULTS_FLAGS)

clean:
	rm -rf $(VENV) build dist site *.egg-info .hypothesis .ruff_cache .mypy_cache

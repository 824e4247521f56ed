PYTHON ?= python3.11
VENV ?= .venv
RUN = $(VENV)/bin/python
TEST_WORKERS ?= 2

.PHONY: install test lint format demo clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -r requirements.txt
	touch $@

test: install
	TF_CPP_MIN_LOG_LEVEL=2 $(RUN) -m pytest -n $(TEST_WORKERS) --durations=15

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: install
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

demo: install
	$(RUN) -m trainers.pipeline --flagfile=flags/digits.cfg

clean:
	rm -rf $(VENV) runs

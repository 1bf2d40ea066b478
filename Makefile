# make demo: set-up and a run that ends in a report.  make test: set-up and the suite;
# make test-all: with its variants (other stops, other numbers of devices).
# Both work without network once the environment is made.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO = runs/simclr_digits

.PHONY: demo test test-all lint clean

demo: $(VENV)/installed
	$(BIN)/python train.py configs/simclr_digits.py --dir $(DEMO)
	$(BIN)/python eval.py $(DEMO)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-all: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -m '' $(ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jaxcl needs Python 3.11 or newer; make PYTHON=python3.12 ..."; exit 1; }
	@echo 'making $(VENV): a minute or two, about 1.5 GB'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .jax_cache .pytest_cache .mypy_cache .ruff_cache

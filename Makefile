# make demo: set up and run the pipeline on the embedded default; make test: set up and pass the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test install
install: .venv/.installed

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --progress-bar off -e '.[all,dev]'
	touch $@

demo: install
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro

test: install
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q

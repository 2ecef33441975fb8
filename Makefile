# make demo: set up and run the pipeline on the embedded default; make test: set up and pass the tests;
# make test-engines: whole runs of more models, methods and engines than each commit needs;
# make test-faults: the campaign of bad inputs and killed processes, which says how many were tried and came out right;
# make test-architectures: every method on a tiny model of every family (hours), which writes docs/architectures.md.
PYTHON ?= python3
BIN := .venv/bin
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: demo test test-engines test-faults test-architectures lint install
install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --progress-bar off -c constraints.txt -e '.[all,dev]'
	touch $@

demo: install
	$(RUN) dvc repro
	@$(RUN) quantlab report --model smollm2

test: install
	OMP_WAIT_POLICY=passive $(RUN) python -m pytest -n 2 --dist loadfile

test-engines: install
	OMP_WAIT_POLICY=passive $(RUN) python -m pytest -m engines

test-faults: install
	OMP_WAIT_POLICY=passive $(RUN) python -m pytest tests/faults -m faults

test-architectures: install
	OMP_WAIT_POLICY=passive $(RUN) python benchmarks/architectures.py run
	$(RUN) python benchmarks/architectures.py write

lint: install
	$(RUN) ruff check quantlab tests
	$(RUN) ruff format --check quantlab tests
	$(RUN) mypy

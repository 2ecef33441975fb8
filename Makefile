# make demo: set up and run the pipeline on the embedded default; make test: set up and pass the tests;
# make test-engines: whole runs of more models, methods and engines than each commit needs;
# make test-faults: the campaign of bad inputs and killed processes, which says how many were tried and came out right;
# make test-architectures: every method on a tiny model of every family (hours), which writes docs/architectures.md.
# llama.cpp is built with CUDA where nvcc and NVIDIA's driver are here, and a line says so; QUANTLAB_CUDA=on builds it
# without a GPU (as in an image), QUANTLAB_CUDA=off never. UV=uv installs with uv, which reads no configuration of pip's.
PYTHON ?= python3
BIN := .venv/bin
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
PIP := $(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/pip install --progress-bar off) -c constraints.txt

.PHONY: demo test test-engines test-faults test-architectures lint install
install: .venv/.installed

# A wheel of llama.cpp that pip built before may be one without CUDA or with AMX (which GCC breaks): where the build takes
# arguments it is made afresh, before the rest.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@args="$$($(PYTHON) quantlab/environments/llama_build.py)" && if [ -n "$$args" ]; then \
	  echo "CMAKE_ARGS='$$args' $(PIP) --no-cache-dir llama-cpp-python" && \
	  CMAKE_ARGS="$$args" $(PIP) --no-cache-dir llama-cpp-python; fi
	$(PIP) -e '.[all,dev]'
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

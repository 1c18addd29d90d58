# PetStream. `make demo` and `make test` do all their own set-up; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements.lock
COMPILED := gpu_ops/compiled
COMPILED_STAMP := $(VENV)/.compiled
ROWS := .petstream/rows
ORACLES := .venv-oracles
ORACLES_STAMP := $(ORACLES)/.installed
ORACLES_LOCK := tests/oracles/requirements.lock
PEERS := .venv-bench
PEERS_STAMP := $(PEERS)/.installed
PEERS_LOCK := benchmarks/environments/peers.lock

.PHONY: help setup demo test test-races check bench bench-env bench-gpu lock tasks oracle-env test-oracles oracles clean
.DEFAULT_GOAL := help

help:            ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(STAMP) $(COMPILED_STAMP) ## the virtual environment, from the hashed lock, and compiled operators

$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
		|| { echo "make: PetStream needs Python 3.11 to 3.13 as '$(PYTHON)'; name another with make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
		|| { echo "make: '$(PYTHON) -m venv' failed: install the venv module (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[0-9.]*\).*/\1/p' $(LOCK))"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes $(LOCK)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --editable .
	@touch $@

# Without a C++ compiler this says so and all else works.
$(COMPILED_STAMP): $(wildcard $(COMPILED)/*.cpp $(COMPILED)/*.h $(COMPILED)/build.py) | $(STAMP)
	$(BIN)/python -m gpu_ops.compiled.build
	@touch $@

demo: $(STAMP) $(COMPILED_STAMP) ## a real Kafka, eight real tasks, real answers, a table
	$(BIN)/petstream demo

test: $(STAMP)   ## every test, real broker included
	$(BIN)/petstream models fetch
	@# One thread to a process: side by side, more of them only wait for each other. Hundreds of processes
	@# import the same libraries: they find bytecode, also where the environment has Python write none.
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --durations 20

test-races: $(STAMP) ## the emulated kernels under ThreadSanitizer (nightly: minutes)
	$(BIN)/python -m pytest -m races --durations 0 tests/gpu_ops/emulator

check: $(STAMP)  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) $(COMPILED_STAMP) ## every benchmark that needs no GPU, one JSON document each: make bench > bench.json (half an hour)
	@$(BIN)/petstream models fetch >&2
	@$(BIN)/petstream bench engine --json
	@for script in $(filter-out benchmarks/bench_gpu.py,$(wildcard benchmarks/bench_*.py)); do $(BIN)/python $$script --json || exit 1; done

bench-env: $(PEERS_STAMP) $(ORACLES_STAMP) ## the environments of what `petstream bench engine` compares with (11 GB)

$(PEERS_STAMP): $(PEERS_LOCK) | $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(PEERS)
	$(BIN)/uv pip sync --quiet --python $(PEERS)/bin/python --require-hashes $(PEERS_LOCK)
	@touch $@

bench-gpu: $(STAMP) ## the kernels' tests and their benchmark, on a CUDA device
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r deploy/gpu.lock
	REQUIRE_GPU=1 $(BIN)/python -m pytest -m gpu tests/gpu_ops tests/workers
	$(BIN)/python benchmarks/bench_gpu.py --json

tasks: $(STAMP)  ## train and calibrate the example tasks again: make tasks PETSTREAM_DATA=/path/to/data (two hours)
	$(BIN)/petstream models fetch minilm-l3 minilm-l6
	$(BIN)/python examples/prepare_data.py --out $(ROWS)
	$(BIN)/python examples/train_tasks.py --rows $(ROWS)
	cp $(ROWS)/splits.json examples/splits.json

oracle-env: $(ORACLES_STAMP) ## the environment of the library that `make oracles` asks (5 GB)

$(ORACLES_STAMP): $(ORACLES_LOCK) | $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(ORACLES)
	$(BIN)/uv pip sync --quiet --python $(ORACLES)/bin/python --require-hashes $(ORACLES_LOCK)
	@touch $@

test-oracles: $(ORACLES_STAMP) ## the library still answers its goldens, and we answer them too
	$(ORACLES)/bin/python -m tests.oracles.ask_library_again
	$(BIN)/python -m pytest --numprocesses auto tests/oracles tests/tasks/importers

oracles: $(ORACLES_STAMP) ## write the golden checkpoints of tests/oracles again (minutes)
	$(ORACLES)/bin/python -m tests.oracles.write_adapter_goldens

lock:            ## renew the hashed lock
	$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --upgrade uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--upgrade --extra worker --extra broker --group dev pyproject.toml --output-file $(LOCK)

clean:           ## the virtual environments and every cache in this folder
	rm -rf $(VENV) $(ORACLES) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

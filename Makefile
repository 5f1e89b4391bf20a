# Each target makes its own .venv when there is none: `make demo` and `make test` are all that a clone needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most of a suite's time is one thread's: tracing, compiling, dispatch. Each worker is a process of about 1 GiB.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# Where each suite leaves the CPU seconds of its tests.
DURATIONS := build/durations

.PHONY: demo test test-all test-backends test-other-kernels test-slow check format catalogue smoke bench reproduce clean

demo: $(VENV)/.examples $(VENV)/.serve
	$(BIN)/python examples/image_classification.py
	$(BIN)/python examples/predict.py saved_models/digits
	$(BIN)/python examples/serve.py saved_models

test: $(VENV)/.dev
	$(PYTEST) -m "not slow and not integration" --cpu-durations=$(DURATIONS)/test.txt

test-all: $(VENV)/.dev
	$(PYTEST) --cpu-durations=$(DURATIONS)/tensorflow.txt

# The parts that know no framework, on the other two backends. JAX spends its time compiling thousands of small
# programs that run once: unoptimized, they take 0.6 of it; by XLA's older emitters, without MLIR's, two thirds of that.
# What one worker compiled the others take from the cache, and more than half the next time.
JAX_FAST := JAX_ENABLE_X64=1 JAX_DISABLE_MOST_OPTIMIZATIONS=1 \
	XLA_FLAGS="--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
JAX_CACHE := JAX_COMPILATION_CACHE_DIR=$(CURDIR)/build/jax-cache JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
	JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
test-backends: $(VENV)/.dev $(VENV)/.backends
	KERAS_BACKEND=jax $(JAX_FAST) $(JAX_CACHE) \
		$(PYTEST) -m "not slow and not tensorflow and not integration" --cpu-durations=$(DURATIONS)/jax.txt tests
	KERAS_BACKEND=torch $(PYTEST) -m "not slow and not tensorflow and not integration" --cpu-durations=$(DURATIONS)/torch.txt tests

# TensorFlow has two sets of CPU kernels, oneDNN's and its own, and the processor decides which is the default. `check`
# runs all tests on the first, and on the second these, which run convolutions, matrix products and statistics. Those of
# dear.txt stay out: they are whole models, steps of optimizers, and parameters of tests that run here with others.
NUMERIC := tests/calibration/test_calibrate.py tests/calibration/test_every_layer.py tests/calibration/test_laws.py \
	tests/calibration/test_range.py tests/diagnostics/test_diagnose.py tests/initializers/test_convolutional.py \
	tests/initializers/test_layers.py tests/strategies/test_true_fans.py tests/test_probe.py tests/test_recurrence.py
test-other-kernels: $(VENV)/.dev
	TF_ENABLE_ONEDNN_OPTS=0 INITX_TEST_THREADS=all $(PYTEST) -m "not slow and not integration" \
		--cpu-durations=$(DURATIONS)/other-kernels.txt $(NUMERIC)

test-slow: $(VENV)/.dev
	$(PYTEST) -m slow

# With the other backends there from the start, no test that compares with them is skipped.
check: $(VENV)/.dev $(VENV)/.backends
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	TF_ENABLE_ONEDNN_OPTS=1 $(MAKE) test-all
	$(MAKE) test-other-kernels test-backends

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What `initx list` and `initx show` read. A test fails while it does not match the code.
catalogue: $(VENV)/.dev
	$(BIN)/python -c "from _initx_command._catalogue import write; write()"

# The wheel alone, in an environment and a folder that know nothing of this clone.
smoke: $(VENV)/.dev
	rm -rf build/smoke && $(BIN)/python -m build --wheel --outdir build/smoke .
	$(PYTHON) -m venv build/smoke/venv
	build/smoke/venv/bin/python -m pip install --quiet build/smoke/*.whl
	cp .ci/smoke.py build/smoke && cd build/smoke && venv/bin/python -I smoke.py

bench: $(VENV)/.dev $(VENV)/.backends
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/command_line.py
	$(BIN)/python benchmarks/calibrate.py
	$(BIN)/python benchmarks/calibrate_depth.py
	$(BIN)/python benchmarks/calibrate_lsuv.py
	$(BIN)/python benchmarks/initializers.py
	$(BIN)/python benchmarks/initialize.py
	$(BIN)/python benchmarks/rates.py
	$(BIN)/python benchmarks/from_model.py
	$(BIN)/python benchmarks/adapters.py
	$(BIN)/python benchmarks/coordinates.py
	$(BIN)/python benchmarks/signal_by_depth.py
	$(BIN)/python benchmarks/signal_diagnose.py
	$(BIN)/python benchmarks/signal_histograms.py
	$(BIN)/python benchmarks/uses.py
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/compare.py
	$(BIN)/python benchmarks/serve.py
	KERAS_BACKEND=jax $(BIN)/python benchmarks/gpu.py

# Each writes its row of docs/reproduced.md within ten minutes; one that fails to run does not keep the rest from it.
reproduce: $(VENV)/.examples
	@failed=; for script in $(filter-out %/claim.py,$(sort $(wildcard examples/reproduce/*.py))); do \
		echo "== $$script"; $(BIN)/python $$script || failed="$$failed $$script"; \
	done; test -z "$$failed" || { echo "could not run:$$failed"; exit 1; }

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

# .venv/.NAME says that the extra NAME of pyproject.toml is installed.
$(VENV)/.%: pyproject.toml setup.cfg
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	# As a path, not by a finder: a clone's folder of the package's name would come before that.
	$(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --editable '.[$*]'
	touch $@

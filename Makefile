# The two commands of the README, and what continuous integration runs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
# Where a torch without CUDA comes from, for vLLM on a CPU; empty: wherever pip looks anyway.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
BIN := $(VENV)/bin
export GRADIO_ANALYTICS_ENABLED := False
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help run test test-all lint mini vllm-venv clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-tests: tests/requirements.txt $(VENV)/installed
	$(BIN)/python -m pip install --disable-pip-version-check -r tests/requirements.txt
	touch $@

run: $(VENV)/installed ## install and open the studio on http://127.0.0.1:7860
	$(BIN)/python app.py

test: $(VENV)/installed-tests ## install and run the tests (under five minutes; browser tests where there is Chromium)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(VENV)/installed-tests ## every test, the slow ones too
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m ""

lint: $(VENV)/installed-tests ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mini: $(VENV)/installed ## make the shipped base model again (about two hours on one core)
	$(BIN)/python -m training.mini

vllm-venv: .venv-vllm/installed ## install vLLM for CPUs beside the studio, for the tests on real servers (3.4 GB)

.venv-vllm/installed: tests/vllm-requirements.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --disable-pip-version-check -r tests/vllm-requirements.txt \
		$(if $(TORCH_CPU_INDEX),--extra-index-url $(TORCH_CPU_INDEX))
	.venv-vllm/bin/python -m pip uninstall --disable-pip-version-check -y torchvision torchaudio torchcodec
	touch $@

clean: ## remove the virtual environment and caches (never the data folder)
	rm -rf $(VENV) .venv-vllm .pytest_cache .mypy_cache .ruff_cache .hypothesis

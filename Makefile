# make run     install the core into .venv, serve the pages and open them
# make test    install everything the tests need and run them
# make lint    style, types, import order, and the C compiler's warnings
# make bench   speeds, beside the limits of this machine and llama.cpp where llama-cpp-python is installed
# make sanitize   the C tests under the address, undefined-behaviour and thread sanitizers

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
WARNINGS := -std=c11 -O2 -Wall -Wextra -pedantic -Werror

.PHONY: run test lint bench sanitize clean
.DEFAULT_GOAL := run

run: $(VENV)/core.stamp
	@$(BIN)/twofile serve --open

test: $(VENV)/dev.stamp
	@tests/system.sh
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@for cc in gcc clang; do if command -v $$cc >/dev/null; then for flags in "" "-march=native"; do \
		for file in "twofile/run.c" "-fPIC -DTF_LIBRARY twofile/run.c" "twofile/evaluate/limits.c"; do \
			echo "$$cc $(WARNINGS) $$flags $$file"; \
			$$cc $(WARNINGS) $$flags -c $$file -o /dev/null || exit 1; \
		done; \
	done; fi; done

bench: $(VENV)/core.stamp
	$(BIN)/python bench/speed.py

sanitize: $(VENV)/core.stamp
	tests/c/run.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis tests/c/.work

# A stamp is newer than what it was made from, so that a second `make` starts at once.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("twofile needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/core.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[train,tools,dev]'
	@touch $@ $(VENV)/core.stamp

# A thin door to packaging/bootstrap.py, which sets up all that is needed and then runs it.
PYTHON ?= python3

.PHONY: help demo test lint clean

help:
	@echo "make demo    open Trimtab on its demo models (without a display: leave the results in demo-output/)"
	@echo "make test    check style, types and imports, then run every test"
	@echo "make lint    the checks of make test without the tests"
	@echo "make clean   remove .venv, caches, builds and demo-output"

demo test lint:
	@$(PYTHON) packaging/bootstrap.py $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .grimp_cache .hypothesis build dist demo-output

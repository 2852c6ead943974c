# `python3 -m avdata.bootstrap` makes .venv; these targets use it when it is there.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,$(shell command -v python3))

.PHONY: check lint types test demo

check: lint types

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

# Checkers follow files, not import hooks: link the packages to where their import name says.
types:
	mkdir -p build/types/avdata
	for part in encoders pipeline trainer jobs; do ln -sfn ../../../$$part build/types/avdata/$$part; done
	for file in avdata/*; do ln -sfn ../../../$$file build/types/$$file; done
	ln -sfn ../../tests build/types/tests
	cd build/types && $(abspath $(PYTHON)) -m mypy --config-file ../../pyproject.toml -p avdata -p tests

test:
	$(PYTHON) -m pytest

demo:
	$(PYTHON) -m avdata.jobs.cli demo out/demo

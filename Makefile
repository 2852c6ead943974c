# `python3 -m avdata.bootstrap` makes .venv; these targets use it when it is there.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,$(shell command -v python3))

.PHONY: check lint types test demo

check: lint types

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

# Not shard_readers, which is made of peers, and not time, which has the name of a standard module.
TYPED := alike contacts dedup encode_cost ingest_cost labels loader loader_energon loader_peers loader_start \
    long_sources many_sources motion overfit roundtrip select_rows shots step_time train_pace

# Checkers follow files, not import hooks: link the packages to where their import name says.
types:
	mkdir -p build/types/avdata
	for part in encoders pipeline trainer jobs; do ln -sfn ../../../$$part build/types/avdata/$$part; done
	for file in avdata/*; do ln -sfn ../../../$$file build/types/$$file; done
	ln -sfn ../../tests build/types/tests
	for name in $(TYPED); do ln -sfn ../../benchmarks/$$name.py build/types/$$name.py; done
	cd build/types && $(abspath $(PYTHON)) -m mypy --config-file ../../pyproject.toml -p avdata -p tests $(TYPED:%=-m %)

test:
	$(PYTHON) -m pytest

demo:
	$(PYTHON) -m avdata.jobs.cli demo out/demo

# setup   install what is missing: Debian packages, and a virtual environment in .venv
# demo    set up, then show the main job: our daemon and the real ecryptfsd on the device
# test    set up, then run all tests
# check   set up, then the linter, the formatter's opinion and the type checker
# bench   set up, then compare the transports side by side
.PHONY: setup demo test check bench

PYTHON ?= python3
python := .venv/bin/python

setup: .venv/complete

.venv/complete: tools/setup tools/debian-packages requirements.lock pyproject.toml
	@PYTHON=$(PYTHON) tools/setup
	@touch $@

demo: setup
	@$(python) -m tools.demo

test: setup
	$(python) -m pytest $(ARGS)

check: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

bench: setup
	@$(python) -m bench $(ARGS)

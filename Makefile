# setup        install what is missing: Debian packages, and a virtual environment in .venv
# demo         set up, then show the main job: our daemon and the real ecryptfsd on the device
# test         set up, then run all tests
# test-kernel  set up, then the conformance cases on a real kernel's device, in a virtual machine
# check        set up, then the linter, the formatter's opinion and the type checker
# bench        set up, then compare the transports, and a C program on libfuse, side by side
.PHONY: setup demo test test-kernel check bench

# Debian's own, because other users, as whom the tests act, must be able to run it.
PYTHON ?= /usr/bin/python3
python := .venv/bin/python

setup: .venv/complete

.venv/complete: tools/setup tools/debian-packages requirements.lock pyproject.toml
	@PYTHON=$(PYTHON) tools/setup
	@touch $@

demo: setup
	@$(python) -m tools.demo

test: setup
	$(python) -m pytest $(ARGS)

test-kernel: setup
	@tools/kernel-vm -t 900 -- $(python) -m pytest tests/conformance --system=kernel \
		-p no:cacheprovider -p no:hypothesispytest $(ARGS)

check: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

bench: setup
	@$(python) -m bench $(ARGS)

# setup        install what is missing: Debian packages, and a virtual environment in .venv
# demo         set up, then show the main job: our daemon and the real ecryptfsd on the device
# test         set up, then run all tests
# test-kernel  set up, then in a virtual machine, on a real kernel's device: our daemon under eCryptfs
#              mounts, and the conformance cases
# check        set up, then the linter, the formatter's opinion and the type checker
# fuzz         set up, then feed the daemon's parsers what nobody would think of, for a minute
# soak         set up, then let many users do their worst on one device, for MINUTES=10
# bench        set up, then compare the transports, and a C program on libfuse, side by side
# man          set up, then write the commands' manual pages into build/man
.PHONY: setup demo test test-kernel check fuzz soak bench man

# Debian's own, because other users, as whom the tests act, must be able to run it.
PYTHON ?= /usr/bin/python3
python := .venv/bin/python

setup: .venv/complete

.venv/complete: tools/setup tools/debian-packages requirements.lock pyproject.toml
	@PYTHON=$(PYTHON) tools/setup
	@touch $@

demo: setup
	@$(python) -m tools.demo

# In two processes, each in a mount namespace of its own. Tests of one file stay together: they
# share what is mounted. ARGS="-n 0" for one process, as a debugger wants.
test: setup
	$(python) -m pytest -n 2 --dist loadfile $(ARGS)

test-kernel: setup
	@tools/kernel-vm -t 1800 -- $(python) -m pytest tests/kernel tests/conformance --system=kernel \
		-p no:cacheprovider -p no:hypothesispytest $(ARGS)

check: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

# Of options given twice, the last counts.
fuzz: setup
	@$(python) -m fuzz -max_total_time=60 $(ARGS)

MINUTES ?= 10

soak: setup
	@$(python) -m soak --minutes $(MINUTES) $(ARGS)

bench: setup
	@$(python) -m bench $(ARGS)

man: setup
	@$(python) -m tools.man build/man

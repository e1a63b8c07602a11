# The two commands of the README are `make demo` and `make test`; CI runs the second one, nothing else.
# Everything lives in .venv: delete the folder to start again. A second run installs nothing.

VENV ?= .venv
PY := $(VENV)/bin/python
# Many tests wait for other programs: two processes nearly halve the time, also on two cores.
TEST_PROCESSES ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check interop crash bench validate format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo ## install, then send sample radiographs through a router and show what arrives
	@$(VENV)/bin/router demo

test: $(VENV)/.installed-test ## install what the tests need (on Debian and Ubuntu as root: real peers, too) and run them all
	@scripts/install-peers.sh
	@$(PY) -m pytest -q --durations=15 -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed-test ## style, types, import contracts, then the tests that need no other program
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports
	@$(PY) -m pytest -q -m "not peer and not slow"

interop: $(VENV)/.installed-test ## only the tests against Orthanc, dcmtk and dicom3tools
	@scripts/install-peers.sh
	@$(PY) -m pytest -q -m peer --durations=15

crash: $(VENV)/.installed-test ## kill the router at work 200 times, cut its power 20 times, and look for what is missing
	@scripts/install-peers.sh
	@$(PY) -m tests.crash $(CRASH)

bench: $(VENV)/.installed-test ## timings side by side with other programs; GROUPS="receive send", BENCH="--quick" or "--publish"
	@scripts/install-peers.sh
	@$(PY) -m bench $(GROUPS) $(BENCH)

validate: $(VENV)/.installed-test ## our reports of all sample files before four validators; VALIDATE="--pixelmed --publish"
	@scripts/install-peers.sh
	@$(PY) -m bench.validators $(VALIDATE)

format: $(VENV)/.installed-test ## lay out the code and mend what ruff can mend
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

clean: ## remove .venv, caches and what demo and tests wrote
	rm -rf $(VENV) build *.egg-info demo-output test-artifacts .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The project is installed so that the files of this folder are the ones that run: changing them needs no new installation.
# A node needs no PyTorch (docs/lean.md); the demo's real radiographs are those of pydicom-data.
$(VENV)/.installed-demo: pyproject.toml requirements/lean.txt scripts/install.sh
	@scripts/install.sh $(VENV) -r requirements/lean.txt pydicom-data
	@scripts/install.sh $(VENV) --no-deps -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml scripts/install.sh
	@echo "The tests compare with PyTorch, which is several GB the first time."
	@scripts/install.sh $(VENV) -e ".[test,postgresql]"
	@touch $@ $(VENV)/.installed-demo

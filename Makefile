# Each target does its own set-up: a fresh clone and `make test` is enough.

PYTHON ?= python3
PREFIX ?= /usr/local
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup test fuzz lint fmt docs demo bench peers install uninstall clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with the project and its tools in it

test: $(STAMP) ## run the tests (as root, for those which ask the kernel and btrfs-progs)
	$(BIN)/pytest $(ARGS)

fuzz: $(STAMP) ## check tens of thousands of images damaged at random (ARGS="-k superblocks": only some kinds)
	COW_HYPOTHESIS=fuzz $(BIN)/pytest --timeout 0 -q tests/fsck_cow/test_fuzz.py $(ARGS)

lint: $(STAMP) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: $(STAMP) ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## write manual pages and completions of shells anew, from the options of the commands
	$(BIN)/python -m scripts.pages
	$(BIN)/python -m tests.fsck_cow.test_readme

demo: $(STAMP) ## format a loop device, fill it, mount it, look at it (DEMO_TREE=DIR: fill it from there)
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo.sh $(DEMO_TREE)

bench: $(STAMP) ## compare time and memory with btrfs-progs (BENCH_TREE, BENCH_DIR, RUNS; BENCH_SCALE=1: a million files too)
	$(BIN)/python -m scripts.bench $(ARGS)

peers: $(STAMP) ## run btrfs-progs' tests with our commands, as root (PEERS=DIR: its source tree, built)
	@test -n "$(PEERS)" || { echo "which source tree of btrfs-progs? make peers PEERS=DIR" >&2; exit 1; }
	$(BIN)/python -m scripts.peers $(ARGS) $(PEERS)

install: ## install for everybody, as root (PREFIX=/usr/local; PIP_CONSTRAINT=constraints.txt: as it was tested)
	PYTHON="$(PYTHON)" scripts/install.sh "$(PREFIX)"

uninstall: ## take that away again
	scripts/install.sh --remove "$(PREFIX)"

clean: ## remove .venv and everything made
	rm -rf $(VENV) .venv-* build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: name another with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: on Debian, apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[dev]'
	@touch $@

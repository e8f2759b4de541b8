# Every command people and CI use. CI calls only these.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 20
HOURS ?= 12
STORE ?= memory
NODES ?= 4
ONLY ?=
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup demo test test-releases verify bench simulate dev-slurm dev-slurm-down docs proto golden pictures

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.ready  ## make .venv with everything llmop and its tests import

$(VENV)/.ready: pyproject.toml hack/setup-venv
	hack/setup-venv "$(PYTHON)" $(VENV) $(if $(ASKED),asked)

# Whoever names a Python gets it, whatever .venv was made with.
ASKED := $(filter command environment,$(origin PYTHON))
ifneq ($(ASKED),)
.PHONY: $(VENV)/.ready
endif

demo: setup  ## the main job on this machine; KEEP=1 leaves it up
	$(BIN)/python hack/demo $(if $(KEEP),--keep)

test: setup  ## all tests; installs what they need on Debian and Ubuntu as root
	hack/test

test-releases: setup  ## the drivers and the main path on newer Slurms (root on Debian)
	hack/test-releases

verify: setup  ## lint, types, architecture, generated code, docs
	hack/verify

bench: setup  ## measure against yardsticks; ONLY=name for one
	$(BIN)/python hack/bench $(ONLY)

simulate: setup  ## deterministic simulation; SEEDS=n HOURS=h STORE=memory|sqlite
	$(BIN)/python hack/simulate $(SEEDS) $(HOURS) $(STORE)

dev-slurm: setup  ## a private real Slurm of NODES nodes with fake GPUs (root on Debian or Ubuntu)
	hack/install-slurm
	hack/dev-slurm up --nodes $(NODES)

dev-slurm-down: setup  ## end it
	hack/dev-slurm down

docs: setup  ## regenerate the generated pages
	hack/update-docs.sh

proto: setup  ## regenerate the stubs of the control API
	hack/update-proto.sh

golden: setup  ## rewrite the golden files of the tests
	UPDATE_GOLDEN=1 $(BIN)/pytest -q tests/integration/cli tests/unit/runtimes

pictures: setup  ## take the pictures of the chat page anew (Chromium)
	UPDATE_PICTURES=1 $(BIN)/pytest -q tests/integration/page

# Every command people and CI use. CI calls only these.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.ready  ## make .venv with everything llmop and its tests import

$(VENV)/.ready: pyproject.toml hack/setup-venv
	hack/setup-venv "$(PYTHON)" $(VENV)

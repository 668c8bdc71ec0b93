# make demo and make test are all a newcomer needs; each installs what is missing into .venv first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help install demo demo-vlm demo-violet demo-lavender demo-merlot demo-reserve test test-fast test-slurm lint format typecheck bench docs docs-pages clean python slurm-packages

# The first Python that does: 3.11 or 3.12, with venv and headers. `make PYTHON=/path/to/python3.11 install` names another.
USABLE := import ensurepip, os, sys, sysconfig; \
    sys.exit(not ((3, 11) <= sys.version_info[:2] < (3, 13) and os.path.exists(sysconfig.get_path("include") + "/Python.h")))
ifndef PYTHON
PYTHON := $(firstword $(foreach name,python3.11 python3.12 python3,$(shell $(name) -c '$(USABLE)' >/dev/null 2>&1 && echo $(name))))
endif
BIN := .venv/bin
DEMO_REPORT := runs/demo/report.html
SLURM_PACKAGES := slurmctld slurmd slurm-client munge

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/\1:/p' Makefile | while IFS=: read -r target text; do printf '  make %-13s %s\n' "$$target" "$$text"; done

install:  ## create .venv with the pinned requirements; does nothing if that is done
	@if [ -z '$(PYTHON)' ]; then \
	    echo 'error: no Python 3.11 or 3.12 with venv and headers was found. On Debian and Ubuntu:' >&2; \
	    echo '  sudo apt-get install -y git make g++ python3.11 python3.11-dev python3.11-venv' >&2; exit 1; fi
	@'$(PYTHON)' scripts/setup/install.py

demo: install  ## from generated videos to a table of results, on the CPU
	@$(BIN)/python locallaunch.py projects/demo.yaml
	@echo "The report: $(CURDIR)/$(DEMO_REPORT)"

demo-vlm: install  ## VLM on the same generated videos, on the CPU
	@$(BIN)/python locallaunch.py projects/demo_vlm.yaml
	@echo "The report: $(CURDIR)/runs/demo_vlm/report.html"

demo-violet: install  ## VIOLET on short clips that it generates, on the CPU
	@$(BIN)/python locallaunch.py projects/demo_violet.yaml
	@echo "The report: $(CURDIR)/runs/demo_violet/report.html"

demo-lavender: install  ## LAVENDER on the same short clips, on the CPU
	@$(BIN)/python locallaunch.py projects/demo_lavender.yaml
	@echo "The report: $(CURDIR)/runs/demo_lavender/report.html"

demo-merlot: install  ## MERLOT on stories with a narrator that it renders, on the CPU
	@$(BIN)/python locallaunch.py projects/demo_merlot.yaml
	@echo "The report: $(CURDIR)/runs/demo_merlot/report.html"

demo-reserve: install  ## MERLOT Reserve on the same stories and their sound, on the CPU
	@$(BIN)/python locallaunch.py projects/demo_reserve.yaml
	@echo "The report: $(CURDIR)/runs/demo_reserve/report.html"

test: install  ## every test, the slow ones too, but those of test-slurm
	@$(BIN)/python -m pytest -m 'not slurm' -n 3 --dist loadfile --no-loadscope-reorder

test-fast: install  ## the tests that take no more than a few seconds each
	@$(BIN)/python -m pytest

test-slurm: install slurm-packages  ## a Slurm cluster of two nodes on this machine, and projects on it
	@MMPT_REQUIRE_SLURM=1 $(BIN)/python -m pytest -m slurm -v -rP --durations 0 tests/slurm

slurm-packages:
	@PATH="$$PATH:/usr/sbin"; type slurmctld slurmd sbatch munged >/dev/null 2>&1 && exit 0; \
	    if ! command -v apt-get >/dev/null || [ "$$(id -u)" != 0 ]; then \
	        echo 'error: Slurm and munge are missing. On Debian and Ubuntu:' >&2; \
	        echo '  sudo apt-get install -y --no-install-recommends $(SLURM_PACKAGES)' >&2; exit 1; fi; \
	    apt-get update -q && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $(SLURM_PACKAGES)

lint: install  ## style, formatting and the import floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

format: install  ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: install  ## check the types of mmpt/
	$(BIN)/mypy

bench: install  ## our speed and memory against a naive way, in one table; BENCH="--quick" or names of works
	@$(BIN)/python scripts/benchmarks/run.py $(BENCH)

docs: install  ## the site of the documentation, in docs/_build/html
	@$(BIN)/python -m sphinx -W --keep-going -q -j 2 -b html -c docs . docs/_build/html
	@echo "The site: $(CURDIR)/docs/_build/html/index.html"

docs-pages: install  ## write the pages that are made from the code: commands, calls, keys, names
	$(BIN)/python -m mmpt_cli.main help --markdown > docs/_command_line.md && mv docs/_command_line.md docs/command_line.md
	$(BIN)/python scripts/docs/capabilities.py
	$(BIN)/python scripts/docs/configuration_reference.py

clean:  ## remove .venv and caches; data/, runs/ and pretrained_models/ stay
	rm -rf .venv build docs/_build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

python:
	@echo '$(PYTHON)'

# Every target does its own set-up: `make demo` and `make test` work in a fresh clone on a machine
# with Python 3.11 to 3.13 (on Debian: python3 and python3-venv) and make.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test
RUN := $(VENV)/bin/python

# XLA's CPU programs allocate much memory at every step. It costs less in huge pages, and if it is
# kept for the next step: an image of 1024 px takes two thirds of the time. glibc reads this when a
# process starts.
KEPT := glibc.malloc.mmap_threshold=8589934592:glibc.malloc.trim_threshold=17179869184
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:$(KEPT)

# CelebAMask-HQ (images/, masks/), where it is at hand: the demo is then evaluated on it.
export CELEBAMASK_HQ ?= $(firstword $(wildcard data/celebamask_hq ../shared/data/celebamask_hq))

.PHONY: demo test bench docs clean

## From ten labelled faces to a segmenter and runs/face/report.html; what is done is skipped.
demo: weights/face
	$(RUN) -m repgan_jax.main --config=configs/face.py

## Style, types, then all tests, with their coverage. EXTRAS=test,reference adds PyTorch to compare with.
test: $(VENV)/installed-$(EXTRAS)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pytest --cov --numprocesses=2 --dist=loadfile  # a test uses little more than a core

## Times and memory beside PyTorch and OpenVINO, into docs/performance.md: a quarter of an hour.
# For one program at a time: all threads keep memory together, which commands of several would not
# give back.
bench: export GLIBC_TUNABLES := $(GLIBC_TUNABLES):glibc.malloc.arena_max=1
bench: $(VENV)/installed-bench weights/face
	$(RUN) -m benchmarks.performance --write

## The documentation, from docs/*.md and the docstrings, into docs/_build/html.
docs: $(VENV)/installed-docs
	$(RUN) -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

## Takes away what the targets above installed or cached; weights/ and runs/ stay.
clean:
	rm -rf $(VENV) build docs/_build *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

weights/face: | $(VENV)/installed
	$(RUN) -m repgan_jax.converters.mobilestylegan $@

# Stamps: set up again when the dependencies change, or when the last time was interrupted.
$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-%: $(VENV)/installed
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	touch $@

# Every target does its own set-up: `make demo` and `make test` work in a fresh clone on a machine
# with Python 3.11 to 3.13 (on Debian: python3 and python3-venv) and make.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test
RUN := $(VENV)/bin/python

# XLA's CPU programs take much memory at every step: with huge pages, an inversion step takes 0.7 of
# the time. glibc reads this when a process starts.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

# CelebAMask-HQ (images/, masks/), where it is at hand: the demo is then evaluated on it.
export CELEBAMASK_HQ ?= $(firstword $(wildcard data/celebamask_hq ../shared/data/celebamask_hq))

.PHONY: demo test bench clean

## From ten labelled faces to a segmenter and runs/face/report.html; what is done is skipped.
demo: weights/face
	$(RUN) -m repgan_jax.main --config=configs/face.py

## Style, then all tests, with their coverage. EXTRAS=test,reference adds PyTorch to compare with.
test: $(VENV)/installed-$(EXTRAS)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest --cov

## Each measurement prints JSON lines; those of a finished run are started by hand.
bench: $(VENV)/installed weights/face
	for name in labelled_picture convert_checkpoint projection_step; do \
	  $(RUN) benchmarks/$$name.py || exit 1; done

## Takes away what the targets above installed or cached; weights/ and runs/ stay.
clean:
	rm -rf $(VENV) build *.egg-info .coverage .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

weights/face: | $(VENV)/installed
	$(RUN) -m converters.mobilestylegan $@

# Stamps: set up again when the dependencies change, or when the last time was interrupted.
$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-$(EXTRAS): $(VENV)/installed
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[$(EXTRAS)]"
	touch $@

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help course site lab test test-all checks gpu clean

help:  ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 10

# The package runs on Python 3.10, too, but the versions in constraints.txt do not.
OLD := make needs Python 3.11 to 3.13, and $(PYTHON) is older: name another, as in make lab PYTHON=python3.13.

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("$(OLD)" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[course,test]'
	@touch $(READY)

course: $(READY)  ## Run every chapter and build the site
	$(BIN)/python tools/course.py run
	$(BIN)/python tools/site.py

site: $(READY)  ## Build the site from the outputs stored in notebooks/
	$(BIN)/python tools/site.py --stored

lab: $(READY)  ## Open the first chapter, with gaps to fill, in JupyterLab
	$(BIN)/jupyter lab $(firstword $(sort $(wildcard notebooks/student/*.ipynb)))

test: LEAVE_OUT := -m "not release"
test: checks  ## Run what continuous integration runs, on two cores
test-all: checks  ## Run all tests, as for a release

checks: $(READY)
	$(BIN)/ruff check dimum_core experiments speed tests tools notebooks
	$(BIN)/python tools/notebook_check.py
	$(BIN)/python tools/course.py smoke
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadscope $(LEAVE_OUT) \
		--nbval-lax --nbval-sanitize-with tests/nbval.cfg tests build/smoke

gpu: $(READY)  ## Train, unlearn and attack at the papers' size, on a machine with a GPU (25 minutes)
	$(BIN)/python experiments/gpu.py --out build/gpu

clean:  ## Remove what was built, but not the environment
	rm -rf build

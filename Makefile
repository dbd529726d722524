# `make demo`, `make demo-sonar` and `make test` need nothing but Python and make; the first of them makes .venv.
PYTHON ?= python3
BIN := .venv/bin
# One more worker than cores: tests wait for processes, signals and the disk, and then another has the core.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')

.PHONY: demo demo-sonar test check format clean

demo: .venv/ready
	$(BIN)/unbroken demo aerial --dir demo/aerial

demo-sonar: .venv/ready
	$(BIN)/unbroken demo sonar --dir demo/sonar

# One compute thread per test process: more would wait for each other far longer than they work.
test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(WORKERS) --dist worksteal --durations 25

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_house.py tests/test_docs.py

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# torch first, by the exact pin: what follows then finds it installed and pulls nothing else.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unbroken needs Python 3.11 or newer, found " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(shell grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch .venv/ready

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

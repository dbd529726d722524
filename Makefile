# `make demo`, `make demo-sonar` and `make test` need nothing but Python and make; the first of them makes .venv.
PYTHON ?= python3
BIN := .venv/bin
# One more worker than cores: tests wait for processes, signals and the disk, and then another has the core.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')

.PHONY: demo demo-sonar test check format clean

demo: .venv/ready
	$(BIN)/unbroken demo aerial --dir demo/aerial
	$(BIN)/unbroken prove -- $(BIN)/python examples/plain_loop.py

demo-sonar: .venv/ready
	$(BIN)/unbroken demo sonar --dir demo/sonar

# One compute thread per test process: more would wait for each other far longer than they work.
test: .venv/ready .venv-mmengine/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(WORKERS) --dist worksteal --durations 25

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_house.py tests/test_docs.py tests/test_api.py

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

# The real MMEngine, for the tests that hand trainings over to it and take them back. It sees the packages of .venv.
.venv-mmengine/ready: .venv/ready tests/mapsage/mmengine_requirements.txt
	$(PYTHON) -m venv .venv-mmengine
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > "$$(.venv-mmengine/bin/python -c 'import site; print(site.getsitepackages()[0])')/project.pth"
	.venv-mmengine/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement tests/mapsage/mmengine_requirements.txt
	touch .venv-mmengine/ready

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

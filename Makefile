# Everything happens in .venv, which is made when it is missing or older than the project's dependencies.
PYTHON ?= python3
BIN := .venv/bin
SAMPLES := demo_output

.PHONY: demo test lint docs clean

demo: .venv/ready
	$(BIN)/derain run samples -o $(SAMPLES) --compare --overwrite
	$(BIN)/python scripts/demo_sheet.py samples $(SAMPLES) $(SAMPLES)/before-after.jpg

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready
	$(BIN)/mkdocs build --quiet

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch .venv/ready

clean:
	rm -rf .venv build $(SAMPLES)

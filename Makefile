# Everything happens in .venv, which is made when it is missing or older than the project's dependencies.
# PyTorch is the large part of it. Where there is no graphics card, take its CPU-only build: say how with
# TORCH, in the words of PyTorch's install page: make demo TORCH="torch --index-url ADDRESS".
PYTHON ?= python3
TORCH ?= torch
BIN := .venv/bin
SAMPLES := demo_output

.PHONY: demo test lint docs clean

demo: .venv/installed
	$(BIN)/derain run samples/*.jpg -o $(SAMPLES) --compare --overwrite
	$(BIN)/python scripts/demo_sheet.py samples $(SAMPLES) $(SAMPLES)/before-after.jpg

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready
	$(BIN)/mkdocs build --quiet

.venv/installed: pyproject.toml constraints.txt
	@echo "Fetching PyTorch and what derain needs into .venv: 0.4 GB with a CPU-only PyTorch, 3 GB with"
	@echo "the build for NVIDIA cards that pip takes on Linux unless TORCH says otherwise (see Makefile)."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch .venv/installed

.venv/ready: .venv/installed
	@echo "Fetching the tools of developers: 1.5 GB more on disk."
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch .venv/ready

clean:
	rm -rf .venv build $(SAMPLES)

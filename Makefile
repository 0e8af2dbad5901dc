# Everything runs in .venv, which the first target makes from the package index alone.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
EXTRAS ?= cpu,ray,dev
CHECKPOINT ?= mini/polyvec-mini
BIN := .venv/bin
comma := ,
# The two engines pin different releases of some packages.
CONSTRAINTS := $(if $(findstring gpu,$(EXTRAS)),constraints-gpu.txt,constraints.txt)
READY := .venv/.ready-$(subst $(comma),-,$(EXTRAS))

.PHONY: help demo test test-fast check format screenshots bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       merge, verify, serve and search; ends with ranked pages and a playground"
	@echo "make test       every test, real engines included"
	@echo "make test-fast  the tests that start no engine"
	@echo "make check      format, lint, types, import contracts"
	@echo "make screenshots  the README's pictures; MODELS=merged draws those of real engines"
	@echo "make bench      the benchmarks (long; needs 40 GB of disk)"

# Compiled once, here: vLLM is thousands of modules, which every engine would compile again where Python writes
# no bytecode.
$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint $(CONSTRAINTS) --editable ".[$(EXTRAS)]"
	touch $@

demo: $(READY)
	$(BIN)/polyvec demo $(CHECKPOINT) --out .demo

# Two at a time: an engine starts on one core, and needs 2 GB. Files are kept together for their fixtures.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(READY)
	$(PYTEST)

test-fast: $(READY)
	$(PYTEST) -m "not engine"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Of computable engines, unless MODELS has merged checkpoints; EXAMPLE=3 takes the fourth example query.
screenshots: $(READY)
	SCREENSHOTS=1 $(BIN)/python -m pytest -q tests/http/playground/test_pictures.py

bench: $(READY)
	$(BIN)/python -m benchmarks.merge --workdir .bench

clean:
	rm -rf .venv .demo .bench

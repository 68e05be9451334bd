# Everything here needs Python 3.11 or newer and nothing else: the first target you make sets up .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PEERS := .bench/bin

.DEFAULT_GOAL := help
.PHONY: help book test check lab notebooks results bench lock clean

help: ## list these targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16

book: $(READY) ## build the book into _build/html
	$(BIN)/jupyter-book build -W -n --keep-going .

# Tests run side by side: a BLAS that takes all cores in each of them makes them four times slower.
test: export OPENBLAS_NUM_THREADS = 1
test: check ## run every test; TORCH=1 also compares with PyTorch and onnxruntime
	$(if $(TORCH),$(BIN)/pip install -q torch==2.13.0 -e ".[onnx]")
	$(BIN)/python -m tinytorch.kernels warmup
	$(BIN)/pytest -rs -n 2 --dist loadfile --ignore=tests/browser
	$(BIN)/python -m tinytorch.profiling.self_test --quick
	$(BIN)/python -m tests.regression.gate
	$(BIN)/pytest --nbval chapters
	$(BIN)/jupyter-book build -W -n --keep-going --all .
	BOOK_IS_BUILT=1 $(BIN)/pytest -rs --no-fold-skipped -n 2 tests/browser

check: $(READY) ## lint, format, types, layers, stale notebooks and numbers: seconds
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tinytorch.book.notebooks check
	$(BIN)/python -m tinytorch.book.results check

lab: $(READY) ## open the chapters in JupyterLab, sliders live
	$(BIN)/jupyter trust chapters/*/*.ipynb
	@mkdir -p .venv/share/jupyter/lab/settings # a notebook that you run and save keeps its sliders
	@echo '{"@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": true}}' > .venv/share/jupyter/lab/settings/overrides.json
	$(BIN)/jupyter lab chapters

notebooks: $(READY) ## run every chapter and write its notebook
	$(BIN)/python -m tinytorch.book.notebooks build

results: $(READY) ## write what was measured into the Markdown files
	$(BIN)/python -m tinytorch.book.results write

bench: $(READY) .bench/.ready ## measure beside PyTorch and onnxruntime, and rebuild what publishes it; QUICK=1 only tries it
	$(PEERS)/python -m tinytorch.kernels warmup
	$(PEERS)/python -m tests.bench $(if $(QUICK),--quick)
	$(if $(QUICK),,$(BIN)/python -m tinytorch.book.results write)
	$(if $(QUICK),,$(BIN)/python -m tinytorch.book.notebooks build)

# Apart from .venv, whose tests must pass without the peers.
.bench/.ready: pyproject.toml requirements.lock | $(READY)
	$(BIN)/python -m venv .bench
	$(PEERS)/python -m pip install -q --no-compile --require-hashes -r requirements.lock
	$(PEERS)/python -m pip install -q -e ".[bench]"
	@touch $@

lock: $(READY) ## pin the newest versions that pyproject.toml allows
	$(BIN)/pip install -q uv
	$(BIN)/uv pip compile pyproject.toml --extra book --extra test --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links -q -o requirements.lock

clean: ## remove .venv and everything that was built
	rm -rf .venv .bench _build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find chapters tests tinytorch -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "TinyTorch needs Python 3.11 or newer; \
	$(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --no-compile --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps -e .
	@touch $@

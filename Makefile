# `make help` lists the targets. Everything Python lives in .venv; kernels for the virtual
# machines are cached outside the repository (vmtest/kernel_vm.py says where).

PYTHON ?= python3
VENV := $(CURDIR)/.venv
PY := $(VENV)/bin/python
# The pip beside $(PYTHON) sets up .venv, pip included: `python -m venv` takes 5 seconds for its own.
PIP = $(shell if [ -x $(VENV)/bin/pip ]; then echo $(PY) -m pip; else echo $(PYTHON) -m pip --python $(PY); fi)
PIP_INSTALL = $(PIP) install --disable-pip-version-check
INSTALLED := $(VENV)/.installed
DEVELOPMENT := $(VENV)/.development
OBJECT := src/tcprism/kernel/tcprism.bpf.o
BPF_SOURCES := $(shell find bpf -name '*.[ch]')
BUILD_FILES := pyproject.toml hatch_build.py tools/list_requirements.py
FAST_TESTS := tests/unit tests/golden

# Root leaves no files behind in the tree.
ifneq ($(shell id -u),0)
AS_ROOT := sudo --preserve-env=TCPRISM_REQUIRE,KERNEL_VM_CACHE env PYTHONDONTWRITEBYTECODE=1
endif

.NOTPARALLEL:
.PHONY: help run test test-quick test-fast vm bench lint docs clean run-packages test-packages

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: run-packages $(INSTALLED) $(OBJECT) ## set up and trace as root: make run ARGS="--port 443"
	$(AS_ROOT) $(VENV)/bin/tcprism trace $(ARGS)

test: test-quick vm ## all of it: test-quick, then the kernel tests in virtual machines

test-quick: test-packages lint test-fast ## lint, types, unit tests, BPF and kernel tests here
	$(AS_ROOT) $(PY) -m pytest tests/bpf tests/kernel -p no:cacheprovider

test-fast: $(DEVELOPMENT) $(OBJECT) ## the tests that need no root
	$(PY) -m pytest -n auto --dist loadfile $(FAST_TESTS)

# Compilers are slow in a guest: have all compiled before, by pytest what pytest compiles.
vm: test-packages $(DEVELOPMENT) $(OBJECT) ## kernel tests in virtual machines: make vm KERNEL=6.1
	$(PY) -m compileall -q src tests
	$(PY) -m pytest tests/kernel --collect-only -qq -p no:cacheprovider >/dev/null
	$(PY) -m tests.support.workload
	$(AS_ROOT) $(PY) vmtest/matrix.py $(KERNEL) -- $(ARGS)

bench: test-packages $(DEVELOPMENT) $(OBJECT) ## speed, printed as tables
	$(AS_ROOT) $(PY) -m benchmarks $(ARGS)

lint: $(DEVELOPMENT) $(OBJECT) ## style, types and import rules
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: $(DEVELOPMENT) $(OBJECT) ## make generated files again: record types, reference, man page
	$(PY) tools/generate_wire.py
	$(PY) tools/generate_event.py
	$(PY) tools/generate_docs.py
	$(PY) tools/generate_hooks_doc.py
	$(PY) tools/generate_metrics_doc.py
	$(PY) tools/generate_dashboard.py
	$(PY) tools/generate_api_doc.py
	$(PY) tools/generate_fleet.py
	$(PY) tools/generate_man.py

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) build dist $(OBJECT) .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

run-packages:
	@PYTHON="$(PYTHON)" tools/install_system_packages.sh run

test-packages:
	@PYTHON="$(PYTHON)" tools/install_system_packages.sh run test

$(PY): | run-packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "tcprism needs Python 3.11 or newer: name one with make PYTHON=/path/to/python3" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module: install the package python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --without-pip $(VENV)
	@$(PYTHON) -m pip --python $(PY) --version >/dev/null 2>&1 || $(PY) -m ensurepip --default-pip

$(INSTALLED): $(BUILD_FILES) | $(PY)
	@echo "setting up .venv: NumPy, click and, unless TCPRISM_CLANG names a clang, one of 100 MB"
	@$(PY) tools/list_requirements.py >$(VENV)/requirements.txt
	$(PIP_INSTALL) --no-compile -r $(VENV)/requirements.txt
	@echo "compiling the BPF programs"
	$(PIP_INSTALL) -q --no-build-isolation -e .
	@$(PY) -c 'import tcprism.cli.trace' # leaves byte code, which root may not
	touch $@

$(DEVELOPMENT): $(INSTALLED)
	@echo "installing what the tests need: pyarrow, DuckDB, Textual and others"
	$(PIP_INSTALL) -q --no-build-isolation -e '.[dev]'
	touch $@

$(OBJECT): $(BPF_SOURCES) tools/build_bpf.py tools/strip_dwarf.py | $(INSTALLED)
	$(PY) tools/build_bpf.py

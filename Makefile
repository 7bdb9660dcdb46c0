# The few verbs of a developer. Each makes its environment first where that is missing or out of date:
# a fresh machine needs make and a Python of at least 3.10 with venv.
#
#   make demo     a short tour of what the library does
#   make test     all checks: tests, format, lint, types
#   make lint     the checks that run no code: format, lint, types
#   make docs     the documentation site, in out/site
#   make bench    every benchmark under benchmarks/, one after the other
#
# PYTHON=python3.13 chooses the interpreter of a new environment; WORKERS=4 the test processes.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/.ready
BENCHMARKS = $(sort $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)))

.DEFAULT_GOAL := test
.PHONY: demo test lint docs bench

demo: $(READY)
	$(BIN)/unrote demo

# A file's tests on one worker, which makes what they share once; tests/conftest.py begins with the longest files.
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Every check runs even where one before it failed, so that one run shows all there is to mend.
define LINT
$(BIN)/ruff format --check . || failed="$$failed format"; \
$(BIN)/ruff check . || failed="$$failed ruff"; \
$(BIN)/mypy || failed="$$failed mypy"; \
test -z "$$failed" || { echo "make $@: failed:$$failed" >&2; exit 1; }
endef

test: $(READY)
	@failed=; $(BIN)/python -m pytest $(PARALLEL) || failed=" pytest"; $(LINT)

lint: $(READY)
	@failed=; $(LINT)

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(READY)
	@test -n "$(BENCHMARKS)" || echo "no benchmarks under benchmarks/"
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# pyproject.toml is a prerequisite because an editable install freezes the entry points and the metadata. pip would
# compile what it installs on one core, which takes as long as the rest; some packages hold files that cannot be.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "$(PYTHON) is missing or older than Python 3.10: pass PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -qq --no-compile -r requirements.lock
	$(BIN)/python -m compileall -qq -j $(WORKERS) .venv/lib || true
	$(BIN)/python -m pip install --disable-pip-version-check -qq --no-deps --no-build-isolation -e .
	@touch $@

# Every target builds .venv once, from the pinned set in constraints.txt, and needs nothing but Python >= 3.11.
PYTHON ?= python3
VENV ?= .venv
OPTIMUM_VENV ?= .venv-optimum
BIN = $(VENV)/bin

.PHONY: demo test test-slow lint bench check-optimum clean

demo: $(VENV)/ready
	$(BIN)/tinymyo demo

test: $(VENV)/ready
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/ready
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks

# Exports open with optimum, in an environment of its own: it needs transformers 4.
check-optimum: $(VENV)/ready $(OPTIMUM_VENV)/ready
	rm -rf build/optimum
	$(BIN)/python tests/export/optimum_export.py build/optimum
	PYTHONPATH=. $(OPTIMUM_VENV)/bin/python tests/export/optimum_check.py build/optimum

$(OPTIMUM_VENV)/ready: tests/export/optimum_requirements.txt
	$(PYTHON) -m venv $(OPTIMUM_VENV)
	$(OPTIMUM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,lint]"
	touch $@

clean:
	rm -rf $(VENV) $(OPTIMUM_VENV)

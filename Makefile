# make study   the bit-depth study of the packaged network, into out/study/
# make test    the tests            make lint   style, types, who may import whom
# make bench   speed, as ratios to rivals in the same run
# make rivals  quality against other toolkits for quantization, hours; into out/rivals
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup study test lint bench rivals clean

study: setup
	$(BIN)/quantisp study --out out/study

# One process a core; the tests of a file stay together.
test: setup
	$(BIN)/pytest --numprocesses auto --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/integer.py

# In an environment of their own, for they ask for other versions of what quantisp needs.
rivals:
	$(PYTHON) -m venv .venv-rivals
	.venv-rivals/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 -e . \
	  -r benchmarks/rivals-requirements.txt
	.venv-rivals/bin/python benchmarks/rivals.py --out out/rivals

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) out

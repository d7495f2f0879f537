# The verbs of this repository. `make help` tells them; the first one makes the virtual environment.

PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
TESTS = tests
SEEDS = 10000
CUTS = 1000
KILLS = 1000
DEATHS = 1000
SECONDS = 60
BENCH = latency
ARGS =
PYZ = dist/bpipe.pyz
PACK = build/pyz
PIP = build/pip/bin/pip
MACHINE = $(shell uname -m)
PYTHONS = 3.11 3.12 3.13 3.14
SPREAD = -n 4 --dist worksteal
PORTABLE = tests/cli tests/demo tests/ends tests/net tests/report tests/run \
	tests/protocol/test_vectors.py tests/test_manual.py tests/test_pipe.py tests/test_public.py

.PHONY: help style fix types quick all cover smoke portable house sim soak kills deaths fuzz bench pyz clean

help: ## show this
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
	while IFS='|' read -r verb text; do printf 'make %-7s %s\n' "$$verb" "$$text"; done

$(VENV)/made: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

style: $(VENV)/made ## what the linter and the formatter say
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fix: $(VENV)/made ## mend what they can mend by themselves
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/made ## what the type checker says
	$(BIN)/mypy

quick: $(VENV)/made ## the tests that need a minute or two; some only: make quick TESTS=tests/net
	$(BIN)/pytest -q -m 'not slow' --ignore=tests/end_to_end --ignore=tests/simulation $(TESTS)

all: style types $(VENV)/made ## style, types, every test
	$(BIN)/pytest -q $(SPREAD)

cover: $(VENV)/made ## whether the tests of the protocol go through every branch of it
	$(BIN)/coverage run -m pytest -q -m 'not slow' tests/protocol
	$(BIN)/coverage report

smoke: $(VENV)/made ## real processes, one of each kind
	$(BIN)/pytest -q -m smoke tests/end_to_end

portable: smoke ## what may differ from one Python to another, or from one typer
	$(BIN)/pytest -q $(SPREAD) -m 'not slow' $(PORTABLE)

house: $(VENV)/made ## measure the rules of the house; where: make house ARGS=--where
	$(BIN)/python -m tests.house $(ARGS)

sim: $(VENV)/made ## simulate SEEDS networks and all that they do to a session
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

soak: $(VENV)/made ## cut real connections CUTS times, and compare every byte
	$(BIN)/python -m tests.end_to_end.soak --cuts $(CUTS) $(ARGS)

kills: $(VENV)/made ## kill bpipe and its programs KILLS times, and see who takes a part for the whole
	$(BIN)/python -m tests.end_to_end.kills --kills $(KILLS) $(ARGS)

deaths: $(VENV)/made ## kill who makes a file of a stream DEATHS times, cut the power, and go on
	$(BIN)/python -m tests.end_to_end.output_deaths --deaths $(DEATHS) $(ARGS)

fuzz: $(VENV)/made ## read bytes that nobody would send, for SECONDS
	$(BIN)/python -m tests.support.fuzz --seconds $(SECONDS) $(ARGS)

bench: $(VENV)/made ## measure beside other tools: make bench BENCH=throughput ARGS=--sealed
	$(BIN)/python -m tests.bench $(BENCH) $(ARGS)

$(PIP):
	$(PYTHON) -m venv build/pip

# pip fills a folder, for each Python what is compiled for that, and shiv makes it one file. What pip
# writes of this machine is left out. shiv itself runs out of its wheel: what it puts in of itself is
# then in one order on every file system, which it sorts only after 1.0.8.
pyz: $(PIP) ## make bpipe a single file, dist/bpipe.pyz; for another machine: make pyz MACHINE=aarch64
	rm -rf $(PACK)
	$(PIP) -qq download --require-hashes --no-deps --dest $(PACK)/tools --requirement pack/tools.txt
	for python in $(PYTHONS); do \
	    $(PIP) -qq install --require-hashes --no-deps --no-compile --only-binary :all: \
	        --python-version $$python $(MACHINE:%=--platform manylinux_2_28_%) \
	        $(MACHINE:%=--platform manylinux_2_17_%) $(MACHINE:%=--platform manylinux2014_%) \
	        --target $(PACK)/site --requirement pack/pins.txt || exit; \
	done
	rm -r $(PACK)/site/bin $(PACK)/site/*.dist-info/RECORD
	cp -R bpipe LICENSE $(PACK)/site
	chmod -R u=rwX,go=rX $(PACK)/site
	mkdir -p $(dir $(PYZ))
	PYTHONPATH=$$(echo $(PACK)/tools/*.whl | tr ' ' :) $(PYTHON) -W ignore -m shiv --reproducible \
	    --root '~/.cache/bpipe' --entry-point bpipe.__main__:main --site-packages $(PACK)/site \
	    --output-file $(PYZ)

clean: ## remove what was made
	rm -rf $(VENV) build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

# Needs Python 3.10 or newer and GNU make. `make help` lists the commands.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := -m pip --disable-pip-version-check
PURELIB := import sysconfig; print(sysconfig.get_path("purelib"))
# More workers than cores, because most tests over HTTP wait for a version or until a fault is over.
WORKERS ?= 6
STEPS := static wheel e2e

# The caller's environment must not affect Airflow or AWS by accident; only the contract uses AWS.
# Compiled modules halve the start time of each of Airflow's processes.
unexport $(filter-out AWS_CA_BUNDLE,$(filter AIRFLOW_% $(if $(filter contract,$(MAKECMDGOALS)),,AWS_%),$(.VARIABLES)))
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME
export AWS_EC2_METADATA_DISABLED := true

.DEFAULT_GOAL := help
.PHONY: help demo test contract unit integration static lint format types docs wheel coverage e2e compat bench \
	audit browser screenshots dist venv constraints clean

help: ## list the commands
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{ printf "  %-18s %s\n", $$1, $$2 }'

demo: $(INSTALLED) ## run the example DAGs in a real Airflow; KEEP=1 keeps its web page running until Ctrl-C
	@$(BIN)/python -m dev.demo $(if $(filter-out 0 no,$(KEEP)),--keep)

test: $(INSTALLED) ## run everything, each test once: lint, types, documentation, tests of the built wheel, end-to-end tests
	@start=$$(date +%s); number=0; \
	for step in $(STEPS); do \
	    number=$$((number + 1)); \
	    echo "==> [$$number/$(words $(STEPS))] make $$step ($$(($$(date +%s) - start)) s so far)"; \
	    $(MAKE) --no-print-directory $$step SELECTED='-m "not probe"' PROFILE=thorough || \
	        { echo "==> make $$step failed" >&2; exit 1; }; \
	done; \
	echo "==> All passed in $$(($$(date +%s) - start)) s"

contract: $(INSTALLED) ## check the assumptions about SageMaker against an AWS account; docs/contract.md lists the variables
	@$(BIN)/python -m tests.contract $(if $(filter-out 0 no,$(CLEAN_UP)),clean-up,run --role-arn '$(ROLE_ARN)' \
	    --base-image '$(BASE_IMAGE)' $(if $(ONLY),--only $(ONLY))) --domain-id '$(DOMAIN_ID)' $(if $(filter-out 0 no,$(EVENTS)),--events) \
	    $(if $(filter-out 0 no,$(CONFIRM)),--confirm)

unit: $(INSTALLED) ## run the unit tests, without Airflow and HTTP: seconds
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/unit

integration: $(INSTALLED) ## run the tests that use Airflow's classes and the emulator over HTTP: 70 seconds
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/integration

static: $(INSTALLED) ## run lint, types and docs side by side
	@$(MAKE) --no-print-directory --jobs 2 lint types docs

lint: $(INSTALLED) ## check style, formatting, spelling and the workflows
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/zizmor --quiet --offline --min-severity medium .

format: $(INSTALLED) ## format the code, and fix lint errors where possible
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(INSTALLED) ## check types
	$(BIN)/mypy

docs: $(INSTALLED) ## build the documentation into build/docs/html
	$(BIN)/python -m sphinx -W --keep-going --quiet -d build/docs/doctrees docs build/docs/html
	@echo "build/docs/html/index.html"

dist: $(INSTALLED) ## build the source distribution and the wheel into build/dist, and check their contents
	rm -rf build/dist
	mkdir -p build
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build --outdir build/dist > build/dist.log || { cat build/dist.log; exit 1; }
	$(BIN)/check-wheel-contents build/dist/*.whl
	@# All files of the repository except for its automation, and no others.
	git ls-files --cached --others --exclude-standard | grep -v '^\.ci/\|^\.github/' | LC_ALL=C sort > build/dist.expected
	tar -tzf build/dist/*.tar.gz | sed 's:^[^/]*/::' | grep -v '^PKG-INFO$$' | LC_ALL=C sort | diff build/dist.expected -

wheel: $(if $(WHEEL),$(INSTALLED),dist) ## run all tests except the end-to-end ones on the built wheel, or on WHEEL=dist/....whl
	rm -rf build/wheel
	mkdir -p build/wheel
	$(BIN)/python -m venv --without-pip build/wheel/venv
	$(BIN)/python $(PIP) --python build/wheel/venv/bin/python install --quiet --no-deps $(or $(WHEEL),build/dist/*.whl)
	@# Its dependencies are in .venv, whose link to the source tree is not followed from there.
	$(BIN)/python -c '$(PURELIB)' > "$$(build/wheel/venv/bin/python -c '$(PURELIB)')/dependencies.pth"
	cp -R .github tests docs example_dags dev benchmarks pyproject.toml Makefile *.md build/wheel
	cd build/wheel && venv/bin/python -c 'import airflow_provider_imageversions as it; print(it.__file__)' | \
	    grep build/wheel/venv/
	cd build/wheel && venv/bin/python -m pytest -n $(WORKERS) --dist worksteal --hypothesis-profile $(or $(PROFILE),quick) \
	    $(MEASURE) tests --ignore tests/e2e

coverage: MEASURE := --cov --cov-report term --cov-report xml --cov-fail-under 90
coverage: wheel ## measure the branch coverage of those tests, and compare it with the minimum

e2e: browser ## run the tests that start a real Airflow
	@# The distributed Airflow and those on SQLite side by side, each in one worker: see tests/e2e/conftest.py.
	$(BIN)/python -m pytest -v -n 3 --durations=10 $(SELECTED) tests/e2e

compat: $(INSTALLED) ## test on each supported Airflow, 45 minutes; LINE=2.11 for one of the lines in dev/compat.py
	$(BIN)/python -m dev.compat $(LINE)

bench: $(INSTALLED) ## compare with botocore and the Amazon provider, 20 minutes; BENCH=--airflow half an hour, BENCH=--quick 3 minutes
	@# The Amazon provider's triggers need aiobotocore, which limits botocore's version, so this uses another environment.
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python build/bench
	$(BIN)/uv pip install --quiet --python build/bench -e '.[emulator]' aiobotocore
	build/bench/bin/python -m benchmarks $(BENCH)

audit: $(INSTALLED) ## check the pinned dependencies for known vulnerabilities; needs the internet
	@# Strict: a failed lookup must not pass.
	$(BIN)/uv tool run pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

browser: $(INSTALLED) ## install Chromium for the tests of Airflow's web page, if it is missing
	@$(BIN)/python -m dev.browser

screenshots: browser ## take the screenshots in docs/images again
	SCREENSHOTS=docs/images $(BIN)/python -m pytest tests/e2e/test_web.py
	@# This makes them a quarter smaller.
	@! command -v optipng > /dev/null || optipng -quiet -o4 docs/images/*.png

venv: $(INSTALLED) ## install everything into .venv

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "Python 3.10 or newer is needed and $(PYTHON) is not: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot create virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV): about a minute, plus the download of 300 MB the first time"
	@test -e $@ || rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@# Quiet without a terminal. The pip that comes with Python is too old to install dependency groups.
	@test -t 1 || quiet=--quiet; \
	    $(BIN)/python $(PIP) install $$quiet --constraint constraints.txt --upgrade pip && \
	    $(BIN)/python $(PIP) install $$quiet --constraint constraints.txt --build-constraint constraints.txt \
	        --editable '.[emulator]' --group dev
	@touch $@

constraints: $(INSTALLED) ## resolve the newest compatible versions and write constraints.txt
	mkdir -p build
	grep '^#' constraints.txt > build/constraints.txt
	printf '%s\n' 'hatchling>=1.26' editables | $(BIN)/uv pip compile --quiet --no-config \
	    --universal --python-version 3.10 --extra emulator --group dev --no-emit-package airflow-provider-imageversions \
	    --no-annotate --no-header pyproject.toml - >> build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## remove the files that the commands above created
	rm -rf $(VENV) .coverage coverage.xml .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Needs Python 3.10 or newer and GNU make. `make help` lists the commands.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PURELIB := import sysconfig; print(sysconfig.get_path("purelib"))

# What is in the caller's environment must not reach Airflow or AWS by accident; only the contract is with AWS.
# Compiled modules halve the time that each of Airflow's processes takes to start.
unexport $(filter-out AWS_CA_BUNDLE,$(filter AIRFLOW_% $(if $(filter contract,$(MAKECMDGOALS)),,AWS_%),$(.VARIABLES)))
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME
export AWS_EC2_METADATA_DISABLED := true

.DEFAULT_GOAL := help
.PHONY: help demo test contract bench compat lint format types unit wheel e2e browser screenshots docs audit venv constraints clean

help: ## list the commands
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{ printf "  %-18s %s\n", $$1, $$2 }'

demo: $(INSTALLED) ## run the example DAGs in a real Airflow; KEEP=1 leaves its web page up until Ctrl-C
	@$(BIN)/python -m dev.demo $(if $(filter-out 0 no,$(KEEP)),--keep)

# What an Airflow does, rather than what the package does: for a new Airflow, by make e2e.
test: SELECTED := -m "not probe"
test: lint types docs wheel e2e ## run everything: lint, types, documentation, all tests

contract: $(INSTALLED) ## check what is assumed of SageMaker against an AWS account; docs/contract.md has the variables
	@$(BIN)/python -m tests.contract $(if $(filter-out 0 no,$(CLEAN_UP)),clean-up,run --role-arn '$(ROLE_ARN)' \
	    --base-image '$(BASE_IMAGE)' $(if $(ONLY),--only $(ONLY))) --domain-id '$(DOMAIN_ID)' $(if $(filter-out 0 no,$(EVENTS)),--events) \
	    $(if $(filter-out 0 no,$(CONFIRM)),--confirm)

lint: $(INSTALLED) ## check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml airflow_provider_imageversions

format: $(INSTALLED) ## format the code and fix what can be fixed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(INSTALLED) ## check types
	$(BIN)/mypy

unit: $(INSTALLED) ## run the unit and integration tests
	@# Four at a time, on two cores too: most of them wait, for a version or for a fault to pass.
	$(BIN)/python -m pytest -n 4 tests/unit tests/integration

wheel: $(INSTALLED) ## run them against the built wheel, away from the source tree; WHEEL=dist/....whl for one that is built
	rm -rf build/wheel
	mkdir -p build/wheel
	$(if $(WHEEL),cp $(WHEEL) build/wheel,PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip wheel --quiet \
	    --disable-pip-version-check --no-deps --wheel-dir build/wheel .)
	$(BIN)/python -m venv --without-pip build/wheel/venv
	$(BIN)/python -m pip --python build/wheel/venv/bin/python install --quiet --disable-pip-version-check --no-deps \
	    build/wheel/*.whl
	@# What it needs is in .venv, whose link to the source tree is not followed from there.
	$(BIN)/python -c '$(PURELIB)' > "$$(build/wheel/venv/bin/python -c '$(PURELIB)')/dependencies.pth"
	cp -R tests docs example_dags dev benchmarks noxfile.py pyproject.toml Makefile *.md build/wheel
	cd build/wheel && venv/bin/python -c 'import airflow_provider_imageversions as it; print(it.__file__)' | \
	    grep build/wheel/venv/
	cd build/wheel && venv/bin/python -m pytest -n 4 tests/unit tests/integration

e2e: browser ## run the tests that start a real Airflow
	@# The distributed Airflow and the one on SQLite side by side.
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=10 $(SELECTED) tests/e2e

browser: $(INSTALLED) ## make sure of a Chromium, in which tests look at Airflow's page
	@$(BIN)/python -m dev.browser

screenshots: browser ## take the pictures in docs/images anew
	SCREENSHOTS=docs/images $(BIN)/python -m pytest tests/e2e/test_web.py
	@# They are a quarter smaller then.
	@! command -v optipng > /dev/null || optipng -quiet -o4 docs/images/*.png

docs: $(INSTALLED) ## build the documentation into build/docs/html
	$(BIN)/python -m sphinx -W --keep-going --quiet -d build/docs/doctrees docs build/docs/html
	@echo "build/docs/html/index.html"

compat: ## test on each Airflow that is supported, an hour; LINE=2.11 on one, of those in noxfile.py
	@test -d $(VENV)-compat || $(PYTHON) -m venv $(VENV)-compat
	$(VENV)-compat/bin/python -m pip install --quiet --disable-pip-version-check nox uv
	$(VENV)-compat/bin/nox $(if $(LINE),--session $(LINE))

bench: $(INSTALLED) ## measure against botocore and the Amazon provider, 20 minutes; BENCH=--airflow half an hour, BENCH=--quick 3 minutes
	@test -d $(VENV)-bench || $(PYTHON) -m venv $(VENV)-bench
	@# The Amazon provider's triggers need aiobotocore, which holds botocore back, so it has an environment of its own.
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check -e . aiobotocore
	$(VENV)-bench/bin/python -m benchmarks $(BENCH)

audit: ## ask the vulnerability database about the pinned dependencies; needs the internet
	@test -d $(VENV)-audit || $(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@# Strict: what could not be looked up has not been found harmless.
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

venv: $(INSTALLED) ## install everything into .venv

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "Python 3.10 or newer is needed and $(PYTHON) is not: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV): about a minute, and the time to download 300 MB at the first time"
	@test -e $@ || rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@# By PIP_CONSTRAINT, unlike by -c, the build backend is pinned too. Silent where nobody watches.
	@test -t 1 || quiet=--quiet; \
	    PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --disable-pip-version-check $$quiet -e '.[dev,docs]'
	@touch $@

constraints: ## find the newest versions that fit together and write constraints.txt
	rm -rf build/uv
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
	grep '^#' constraints.txt > build/uv/new.txt
	printf '%s\n' 'hatchling>=1.26' editables | build/uv/bin/uv pip compile --quiet --no-config \
	    --universal --python-version 3.10 --extra dev --extra docs --no-emit-package airflow-provider-imageversions \
	    --no-annotate --no-header pyproject.toml - >> build/uv/new.txt
	mv build/uv/new.txt constraints.txt
	rm -rf build/uv

clean: ## remove what the commands above made
	rm -rf $(VENV) $(VENV)-audit $(VENV)-bench $(VENV)-compat .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

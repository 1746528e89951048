# make demo: venv, install, the main job on the embedded default. make test: every test. Nothing else is needed.
# make check: what to run while working, in two minutes.
PYTHON ?= python3
VENV ?= .venv
DOCS_VENV ?= .venv-docs
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := bundles/demo-results
# uv, pip-audit and cyclonedx-bom have requirements of their own: they stay out of the venv.
TOOLS := build/tools
COMPILE = $(TOOLS)/bin/uv pip compile --quiet --no-header --generate-hashes --constraint constraints.txt \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28
# A test that hangs ends its worker with the stack of every thread; the limit is above what tests allow their children.
# Large pages, where Linux has them on request: a third of the kernel's part of the tests' time was the faults of small ones.
PYTEST := GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/python -m pytest -n auto --dist worksteal \
	-o faulthandler_timeout=360 -o faulthandler_exit_on_timeout=true

# Tests start hundreds of Pythons; where this is set, each of them compiles the package anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo check fast test release-check docs picture gpu lint format wheel clean help faults fuzz soak mutants \
	coverage constraints hashed audit licenses sbom

help:  ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[host,rtx]' --group dev --group oracles
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --group zoo --group schemas --group readers
	@touch $@

demo: $(INSTALLED)  ## Install, then export, verify, bench and report the embedded default
	@mkdir -p $(DEMO)
	$(BIN)/toolkit export --int8 --fp16 > $(DEMO)/export.json
	$(BIN)/toolkit verify > $(DEMO)/verify.json
	$(BIN)/toolkit bench > $(DEMO)/bench.json
	$(BIN)/toolkit report --verify $(DEMO)/verify.json --bench $(DEMO)/bench.json -o $(DEMO)/report.html > $(DEMO)/report.json
	@echo
	@echo "The bundle is bundles/resnet32x32-fashion/, the results as JSON and report.html are in $(DEMO)/."
	@echo "Next: . $(BIN)/activate && toolkit train my-net --help   (your own images)"
	@echo "      copy the bundle to the device                      (see README.md)"

check: $(INSTALLED)  ## Lint, types, the import rule and every test that is not slow, side by side
	@$(MAKE) --no-print-directory -j2 lint fast

fast: $(INSTALLED)
	$(PYTEST) -m 'not slow'

test: $(INSTALLED)  ## Run every test; what `make demo` wrote is looked at, or made again if anything is newer
	TOOLKIT_DEMO=$$(test -e $(DEMO)/report.json && \
		test -z "$$(find Makefile pyproject.toml toolkit models calibration -type f ! -name '*.pyc' -newer $(DEMO)/export.json)" && \
		echo .) $(PYTEST)

gpu:  ## Check and measure what needs an NVIDIA GPU, in under 15 minutes (docs/gpu.md)
	@$(PYTHON) benchmarks/gpu_inputs.py || echo 'without the real nets: the tiny one is checked' >&2
	@$(PYTHON) benchmarks/gpu_check.py --out bundles/gpu-results

release-check: $(INSTALLED)  ## What must hold before a tag: wheel, sdist, a bare install, wheels for a Jetson, tag, changelog
	TOOLKIT_RELEASE=yes $(PYTEST) -n 0 tests/test_packaging.py tests/test_release.py

# The site has a venv of its own, without torch: nothing of it is imported by the package or its tests.
$(DOCS_VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(DOCS_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --group docs
	@touch $@

docs: $(DOCS_VENV)/.installed  ## The pages as a site in build/docs/; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet
	@echo "open build/docs/index.html; to search in it: python3 -m http.server --directory build/docs"

picture: $(INSTALLED)  ## docs/report.png anew, from the page of the demo (needs chromium)
	chromium --headless --no-sandbox --hide-scrollbars --window-size=1000,1480 \
		--screenshot=docs/report.png $(CURDIR)/$(DEMO)/report.html
	$(BIN)/python -c "import PIL.Image as I; p = 'docs/report.png'; I.open(p).convert('P', palette=1, colors=64).save(p, optimize=True)"

lint: $(INSTALLED)  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

faults: $(INSTALLED)  ## Kill, fill, fail and fool every command that writes, and count what survives (577 s of a processor)
	@mkdir -p bundles
	$(BIN)/python benchmarks/faults --keep bundles/faults.json > /dev/null

fuzz: $(INSTALLED)  ## Mutated files for everything that reads files of strangers: SECONDS=600 each
	$(BIN)/python benchmarks/fuzz --seconds $(or $(SECONDS),600)

mutants: $(INSTALLED)  ## Change every decision of the rooms that judge, one at a time: who notices? ROOM=gate for one
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group mutation
	$(BIN)/python benchmarks/mutants $(ROOM)

coverage: $(INSTALLED)  ## Branch coverage of the package by all tests; fails under 95 %
	@rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/python -m coverage run -m pytest -n auto --dist worksteal -q
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

soak: $(INSTALLED)  ## Eight threads and reloads: does anything grow? SECONDS=3600
	$(BIN)/python benchmarks/soak.py --seconds $(or $(SECONDS),3600)

$(TOOLS):
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet uv pip-audit cyclonedx-bom

constraints: $(TOOLS)  ## constraints-ci.txt anew: every package of the venv, with the hashes of its files
	$(COMPILE) pyproject.toml --extra host --extra rtx --extra sign --group dev --group oracles -o constraints-ci.txt
	$(COMPILE) --group pyproject.toml:zoo --group pyproject.toml:schemas \
		--group pyproject.toml:readers --no-deps >> constraints-ci.txt

hashed:  ## The venv from constraints-ci.txt alone: whatever has another hash is refused (Python 3.11, Linux, x86-64)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement constraints-ci.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(INSTALLED)

audit: $(TOOLS)  ## Known holes in the packages of constraints-ci.txt (asks pypi.org)
	$(TOOLS)/bin/pip-audit --strict --requirement constraints-ci.txt --no-deps --disable-pip

licenses: $(INSTALLED)  ## What every package of the venv is licensed under
	$(BIN)/python benchmarks/licenses.py

sbom: $(TOOLS) $(INSTALLED)  ## dist/sbom.json: every package of the venv in CycloneDX's format
	@mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.json

wheel: $(INSTALLED)  ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --outdir dist .

clean:  ## Remove the venv and what was built
	rm -rf $(VENV) $(DOCS_VENV) bundles dist build

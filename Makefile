# Two commands: `make demo` runs the main job, `make test` proves it. Both set up .venv first, from a lock with hashes.
# Needs Python 3.11 or later (with venv), make and git. Paths are relative on purpose: the checkout may have a space in its.

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
INSTALLED := .venv/.installed
# What is compiled once is kept: without that, a third of each start of a collector is compiling it again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help help-all coverage demo test bench bench-peers bench-growth bench-prices bench-replay bench-audit bench-wallets bench-reports bench-scrape bench-sdk leaks-sdk torture mutate observe preview backtest dashboards check docs record-dialects record-agents replayed format lock sbom scan clean

help: ## Run: show the targets that you need first
	@echo "The targets that you need first (make help-all shows the rest):"
	@awk -F ' ## [A-Z][a-z]*: ' '/^(demo|test|check|format|torture|bench):/ { sub(":.*", "", $$1); printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

help-all: ## Run: show all targets, in groups
	@awk -F ' ## ' '/^[a-z-]+:.* ## / { sub(":.*", "", $$1); group = $$2; sub(":.*", "", group); sub("[A-Za-z]+: ", "", $$2); \
	    all[group] = all[group] sprintf("  make %-16s %s\n", $$1, $$2) } \
	    END { n = split("Run Check Measure Write", order, " "); for (i = 1; i <= n; i++) printf "%s\n%s", order[i], all[order[i]] }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Run: run a collector, a model server and an example application; Ctrl-C ends it (ONCE=1: once, checked)
	@$(VENV_PYTHON) instrumentation/demo/run.py $(if $(ONCE),--once)

test: check $(INSTALLED) ## Check: check style, types and imports, and run all tests (up to twenty minutes)
	$(VENV_PYTHON) -m pytest -q -n 2 --dist worksteal --durations=25

# Counted in the processes of pytest only: what a collector that a test starts as a process of its own runs is not.
coverage: $(INSTALLED) ## Check: report the lines of the ledger that tests do not reach in their own processes (ARGS=tests/ledger)
	$(VENV_PYTHON) -m pytest -q -n 2 --dist worksteal --cov=farebox_collector.ledger --cov-report=term-missing:skip-covered $(ARGS)

bench: $(INSTALLED) ## Measure: measure throughput beside the floor, latency, memory and large books (some five minutes)
	$(VENV_PYTHON) benchmarks/bench.py $(ARGS)

bench-peers: $(INSTALLED) ## Measure: measure Phoenix and MLflow beside it (needs the network, some fifteen minutes)
	$(VENV_PYTHON) -m pip install --quiet uv
	$(VENV_PYTHON) benchmarks/peers.py $(ARGS)

bench-growth: $(INSTALLED) ## Measure: measure a span's cost with more spans, wallets, rules, prices and tags
	$(VENV_PYTHON) benchmarks/growth.py $(ARGS)

bench-prices: $(INSTALLED) ## Measure: measure time and memory of the price book
	$(VENV_PYTHON) benchmarks/prices.py $(ARGS)

bench-replay: $(INSTALLED) ## Measure: measure time and memory of a replay
	$(VENV_PYTHON) benchmarks/replay.py $(ARGS)

bench-audit: $(INSTALLED) ## Measure: measure time and memory of an audit of N=1000000 records, and intake beside it
	$(VENV_PYTHON) benchmarks/audit.py --records $(or $(N),1000000) $(ARGS)

torture: $(INSTALLED) ## Check: kill processes, cut connections and fill disks on both databases (some ten minutes)
	$(VENV_PYTHON) tests/torture/run.py $(ARGS)

mutate: $(INSTALLED) ## Check: change the code of money at random places and ask the tests (ARGS='--seed 7 --sample 60')
	$(VENV_PYTHON) tests/mutation/run.py $(ARGS)

observe: $(INSTALLED) ## Run: run Prometheus and Alertmanager with our rules beside the demo; Ctrl-C ends them
	@$(VENV_PYTHON) alerts/observe.py $(ARGS)

preview: $(INSTALLED) ## Run: write the dashboards as pages and pictures, from what `make observe` gathered (ARGS=--help)
	@$(VENV_PYTHON) dashboards/preview.py $(ARGS)

backtest: $(INSTALLED) ## Check: run the alert rules over sixty days of known incidents (some ten minutes)
	$(VENV_PYTHON) benchmarks/backtest.py $(ARGS)

dashboards: $(INSTALLED) ## Write: write the dashboards' JSON from their code
	$(VENV_PYTHON) -W ignore::DeprecationWarning dashboards/render.py

bench-scrape: $(INSTALLED) ## Measure: measure one scrape of the metrics at the bounds of their labels
	$(VENV_PYTHON) benchmarks/scrape.py

bench-wallets: $(INSTALLED) ## Measure: measure holds on PostgreSQL, and an overview among ten million records (ARGS='--records 0')
	$(VENV_PYTHON) benchmarks/wallets.py $(ARGS)

bench-sdk: $(INSTALLED) ## Measure: measure what the SDK and its peers add to a call (needs the network once)
	$(VENV_PYTHON) benchmarks/sdk/run.py $(ARGS)

bench-reports: $(INSTALLED) ## Measure: measure overviews and reports over ten million records
	$(VENV_PYTHON) benchmarks/reports.py $(ARGS)

leaks-sdk: $(INSTALLED) ## Check: make 100,000 calls through the SDK; its memory has to stay flat
	FAREBOX_LEAK_CALLS=$(or $(N),100000) $(VENV_PYTHON) -m pytest -q -s tests/sdk/test_sdk_leaks.py

check: $(INSTALLED) ## Check: check style, types and imports only (under a minute)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	.venv/bin/lint-imports --no-logo
	$(VENV_PYTHON) -m mypy

docs: $(INSTALLED) ## Write: write the tables of the documentation from the code
	$(VENV_PYTHON) tests/tidy/doc_tables.py

record-dialects: $(INSTALLED) ## Write: record golden spans from the real emitters again (needs the network, npm and Node 20)
	$(VENV_PYTHON) -m pip install --quiet uv
	$(VENV_PYTHON) tests/dialects/recording/record.py $(ARGS)

record-agents: $(INSTALLED) ## Write: record golden sessions of the real coding agents again (needs the network, npm and Node 20)
	$(VENV_PYTHON) tests/dialects/recording/agents/record.py $(ARGS)

replayed: $(INSTALLED) ## Write: record conversations of real clients, replay them, and write the table of results
	$(VENV_PYTHON) tests/recordings/replayed.py

format: $(INSTALLED) ## Write: format the code and apply the linter's fixes
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

$(INSTALLED): requirements.lock pyproject.toml instrumentation/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Farebox needs Python 3.11 or later; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check \
	    --require-hashes --only-binary :all: --no-deps -r requirements.lock
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check \
	    --no-deps --no-build-isolation --editable . --editable ./instrumentation
	@touch $@

sbom: $(INSTALLED) ## Check: write dist/sbom.json (CycloneDX) from the lock of the image (needs the network once)
	$(VENV_PYTHON) deploy/supply/supply_chain.py sbom

scan: $(INSTALLED) ## Check: ask which vulnerabilities of the lock of the image are known (needs the network)
	$(VENV_PYTHON) deploy/supply/supply_chain.py scan

lock: $(INSTALLED) ## Write: resolve the dependencies again (needs the network)
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/python -m pip install --quiet uv
	.venv/lock/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-header --quiet pyproject.toml instrumentation/pyproject.toml --group dev --group demo -o requirements.lock
	.venv/lock/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-header --quiet pyproject.toml --extra parquet --constraint requirements.lock -o deploy/requirements.lock
	.venv/lock/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-header --quiet deploy/supply/requirements.in -o deploy/supply/requirements.lock

clean: ## Write: delete what make and the tools wrote
	rm -rf .venv .farebox .bench .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# Two commands: `make demo` runs the main job, `make test` proves it. Both set up .venv first, from a lock with hashes.
# Needs Python 3.11 or later (with venv), make and git. Paths are relative on purpose: the checkout may have a space in its.

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
INSTALLED := .venv/.installed
# What is compiled once is kept: without that, a third of each start of a collector is compiling it again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test bench bench-peers bench-growth bench-prices bench-replay bench-audit bench-wallets bench-reports bench-scrape bench-sdk leaks-sdk torture mutate observe preview backtest dashboards lint types docs record-dialects replayed format lock sbom scan clean

help:
	@echo "make demo         run collector, model server and example application; Ctrl-C ends it"
	@echo "make demo ONCE=1  the same once, checked, with status 0 when the books are right"
	@echo "make test         style, types, import direction and all tests"
	@echo "make bench-audit  time and memory of the audit on N=1000000 records, and ingestion beside it"
	@echo "make torture      try to lose or double money: some ten minutes of faults on both databases"
	@echo "make mutate       change money's code at random places and ask whether the tests notice (ARGS='--seed 7 --sample 60')"
	@echo "make observe      Prometheus and Alertmanager with our rules, beside the demo; Ctrl-C ends them"
	@echo "make preview      the dashboards as pages and pictures, from what make observe has gathered; ARGS=--help"
	@echo "make backtest     run the alert rules over sixty days of known incidents: some ten minutes"
	@echo "make dashboards   write the dashboards' JSON from their code"
	@echo "make bench        throughput beside the floor, latency, memory, large books: some five minutes"
	@echo "make bench-peers  the same beside Phoenix and MLflow, which it installs (needs the network): some fifteen minutes"
	@echo "make bench-growth what a span costs with more spans, wallets, rules, prices and tags: some ten minutes"
	@echo "make bench-prices time and memory of the price book"
	@echo "make bench-replay time and memory of pricing history anew"
	@echo "make bench-wallets  how long a hold takes on PostgreSQL, and an overview among ten million records (ARGS='--records 0')"
	@echo "make bench-sdk    what the SDK and its peers add to a call, in microseconds (needs the network once)"
	@echo "make bench-scrape  what one scrape of the metrics costs at the bounds of their labels"
	@echo "make bench-reports  overviews and reports over ten million records"
	@echo "make leaks-sdk    100,000 calls through the SDK, whose memory has to stay flat"
	@echo "make docs         write the tables of the documentation from the code"
	@echo "make record-dialects  record golden spans from the real emitters again (needs the network, npm and Node 20)"
	@echo "make replayed     record conversations of real clients, replay them, and write the table of what came out right"
	@echo "make format       format the code"
	@echo "make lock         resolve the dependencies again (needs the network)"
	@echo "make sbom         write dist/sbom.json (CycloneDX) from the image's lock (needs the network once)"
	@echo "make scan         ask which vulnerabilities of the image's lock are known (needs the network)"

demo: $(INSTALLED)
	@$(VENV_PYTHON) instrumentation/demo/run.py $(if $(ONCE),--once)

test: lint types $(INSTALLED)
	$(VENV_PYTHON) -m pytest -q -n 2 --dist worksteal --durations=25

bench: $(INSTALLED)
	$(VENV_PYTHON) benchmarks/bench.py $(ARGS)

bench-peers: $(INSTALLED)
	$(VENV_PYTHON) -m pip install --quiet uv
	$(VENV_PYTHON) benchmarks/peers.py $(ARGS)

bench-growth: $(INSTALLED)
	$(VENV_PYTHON) benchmarks/growth.py $(ARGS)

bench-prices: $(INSTALLED)
	$(VENV_PYTHON) benchmarks/prices.py $(ARGS)

bench-replay: $(INSTALLED)
	$(VENV_PYTHON) benchmarks/replay.py $(ARGS)

bench-audit: $(INSTALLED)
	$(VENV_PYTHON) benchmarks/audit.py --records $(or $(N),1000000) $(ARGS)

torture: $(INSTALLED)
	$(VENV_PYTHON) tests/torture/run.py $(ARGS)

mutate: $(INSTALLED)
	$(VENV_PYTHON) tests/mutation/run.py $(ARGS)

observe: $(INSTALLED)
	@$(VENV_PYTHON) alerts/observe.py $(ARGS)

preview: $(INSTALLED)
	@$(VENV_PYTHON) dashboards/preview.py $(ARGS)

backtest: $(INSTALLED)
	$(VENV_PYTHON) benchmarks/backtest.py $(ARGS)

dashboards: $(INSTALLED)
	$(VENV_PYTHON) -W ignore::DeprecationWarning dashboards/render.py

bench-scrape: $(INSTALLED)
	$(VENV_PYTHON) benchmarks/scrape.py

bench-wallets: $(INSTALLED)
	$(VENV_PYTHON) benchmarks/wallets.py $(ARGS)

bench-sdk: $(INSTALLED)
	$(VENV_PYTHON) benchmarks/sdk/run.py $(ARGS)

bench-reports: $(INSTALLED)
	$(VENV_PYTHON) benchmarks/reports.py $(ARGS)

leaks-sdk: $(INSTALLED)
	FAREBOX_LEAK_CALLS=$(or $(N),100000) $(VENV_PYTHON) -m pytest -q -s tests/sdk/test_sdk_leaks.py

lint: $(INSTALLED)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	.venv/bin/lint-imports --no-logo

types: $(INSTALLED)
	$(VENV_PYTHON) -m mypy

docs: $(INSTALLED)
	$(VENV_PYTHON) tests/tidy/doc_tables.py

record-dialects: $(INSTALLED)
	$(VENV_PYTHON) -m pip install --quiet uv
	$(VENV_PYTHON) tests/dialects/recording/record.py $(ARGS)

replayed: $(INSTALLED)
	$(VENV_PYTHON) tests/recordings/replayed.py

format: $(INSTALLED)
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

sbom: $(INSTALLED)
	$(VENV_PYTHON) deploy/supply/supply_chain.py sbom

scan: $(INSTALLED)
	$(VENV_PYTHON) deploy/supply/supply_chain.py scan

lock: $(INSTALLED)
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/python -m pip install --quiet uv
	.venv/lock/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-header --quiet pyproject.toml instrumentation/pyproject.toml --group dev --group demo -o requirements.lock
	.venv/lock/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-header --quiet pyproject.toml --extra parquet --constraint requirements.lock -o deploy/requirements.lock
	.venv/lock/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-header --quiet deploy/supply/requirements.in -o deploy/supply/requirements.lock

clean:
	rm -rf .venv .farebox .bench .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

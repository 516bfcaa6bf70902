# Every target sets up what it needs: a virtual environment from the lock, and RabbitMQ where the system's packages
# can be had without a question. PYTHON=… chooses the interpreter.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo up test lint matrix endings loss kills crashes deliveries operations chaos simulate sync-simulation mutants \
	fuzz costs bench reconciler postgres15 pictures docs lock audit clean rabbitmq servers

export PYTHON
BIN := .venv/bin
SETUP := pyproject.toml tools/install-environment

help: ## Show this text
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# `exec`: the command is then the child of make itself, and sees it when make is killed.
demo: .venv/.installed rabbitmq ## Run a billed fleet on real work and check its books
	@exec $(BIN)/billing demo $(ARGS)

up: .venv/.installed rabbitmq ## Run servers, workers, beat and Flower until Ctrl-C; data stay in .billing/
	@exec $(BIN)/billing up $(ARGS)

test: lint servers ## Run the linters and all tests, against real servers
	@exec $(BIN)/python -m pytest $(ARGS)

lint: .venv/.installed ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

matrix: .venv-5.6/.installed servers ## Run all tests with the other Celery version (5.6)
	@exec .venv-5.6/bin/python -m pytest $(ARGS)

endings: .venv/.installed .venv-5.6/.installed servers ## Run every ending of a task, each version, pool and broker; write docs/task-endings.md (ARGS=--help)
	@exec $(BIN)/python -m tests.endings $(ARGS)

loss: .venv/.installed servers ## Lose billing's Redis under 10,000 clients and 1,000 open holds, and count every credit
	@LOSS_SIZE=full exec $(BIN)/python -m pytest -s tests/chaos/test_lost_redis.py $(ARGS)

kills: .venv/.installed servers ## Kill a random worker or child each second under 10,000 tasks, and count every credit (SEED=)
	@KILLS_SIZE=full KILLS_SEED=$(SEED) exec $(BIN)/python -m pytest -s tests/chaos/test_killed_processes.py $(ARGS)

crashes: .venv/.installed servers ## Kill processes and servers at every named point between two steps, and count every credit
	@CRASHES=all exec $(BIN)/python -m pytest tests/chaos/test_crash_points.py $(ARGS)

deliveries: .venv/.installed servers ## Deliver 1,000,000 usage events with twins, poison and restarts, and count every one (EVENTS= SEED=)
	@DELIVERIES_EVENTS=$(or $(EVENTS),1000000) DELIVERIES_SEED=$(SEED) exec $(BIN)/python -m pytest -s tests/chaos/test_deliveries.py $(ARGS)

chaos: .venv/.installed servers ## Run a fleet through MINUTES=10 of every fault there is (SEED=), and check every law
	@exec $(BIN)/python -m tests.chaos.storm --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(ARGS)

operations: .venv/.installed ## Compare buckets with their twin over random operations (OPERATIONS=1000000 SEED= PROCESSES=2, ARGS=--faults)
	@exec $(BIN)/python -m tests.contract.walking --operations $(or $(OPERATIONS),1000000) \
		--processes $(or $(PROCESSES),2) $(if $(SEED),--seed $(SEED)) $(ARGS)

simulate: .venv/.installed ## Run simulated fleets with every fault, to the invoice (SEED= STEPS=100000 RUNS=1 | MINUTES=, PROCESSES=1, MUTANT=)
	@exec $(BIN)/python -m tests.simulation --steps $(or $(STEPS),100000) --runs $(or $(RUNS),1) --minutes $(or $(MINUTES),0) \
		--processes $(or $(PROCESSES),1) $(if $(SEED),--seed $(SEED)) $(if $(MUTANT),--mutant $(MUTANT))

sync-simulation: .venv/.installed ## Run the simulated sync to Stripe with every fault (SEED= CLIENTS=10000 DAYS=30, ARGS=--knobs)
	@exec $(BIN)/python -m tests.simulation.sync --clients $(or $(CLIENTS),10000) --days $(or $(DAYS),30) \
		$(if $(SEED),--seed $(SEED)) $(ARGS)

mutants: .venv/.installed servers ## Put small faults into a copy of the code, and see the tests notice each (PROCESSES=2, ARGS=--only L1)
	@exec $(BIN)/python -m tests.mutants --processes $(or $(PROCESSES),2) $(ARGS)

fuzz: .venv/.installed ## Fuzz every decoder and parser of outside bytes (SECONDS_EACH=30 TARGET=… PROCESSES=1); findings in build/fuzz
	@exec $(BIN)/python -m tests.fuzz $(TARGET) --seconds $(or $(SECONDS_EACH),30) --processes $(or $(PROCESSES),1) $(ARGS)

costs: .venv/.installed servers ## Count what billing costs, beside what is recorded: commands, statements, bytes (ARGS=--record)
	@exec $(BIN)/python -m tests.cost $(ARGS)

bench: .venv/.installed rabbitmq ## Measure, beside the alternatives (QUICK=1; ARGS=log: a group; DOCUMENT=1: docs/performance.md)
	@exec $(BIN)/python -m benchmarks $(if $(filter-out 0,$(DOCUMENT)),--document) $(ARGS)

reconciler: .venv/.installed servers ## Find one credit among 10,000 clients beside a fleet at work, and say how fast
	@RECONCILER_CLIENTS=10000 exec $(BIN)/python -m pytest -s -o timeout=3600 tests/integration/test_reconciler_load.py $(ARGS)

postgres15: .venv/.installed servers ## Run every test of the tables, the log and its readers on an older PostgreSQL (15)
	@BILLING_EMBEDDED_POSTGRES=$(or $(POSTGRES),/usr/lib/postgresql/15/bin) exec $(BIN)/python -m pytest \
		tests/integration -k "migrate or partitions or archive or usage or ledger or posting or receipt or reconcil \
		or stripe or parked or allowance or roles or balance" $(ARGS)

pictures: .venv/.installed servers ## Make the pictures of the documentation anew (docs/receipt.png, docs/flower-*.png)
	@$(BIN)/python -m tests.receipt_picture
	@exec $(BIN)/python -m tests.flower_pictures

docs: .venv/.installed ## Build the documentation into build/docs; a warning is an error
	@exec $(BIN)/python -m sphinx -b html -c docs -W --keep-going -n -q -E $(ARGS) . build/docs

lock: .venv/.installed ## Write the locked requirements anew (ARGS=--upgrade for newer versions)
	tools/lock $(ARGS)

audit: ## Look the locked requirements up in a list of known vulnerabilities (AUDIT_REQUIRED=1: fail without it)
	@PYTHON=$(or $(PYTHON),python3) tools/audit $(ARGS)

clean: ## Remove what the other targets made, except the data in .billing/
	rm -rf .venv .venv-* build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

rabbitmq:
	@tools/install-servers rabbitmq-server

servers:
	@tools/install-servers rabbitmq-server redis-server postgresql chromium prometheus systemd

.venv/.installed: requirements/celery-5.7.txt $(SETUP)
	@tools/install-environment .venv $<
	@touch $@

.venv-5.6/.installed: requirements/celery-5.6.txt $(SETUP)
	@tools/install-environment .venv-5.6 $<
	@touch $@

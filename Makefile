# The two commands a newcomer needs are `make run` and `make test`; `make check` is what CI holds every change to.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*##.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help:  ## say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

# An environment is good while the hashed files it came from are unchanged.
$(VENV)/installed: requirements/dev.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

run: $(VENV)/installed  ## sandbox providers, web, worker and a little traffic; Ctrl-C stops it all
	@$(BIN)/pointsman run

# Compiled modules are kept, whatever the environment says: else each of four test processes compiles for 5 s.
test: $(VENV)/installed  ## every test, on SQLite and on a real PostgreSQL
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 3 --dist worksteal

check: $(VENV)/installed  ## formatting, lint, types, import rules, known faults of packages; what CI holds a change to
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/audit.py requirements/runtime.txt

format: $(VENV)/installed  ## mend formatting and imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-both: $(VENV)/installed  ## the same, and each test about the router on SQLite and on PostgreSQL; 8 minutes
	ROUTER_TEST_BOTH=1 $(MAKE) test

overload: $(VENV)/installed  ## five times as many customers as can be served, for a minute; 2 minutes
	$(BIN)/python -m tests.load.overload $(OVERLOAD)

soak: $(VENV)/installed  ## half an hour at half of capacity, with faults: what grows, and do the books agree
	$(BIN)/python -m tests.load.soak $(SOAK)

rolling: $(VENV)/installed  ## web processes replaced in turn while customers pay; 2 minutes
	$(BIN)/python -m tests.load.rolling $(ROLLING)

database-away: $(VENV)/installed  ## a PostgreSQL restarted, crashed, paused for ten seconds while customers pay; 3 minutes
	$(BIN)/python -m tests.load.away $(AWAY)

rotations: $(VENV)/installed  ## API keys, webhook secrets and encryption keys replaced while customers pay; 3 minutes
	$(BIN)/python -m tests.load.rotation $(ROTATIONS)

EXAMPLES ?= 200
outside: $(VENV)/installed  ## every call of the OpenAPI document with sense and nonsense, and webhooks of noise; 10 minutes
	$(BIN)/python -m tests.outside.described --examples $(EXAMPLES)
	NOISE=3000 $(BIN)/pytest -q --timeout=900 tests/outside/test_noise.py

chaos: $(VENV)/installed  ## every fault, kills and pauses on real processes, on both databases; 4 minutes
	$(BIN)/python -m tests.e2e.at_length $(CHAOS)

flips: $(VENV)/installed  ## outages, toggles, LaunchDarkly away: one flip each, everyone follows; an hour
	$(BIN)/python -m tests.e2e.flips_at_length $(FLIPS)

parked: $(VENV)/installed  ## a thousand payments parked and paid, one worker and two, killed and not, both databases; 6 minutes
	$(BIN)/python -m tests.e2e.parked_at_length $(PARKED)

KAFKA_JARS ?= .kafka
kafka: $(VENV)/installed  ## a real broker (needs Java 17 and Maven): 10,000 events, kills, 30 s without it; 5 minutes
	test -d $(KAFKA_JARS) || mvn -q -B -f tests/e2e/kafka/pom.xml dependency:copy-dependencies \
		-DincludeScope=runtime -DoutputDirectory=$(abspath $(KAFKA_JARS))
	ROUTER_TEST_KAFKA_HOME=$(KAFKA_JARS) $(BIN)/pytest -q -s tests/e2e/test_kafka_real.py

SEEDS ?= 5000
simulate: $(VENV)/installed  ## thousands of seeded interleavings of faults, crashes and payments; SEED=n replays one
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

simulate-mutants: $(VENV)/installed  ## break the router on purpose, and find the first seed that catches each
	$(BIN)/python -m tests.simulation.mutants

ROUTING ?= --seeds 20 --payments 200000
simulate-routing: $(VENV)/installed  ## ways of choosing a provider compared on simulated weeks; 5 minutes
	$(BIN)/pointsman simulate-routing $(ROUTING)

flip-table: $(VENV)/installed  ## an hour of flapping, and a day of outages: what became of the primary flag; 1 minute
	$(BIN)/pytest -q -s tests/unit/test_flips_at_length.py

console-pictures: $(VENV)/installed  ## pictures of every page of the console, for docs/; needs chromium; 5 minutes
	CONSOLE_PICTURES=docs/console $(BIN)/pytest -q --timeout=600 tests/e2e/test_console_browser.py

BENCH ?=
bench: $(VENV)/installed  ## what the router costs beside what it is compared with, as a table and JSON; BENCH=--quick is 2 minutes
	$(BIN)/python bench/speed.py $(BENCH)

AGAINST ?= main
bench-safety: $(VENV)/installed  ## payments/s against an earlier commit's (AGAINST=<tag or commit>); 2 minutes
	$(BIN)/python bench/safety.py --against $(AGAINST)

bench-breaker: $(VENV)/installed  ## ns per guarded call, beside four libraries; 1 minute
	$(BIN)/python bench/breaker.py

bench-flags: $(VENV)/installed  ## µs for reading all flags for one payment, over the real SDK; 1 minute
	$(BIN)/python bench/reading_flags.py

bench-decisions: $(VENV)/installed  ## requests/s of POST /v1/decisions beside an empty endpoint; 1 minute
	$(BIN)/python bench/decisions.py

bench-webhooks: $(VENV)/installed  ## p50 and p99 of a payment without webhook endpoints, with a well one, with slow ones; 3 minutes
	$(BIN)/python bench/webhooks.py

bench-deciding: $(VENV)/installed  ## µs for a decision with scores of 60 segments, and for a learning step; 20 s
	$(BIN)/python bench/deciding.py

RECONCILE ?= --lines 100000 --planted 50
reconcile-at-length: $(VENV)/installed  ## 100,000 settlement lines of each vendor, 50 differences of each kind, twice; 2 minutes
	$(BIN)/python -m tests.integration.reconcile_at_length $(RECONCILE)

PAYMENTS ?= 5000,20000
TRIALS ?= 200
replay-honesty: $(VENV)/installed  ## do the intervals of `pointsman replay` hold the truth? 200 simulated logs of each size; 4 minutes
	$(BIN)/python -m bench.replay_honesty --payments $(PAYMENTS) --trials $(TRIALS)

CALLS ?= 1000000
RUNS ?= 9
bench-alarms: $(VENV)/installed  ## a million healthy calls at each correlation: zero opens; how soon faults are noticed; 4 minutes
	$(BIN)/python -m bench.false_alarms --calls $(CALLS) --runs $(RUNS)

REPORTED ?= 1000000
reports-at-length: $(VENV)/installed  ## a million payments: every report against plain Python, its times, its memory; 20 minutes
	$(BIN)/python -m bench.reports --payments $(REPORTED) $(if $(LEDGER),--ledger $(LEDGER))

sbom: $(VENV)/installed  ## what a release is made of (CycloneDX), from the hashed requirements, into build/sbom.json
	mkdir -p build
	$(BIN)/cyclonedx-py requirements requirements/runtime.txt --pyproject pyproject.toml --output-reproducible \
		--of JSON -o build/sbom.json

audit: $(VENV)/installed  ## known faults of what the service runs on; says so and goes on where no database can be reached
	$(BIN)/python .ci/audit.py requirements/runtime.txt

TRANSCRIPTS ?= --count 100000
transcripts: $(VENV)/installed  ## 100,000 exchanges with card numbers planted: none is to be found anywhere; 15 minutes
	$(BIN)/python -m tests.integration.transcripts $(TRANSCRIPTS)

lock:  ## make the hashed requirement files anew (needs uv)
	for f in build runtime dev; do uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header requirements/$$f.in -o requirements/$$f.txt; done

clean:  ## remove the environment and what runs left behind
	rm -rf $(VENV) .run build *.egg-info

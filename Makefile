# The everyday commands. `make run` shows the product, `make test` is what CI
# runs; both work from a clean clone.

SHELL := /bin/sh
CARGO := cargo
# Cargo.lock is part of the repository: what was tested is what is built.
LOCKED := --locked
# How many trials `make faults` runs, and how long it takes at most. `make test`
# gives it, and the soak, 35 s.
FAULTS_TRIALS := 600
FAULTS_SECONDS := 1800
# How long `make faults-off` looks for what each safeguard is for.
SAFEGUARD_SECONDS := 60
SOAK_SECONDS := 600
ROLLING_CLIENTS := 3000
# How long `make failover` has Redis away.
FAILOVER_SECONDS := 30
# Repeats the random draws of a run of these two; `make simulate SEED=n` runs
# that seed alone, and prints each step.
SEED := 1
# How many seeds `make simulate` runs.
SEEDS := 100000
SUITES := $(CARGO) test $(LOCKED) --package runcast --test suites
SUITE := $(SUITES) -- --nocapture --exact
# How long each fuzz target runs with `make fuzz`.
FUZZ_SECONDS := 300
# `make instructions UPDATE=1` takes what it counts as the new budgets;
# `CASES="hub path"`, here and for `make micro`, only cases of such names.
INSTRUCTIONS := $(CARGO) --config actors/benches/profile.toml test $(LOCKED) --workspace \
	--features runcast-actors/bench --bench instructions

# The oldest kubectl we are tried with; the installed one is used otherwise.
OLD_KUBECTL := target/kubectl-1.20/usr/bin/kubectl

.PHONY: help run console test test-frontend test-kubectl-1.20 test-deps lint fmt deny sbom schemathesis bench scale micro \
	instructions failover faults faults-off soak soak-hostile rolling simulate fuzz image-test

help:
	@echo 'make run     start Runcast with a demo run; needs only the Rust toolchain'
	@echo 'make console build the console, which the next build of Runcast takes in (needs Node)'
	@echo 'make test    install what the tests need, then run everything (what CI runs)'
	@echo 'make test-frontend  lint, types, unit tests, size, a real browser'
	@echo 'make test-kubectl-1.20  run the tests of the kubectl backend with kubectl 1.20'
	@echo 'make lint    formatting and lints'
	@echo 'make fmt     format the code'
	@echo 'make deny    licences, bans, sources and advisories of the dependencies'
	@echo 'make schemathesis  look for answers that the OpenAPI document does not have'
	@echo 'make sbom    write what the program and the pages are built of, as CycloneDX, into target/sbom'
	@echo 'make bench   measure a release build, write docs/performance.md'
	@echo 'make scale   measure how its costs grow and who disturbs whom, write docs/scale.md'
	@echo 'make micro   time the parts of an event'"'"'s way, and count what they allocate'
	@echo 'make instructions  count their instructions; fails past actors/benches/budgets.toml'
	@echo 'make failover  FAILOVER_SECONDS (30) without Redis under load, for clients of auto'
	@echo 'make faults  FAULTS_TRIALS (600) of random faults, with SEED; write docs/reliability.md'
	@echo 'make faults-off  show what is found without each safeguard; write the same'
	@echo 'make soak    steady load for SOAK_SECONDS (600 unless given), with SEED'
	@echo 'make soak-hostile  2,000 clients beside hostile ones for SOAK_SECONDS (1200)'
	@echo 'make rolling replace three brokers behind HAProxy, one by one, under ROLLING_CLIENTS (3000)'
	@echo 'make simulate  the order of durable events under SEEDS (100000) seeds of faults'
	@echo 'make image-test  build both container images without a registry, stream a run through them (root)'
	@echo 'make fuzz    fuzz each target for FUZZ_SECONDS (300 unless given)'

# The dev profile, with optimised dependencies: it is built in a fraction of the
# time of a release (fat LTO) and shares its artefacts with `make test`.
run:
	scripts/build-console --if-possible
	$(CARGO) run $(LOCKED) --package runcast -- dev

console:
	scripts/build-console

test: test-deps console lint
	INSTRUCTIONS='$(INSTRUCTIONS)' scripts/test

# The browser tests start the broker that is built first. `npm ci` and our own
# Node, where the system's is too old, are test-deps' work.
test-frontend: test-deps console
	$(CARGO) build $(LOCKED) --package runcast
	scripts/test-frontend

# The tests of the kubectl backend with Debian 12's kubectl, unpacked beside the
# installed one.
test-kubectl-1.20: $(OLD_KUBECTL)
	RUNCAST_TEST_KUBECTL="$(CURDIR)/$(OLD_KUBECTL)" \
		$(CARGO) test $(LOCKED) --package runcast --test integration kubectl

$(OLD_KUBECTL):
	scripts/unpack-kubectl-1.20

test-deps:
	scripts/install-test-deps

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) --workspace --features runcast-actors/bench --bench micro --bench instructions -- -D warnings
	@# Without the feature kubernetes-api, which the program has by default.
	$(CARGO) clippy $(LOCKED) --package runcast-actors -- -D warnings
	@# The fuzz crates have a lock file of their own, which our dependencies change.
	@$(CARGO) metadata $(LOCKED) --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null

fmt:
	$(CARGO) fmt --all

# Both install what they need into target/tools.
deny:
	scripts/supply-chain deny

sbom:
	scripts/supply-chain sbom

schemathesis:
	scripts/schemathesis

bench:
	scripts/bench

scale: test-deps
	scripts/scale

# As a release is built.
micro:
	$(CARGO) bench $(LOCKED) --package runcast-actors --features bench --bench micro -- --sort location $(CASES)

# Built with the dependencies of `make test`, and counted in ten seconds.
instructions: test-deps
	$(INSTRUCTIONS) -- $(CASES) $(if $(UPDATE),--update)

failover: test-deps
	RUNCAST_FAILOVER_SECONDS=$(FAILOVER_SECONDS) $(SUITE) failover::failover

faults: test-deps
	RUNCAST_FAULTS_TRIALS=$(FAULTS_TRIALS) RUNCAST_FAULTS_SECONDS=$(FAULTS_SECONDS) \
		RUNCAST_FAULTS_REPORT="$(CURDIR)/docs/reliability.md" \
		RUNCAST_SEED=$(SEED) $(SUITE) faults::faults

# A build whose safeguards can be switched off, and that can be told to fail,
# which nothing else uses.
faults-off: test-deps
	$(CARGO) test $(LOCKED) --package runcast --test integration --features fault-switches -- quarantine
	RUNCAST_FAULTS_SECONDS=$(SAFEGUARD_SECONDS) \
		RUNCAST_FAULTS_REPORT="$(CURDIR)/docs/reliability.md" \
		RUNCAST_SEED=$(SEED) $(SUITES) --features fault-switches -- \
		--nocapture --exact faults::safeguards

soak: test-deps
	RUNCAST_SOAK_SECONDS=$(SOAK_SECONDS) RUNCAST_SEED=$(SEED) $(SUITE) soak::soak

soak-hostile: SOAK_SECONDS := 1200
soak-hostile: test-deps
	RUNCAST_SOAK_SECONDS=$(SOAK_SECONDS) RUNCAST_SEED=$(SEED) $(SUITE) hostile::hostile

# A minute; `make test` has it with 150 clients.
rolling: test-deps
	RUNCAST_ROLLING_CLIENTS=$(ROLLING_CLIENTS) $(SUITE) rolling::rolling

# A seed given on the command line is replayed.
simulate:
	SEEDS=$(SEEDS) $(if $(filter command environment,$(firstword $(origin SEED))),SEED=$(SEED)) \
		$(CARGO) test $(LOCKED) --profile simulation --package runcast-actors --test simulation -- --nocapture

# Those of the program, too.
fuzz:
	FUZZ_PROGRAM=1 scripts/fuzz $(FUZZ_SECONDS)

# Not part of `make test`: most of it is a release build.
image-test:
	scripts/image-test

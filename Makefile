.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
RUN := .venv/bin/python -m
# Tests start hundreds of Python programs. Without stored bytecode, each start takes 0.7 s more of the processor.
export PYTHONDONTWRITEBYTECODE :=

.venv/.ready: pyproject.toml uv.lock tests/setup.sh
	@tests/setup.sh

.PHONY: setup ## Make the Python environment from the lock
setup: .venv/.ready

.PHONY: demo ## Show a complete run: cluster, chart, backup, restore, byte-for-byte check
demo: setup
	$(RUN) tests.cluster run -- .venv/bin/python -m tests.demo

.PHONY: test ## Run everything: lint, unit, contract, integration, e2e on a real cluster
test: lint packages integration
	@# The cluster's tests wait most of the time, so the unit tests run at the same time with less priority.
	$(MAKE) --no-print-directory -j 2 BESIDE="nice -n 10" unit e2e

.PHONY: test-fast ## Run everything except the e2e tests
test-fast: lint packages unit integration

.PHONY: test-long ## Run tests that take minutes: earlier releases read what this one writes (needs the repository's history), random changes
test-long: setup
	$(RUN) tests.cluster tools
	$(RUN) pytest -n 2 --dist loadfile tests/long
	$(RUN) pytest -n 2 tests/unit tests/simulation tests/contract tests/integration -m long
	$(RUN) tests.cluster run -- .venv/bin/python -m pytest tests/e2e -m "e2e and long"

.PHONY: lint ## Check style, types, imports between rooms, generated files, prose and links
lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	.venv/bin/python crds/generate.py --check
	$(RUN) tests.lint

.PHONY: packages ## Install the Debian packages that tests and cluster need
packages: setup
	$(RUN) tests.cluster packages

.PHONY: unit ## Run unit, simulation and contract tests: no cluster, no network
unit: setup
	$(BESIDE) $(RUN) pytest -n auto tests/unit tests/simulation tests/contract -m "not integration and not e2e and not bench and not long"

.PHONY: integration ## Run tests with a real API server and a real S3 server
integration: setup
	$(RUN) tests.cluster tools
	$(RUN) pytest -n 3 --dist loadfile tests/unit tests/simulation tests/contract tests/integration -m "integration and not e2e and not bench and not long"

.PHONY: e2e ## Run tests on a real cluster: kubelet, CSI snapshots, chart, image
e2e: setup
	$(RUN) tests.cluster tools kubectl helm csi-sanity
	$(RUN) tests.cluster run -- .venv/bin/python -m tests.e2e

.PHONY: scale ## Measure the operator with 10,000 backups on a real API server
scale: setup
	$(RUN) tests.cluster tools
	$(RUN) tests.scale

.PHONY: scale-schedules ## Measure one schedule with 10,000 volumes, while the operator is killed; SCALE=--help: options
scale-schedules: setup
	$(RUN) tests.cluster tools
	$(RUN) tests.scale.schedules $(SCALE)

.PHONY: scale-manifests ## Measure the commands for a lost cluster with 10,000 manifests on a real S3 server; 5 minutes
scale-manifests: setup
	$(RUN) tests.cluster tools
	$(RUN) tests.scale.manifests

.PHONY: scale-imports ## Measure how an empty cluster adopts 10,000 stored backups; 10 minutes
scale-imports: setup
	$(RUN) tests.cluster tools
	$(RUN) tests.scale.imports

.PHONY: bench ## Compare with restic and kopia in 15 minutes (the first time 2 to 5 more); BENCH=--help: options
bench: packages
	$(RUN) tests.bench $(BENCH)

.PHONY: compare ## Compare speed and memory with another revision: BASE=REVISION; 25 minutes, on a quiet machine
compare: packages
	$(RUN) tests.cluster tools
	$(RUN) tests.bench.revisions $(BASE)

.PHONY: memory ## Measure the memory of movers for a directory with a million files; fails above 256 MiB
memory: setup
	$(RUN) tests.cluster tools
	$(RUN) tests.memory

.PHONY: retention ## Measure what a year of dailies stores while a policy removes old ones, in 10 minutes; RETENTION=--help: options
retention: setup
	$(RUN) tests.retention $(RETENTION)

.PHONY: cinder-answers ## Record the answers of the real OpenStack Cinder for the gateway's tests
cinder-answers: setup
	"$$($(RUN) tests.openstack.environments cinder)" -W ignore -m tests.openstack.record

.PHONY: soak ## Work at random on a real cluster for half an hour, while processes are killed and paused
soak: setup
	$(RUN) tests.cluster run -- .venv/bin/python -m tests.soak

.PHONY: upgrade ## Upgrade a real cluster from the newest recorded release during a backup; needs the repository's history
upgrade: setup
	$(RUN) tests.cluster run -- .venv/bin/python -m tests.upgrade.cluster

.PHONY: times ## Show where the time of a small backup and restore goes, on a real cluster
times: setup
	$(RUN) tests.cluster run -- .venv/bin/python -m tests.times

.PHONY: fuzz-gateway ## Send the gateway valid and invalid requests from its OpenAPI document, for about ten minutes
fuzz-gateway: packages
	$(RUN) tests.cluster tools
	CINDERBLOCK_FUZZ_EXAMPLES=100 $(RUN) pytest tests/integration/test_gateway_fuzzing.py

.PHONY: tempest ## Run OpenStack's own integration tests of volume backups on a real cluster
tempest: setup
	$(RUN) tests.openstack.environments clients >/dev/null
	$(RUN) tests.cluster run -- .venv/bin/python -m tests.openstack.run_tempest

.PHONY: image ## Build the image from the Dockerfile, without Docker
image: setup
	$(RUN) tests.cluster.image

.PHONY: crds ## Write crds/ and the chart's copy from the models
crds: setup
	.venv/bin/python crds/generate.py

.PHONY: cluster-up ## Start the single-node test cluster
cluster-up: setup
	$(RUN) tests.cluster up

.PHONY: cluster-down ## Stop the test cluster and remove everything it left
cluster-down: setup
	$(RUN) tests.cluster down

.PHONY: cluster-status ## Show which parts of the test cluster run
cluster-status: setup
	$(RUN) tests.cluster status

.PHONY: help ## Show this list
help:
	@grep -E '^\.PHONY: .*## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = "\\.PHONY: | ## "}; {printf "  make %-15s %s\n", $$2, $$3}'

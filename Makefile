# Names for what the scripts do. Everything works without make, too: see scripts/.

.DEFAULT_GOAL := help
.PHONY: help setup demo test calendar cel matching simulate fuzz faults mutants simulate-faults bench what-if smoke schemas check clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## check the toolchain and fetch the pinned nats-server; repeating it costs nothing
	@scripts/setup >/dev/null

demo: ## a whole mesh on this machine: from a failing metric to the task that it causes
	@scripts/demo

test: ## build everything and run every test, against a real nats-server
	@scripts/test

calendar: ## a million random schedules against another implementation, and what a slot costs
	@scripts/calendar

cel: ## our conditions against the public vectors of the CEL specification
	@scripts/cel

matching: ## what an event costs beside 100,000 definitions that it does not set off
	@scripts/matching

simulate: ## what a month of the example's mesh costs on a virtual clock, in triggers a second
	@scripts/simulate

fuzz: ## every parser against whatever bytes break it, 60 s each; ARGS="--seconds 600 cron"
	@scripts/fuzz $(ARGS)

faults: ## harm a mesh of real processes under load for three minutes, and account for all of it; ARGS="--seconds 600"
	@scripts/faults $(ARGS)

mutants: ## eleven deliberate bugs, each of which the fault test must notice; ARGS=ack-first
	@scripts/mutants $(ARGS)

simulate-faults: ## ten thousand seeds of faults over a modelled broker; ARGS="--minutes 20"
	@scripts/simulate-faults $(ARGS)

bench: ## ticks of 1k, 10k and 100k definitions in one second, beside the server's own schedules
	@scripts/bench $(ARGS)

what-if: ## backtests and dry-runs by the second, beside what cannot be done without; ARGS="--events 1000000"
	@scripts/what-if $(ARGS)

smoke: ## the container images and the compose file, driven from outside
	@scripts/smoke

schemas: ## write the JSON Schemas of the file formats anew, after a key was added
	@KAIZEN_WRITE_SCHEMAS=1 cargo test --locked --package kaizen-registry --lib the_schemas_in_the_docs

check: ## formatting, lints, docs, spelling, links, dependencies, architecture, manifests
	@scripts/check

clean: ## remove what was built; keeps the fetched tools in .tools/
	cargo clean
	rm -rf .kaizen-mesh

# Everything one does with this repository. `make` alone lists it.

.DEFAULT_GOAL := help
.PHONY: help up down delete build test lint fuzz bench compare conformance

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## Build Ekso, start a cluster, deploy the example application, show that it answers
	@scripts/up

down: ## Stop the cluster and keep its data
	@scripts/ekso down

delete: ## Remove the cluster without trace
	@scripts/ekso delete

build: ## Build the release binary, .tmp/bin/ekso
	@scripts/build

test: ## Run every test there is, with a summary at the end
	@scripts/test

lint: ## Check format, lints, dependency rules and tidiness
	@scripts/lint

fuzz: ## Feed every reader of outside input with made-up input, some seconds each
	@scripts/fuzz

bench: ## Measure, with the peers beside: a table of figures
	@scripts/bench

compare: ## Play the same requests to upstream's API server and to ours, and print where the answers differ
	@scripts/compare

conformance: ## Run the conformance suite of Kubernetes, the real one: an hour, half of it compiling
	@scripts/conformance

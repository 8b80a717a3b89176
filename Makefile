# `make` lists the targets. Longer recipes are in scripts/, and nothing here installs anything by itself:
# scripts/need.sh names what is missing and the command that installs it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

DIR   ?= .dev/certs
SEEDS ?= 2000
TOOLS := bin/tools/.built
need  := scripts/need.sh

.NOTPARALLEL:

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/' | \
		while IFS=$$'\t' read -r name what; do printf '  make %-10s %s\n' "$$name" "$$what"; done

# The demo

.PHONY: up down demo
up: images ## the demo in containers: director, two failing workers, a client; in the foreground
	@$(need) compose
	scripts/compose.sh up

down: ## remove what `make up` started, its network and its volume
	@$(need) docker compose
	scripts/compose.sh down --volumes --remove-orphans

demo: build ## the same demo without Docker; ends with the client's stream and its exit code
	@scripts/demo.sh

# Proof

.PHONY: test check sim e2e bench
test: check sim e2e ## everything: check, sim, e2e

check: $(TOOLS) ## format, vet, lint, tidy, drift of generated files, tests with -race, short fuzzing
	@scripts/check.sh

sim: ## the simulated cluster: SEEDS=2000 for many seeds, SEED=17 for one again with its trace
	@$(need) go
	@scripts/sim.sh $(if $(SEED),-seed=$(SEED),-seeds=$(SEEDS))

e2e: images ## black-box tests of the real images
	go test ./e2e/container/... -count=1 -timeout=20m -parallel=3 -v

bench: build ## 45 minutes: gaps of failovers and planned swaps, cost beside bare relays, routing; tables and JSON lines
	go run ./e2e/bench -json .dev/bench.jsonl
	@echo "as JSON lines: .dev/bench.jsonl"

# Parts

.PHONY: build images certs generate fmt lint tidy fuzz clean
build: ## bin/director, bin/worker, bin/client: static
	@$(need) go
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o bin/ ./services/director ./services/worker ./services/client

images: ## connswap/director:dev, …/worker:dev, …/client:dev, and :previous, which speak the protocol before
	@scripts/images.sh

certs: build ## development certificates in DIR=.dev/certs; valid ones are kept
	bin/director certs $(DIR)

generate: $(TOOLS) ## protobuf code and docs/CONFIGURATION.md
	@scripts/generate.sh

fmt: $(TOOLS) ## format the sources
	bin/tools/golangci-lint fmt

lint: $(TOOLS) ## lint all modules
	bin/tools/golangci-lint run $$(go list -m -f '{{.Dir}}/...')

tidy: ## tidy all modules
	@$(need) go
	go work sync
	for dir in $$(go list -m -f '{{.Dir}}') tools; do go -C "$$dir" mod tidy; done

fuzz: ## fuzz each decoder, longer than check does: FUZZTIME=1m
	@$(need) go
	@scripts/fuzz.sh $(or $(FUZZTIME),1m)

clean: ## remove what was built here; images stay
	rm -rf bin .dev .cache

# The linter takes a minute to build, once.
$(TOOLS): tools/go.mod tools/go.sum
	@$(need) go
	mkdir -p bin/tools
	GOWORK=off go -C tools build -o ../bin/tools/ tool
	@touch $@

# `make` lists the targets. Longer recipes are in scripts/. What a target needs and is not there, scripts/need.sh installs
# where it may, and says so; NO_INSTALL=1 has it name the command instead.

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

.PHONY: demo up down
demo: build ## director, three failing workers, a client; ends with the client's stream. WORKERS=1 leaves one
	@scripts/demo.sh

up: images ## the same in containers, which write logs, until Ctrl-C
	@$(need) compose
	@scripts/up.sh

down: ## remove what `make up` started, its network and its volume
	@$(need) docker compose
	scripts/compose.sh down --volumes --remove-orphans

# Proof

.PHONY: test ready check sim soak e2e inference bench attack
test: ready check sim soak e2e ## everything: check, sim, soak, e2e

ready: # before the first minutes are spent
	@$(need) go modules cc docker compose

check: $(TOOLS) ## format, vet, lint, tidy, drift of generated files, tests with -race, short fuzzing
	@scripts/check.sh

sim: ## the simulated cluster: SEEDS=2000 for many seeds, SEED=17 for one again with its trace
	@$(need) go modules
	@scripts/sim.sh $(if $(SEED),-seed=$(SEED),-seeds=$(SEEDS))

soak: build ## real processes with faults, for SOAK=1m: every stream whole, and nothing grows
	go run ./e2e/soak -for $(or $(SOAK),1m)

e2e: inference images ## black-box tests: of the real images, and behind real inference servers
	@$(need) compose
	go test ./e2e/container/... -count=1 -timeout=20m -parallel=3 -v

inference: build ## the same behind real inference servers: Ollama, which is built once (OLLAMA=PATH: one that is there)
	@scripts/inference.sh
	go test ./e2e/inference/... -count=1 -timeout=10m -v

attack: build ## a minute: what strangers can do to a director, and how honest clients fare; loopback only
	go run ./e2e/attack

bench: build ## 90 minutes: gaps of failovers and planned swaps, cost beside bare relays and reverse proxies, routing; tables and JSON lines
	go run ./e2e/bench -json .dev/bench.jsonl
	@echo "as JSON lines: .dev/bench.jsonl"

# Parts

.PHONY: build images certs generate fmt lint tidy fuzz yardstick clean
build: ## bin/director, bin/worker, bin/client: static
	@$(need) go modules
	CGO_ENABLED=0 go build -trimpath -buildvcs=false \
		-ldflags="-X github.com/connswap/connswap/shared/wire.Build=$$(scripts/build-name.sh)" \
		-o bin/ ./services/director ./services/worker ./services/client

images: ## connswap/director:dev, …/worker:dev, …/client:dev, and :other, which claim another version of the protocol
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

yardstick: ## methods per type, files that call each other both ways, comments, lines; TREE=dir of another commit
	@$(need) go
	@GOWORK=off go -C tools run ./yardstick $(abspath $(or $(TREE),.))

clean: ## remove what was built here; images stay
	rm -rf bin .dev

# The linter takes a minute to build, once.
$(TOOLS): tools/go.mod tools/go.sum $(wildcard tools/*/*.go)
	@$(need) go modules
	mkdir -p bin/tools
	GOWORK=off go -C tools build -o ../bin/tools/ tool
	@touch $@

#!/usr/bin/env bash
# What can be said about the sources without Docker, cheapest first; stops at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
	local started=$SECONDS
	echo "check: $1"
	shift
	"$@"
	if ((SECONDS - started > 9)); then echo "check: … $((SECONDS - started)) s"; fi
}

format() {
	bin/tools/golangci-lint fmt --diff || {
		echo "not formatted: make fmt" >&2
		return 1
	}
}

tidy() {
	local dir
	while read -r dir; do
		go -C "$dir" mod tidy -diff || {
			echo "$dir is not tidy: make tidy" >&2
			return 1
		}
	done < <(go list -m -f '{{.Dir}}' && echo tools)
}

lint() {
	go list -m -f '{{.Dir}}/...' | xargs bin/tools/golangci-lint run
	(cd tools && GOWORK=off ../bin/tools/golangci-lint run ./...)
}

# The tests of the images are `make e2e`: they need Docker, and the images.
tests() {
	go list work | grep -v '/e2e/\(container\|inference\)' | xargs go test -race -shuffle=on -timeout=15m
}

scripts/need.sh go cc
step format format
step vet go vet work
step lint lint
step 'tidy modules' tidy
step 'generated files' scripts/generate.sh -check
step 'tests, with the race detector' tests
step fuzzing scripts/fuzz.sh "${FUZZTIME:-30000x}"

#!/usr/bin/env bash
# Builds connswap/director:dev, connswap/worker:dev and connswap/client:dev, and with the tag other what claims
# another version of the protocol in the tests: director and worker. The base image first, where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/need.sh docker go
scripts/base-image.sh

# The build reaches modules the way this machine does. What is at its default is not handed on: it would be an
# argument more, and other layers than those of a plain `docker compose up`.
args=(--build-arg "BUILD=$(scripts/build-name.sh)")
for name in HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy GO_IMAGE; do
	if [[ -n ${!name:-} ]]; then args+=(--build-arg "$name"); fi
done
for name in GOPROXY GOSUMDB GONOSUMDB GOPRIVATE; do
	if [[ -n $(go env -changed "$name") ]]; then args+=(--build-arg "$name=$(go env "$name")"); fi
done

if ! docker image inspect connswap/director:dev >/dev/null 2>&1; then echo "image: the first time takes a minute or two"; fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
build() { # TARGET IMAGE
	echo "image: $2"
	docker build ${args[@]+"${args[@]}"} -f deploy/Dockerfile --target "$1" -t "$2" . >"$log" 2>&1 || {
		tail -n 40 "$log" >&2
		exit 1
	}
}
for role in director worker client; do build "$role" "connswap/$role:dev"; done
for role in director worker; do build "$role-other" "connswap/$role:other"; done

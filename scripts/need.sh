#!/usr/bin/env bash
# need.sh TOOL… ends with one line for each tool that is missing, naming the command that installs it.
# Nothing is installed from here.
set -euo pipefail

missing=0
lacks() {
	echo "missing: $1" >&2
	missing=1
}

need_go() {
	command -v go >/dev/null ||
		lacks "Go 1.26 or later. Install it from https://go.dev/dl/"
}

need_cc() { # the race detector is linked with C
	command -v "$(go env CC 2>/dev/null || echo gcc)" >/dev/null ||
		lacks "a C compiler, for go test -race. Install it with: sudo apt-get install gcc libc6-dev"
}

need_protoc() {
	command -v protoc >/dev/null ||
		lacks "protoc. Install it with: sudo apt-get install protobuf-compiler"
}

need_docker() {
	local answer
	if ! command -v docker >/dev/null; then
		lacks "Docker. Install it with: sudo apt-get install docker.io (or see https://docs.docker.com/engine/install/)"
	elif ! answer=$(timeout 20 docker info 2>&1 >/dev/null) && [[ $answer == *"permission denied"* ]]; then
		lacks "the right to use Docker. Get it with: sudo usermod -aG docker $(id -un), then log in again"
	elif ! timeout 20 docker info >/dev/null 2>&1; then
		lacks "a running Docker daemon. Start it with: sudo systemctl start docker"
	fi
}

need_compose() {
	docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null ||
		lacks "Docker Compose. Install it with: sudo apt-get install docker-compose (or docker-compose-plugin)"
}

need_busybox() {
	command -v busybox >/dev/null ||
		lacks "busybox, for a Go image without a registry. Install it with: sudo apt-get install busybox-static"
}

need_ca() {
	[[ -r /etc/ssl/certs/ca-certificates.crt ]] ||
		lacks "CA certificates. Install them with: sudo apt-get install ca-certificates"
}

for tool in "$@"; do
	"need_$tool"
done
exit "$missing"

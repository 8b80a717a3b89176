#!/usr/bin/env bash
# need.sh TOOL… makes sure that each TOOL is there. One that is missing is installed, and one line says so, where this
# user may: on Debian and its kin, as root or with sudo that asks for no password. Elsewhere, and with NO_INSTALL=1,
# nothing is changed; a line for each says what is missing and which command installs it, and the exit code is 1.
#
# A tool X is three things here: has_X looks for it, get_X installs it, lack_X names it. Without get_X it is only named.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT

say() {
	echo "need: $1" >&2
}

root() {
	if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi
}

# may_install is false where the machine is left as it is.
may_install() {
	[[ -z ${NO_INSTALL:-} ]] && command -v apt-get >/dev/null && root true 2>/dev/null
}

# packages WHY PACKAGE… installs those that this release of the distribution has; what "a|b" means is the first of both.
packages() {
	local why=$1 choice name found=()
	shift
	root apt-get -qq update >"$log" 2>&1 || true # if it matters, installing says so
	for choice in "$@"; do
		for name in ${choice//|/ }; do
			if LC_ALL=C apt-cache policy "$name" | grep 'Candidate: [^(]' >/dev/null; then
				found+=("$name")
				break
			fi
		done
	done
	say "installing ${found[*]-}, for $why"
	root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -qq -o DPkg::Lock::Timeout=300 \
		--no-install-recommends install ${found[@]+"${found[@]}"} </dev/null >"$log" 2>&1 || tail -n 5 "$log" >&2
}

has_go() { # Go from 1.21 on fetches the version that go.work asks for, unless told not to
	local version
	version=$(go env GOVERSION 2>/dev/null) && printf '%s\n' go1.26 "$version" | sort -CV
}
lack_go() {
	echo "Go 1.26 or later. Install it from https://go.dev/dl/"
}

# The modules that the roles are built from, or what Go needs to fetch them.
has_modules() {
	[[ -r ${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} || -e /etc/ssl/cert.pem || -e /etc/pki/tls/certs ]] ||
		GOPROXY=off go list -deps ./services/... >/dev/null 2>&1
}
get_modules() {
	packages "fetching Go modules" ca-certificates
}
lack_modules() {
	lack_ca
}

has_cc() { # the race detector is linked with C; gcc alone has no headers
	echo 'int main(void) { return 0; }' |
		$(go env CC 2>/dev/null || echo gcc) -include stdlib.h -x c -o /dev/null - 2>/dev/null
}
get_cc() {
	packages "go test -race" gcc libc6-dev
}
lack_cc() {
	echo "a C compiler, for go test -race. Install it with: sudo apt-get install gcc libc6-dev"
}

# What Ollama is built with, beside a C compiler.
has_inference() {
	printf '#include <nlohmann/json.hpp>\n#include <stb/stb_image.h>\nint main() { return 0; }\n' |
		g++ -x c++ -fsyntax-only - 2>/dev/null
}
get_inference() {
	packages "Ollama" g++ nlohmann-json3-dev libstb-dev
}
lack_inference() {
	echo "what Ollama is built with. Install it with: sudo apt-get install g++ nlohmann-json3-dev libstb-dev"
}

# Docker is the command, a daemon that runs, and the right to talk to it.
has_docker() {
	command -v docker >"$log" && timeout 20 docker info >"$log" 2>&1
}
get_docker() {
	command -v docker >/dev/null || packages "the images" docker.io docker-cli # from Debian 13 on two packages
	if has_docker || [[ -n ${DOCKER_HOST:-} ]]; then return; fi
	forbidden || start_daemon
	if ! has_docker && forbidden; then admit; fi
}
lack_docker() {
	if ! command -v docker >/dev/null; then
		echo "Docker. Install it with: sudo apt-get install docker.io (or see https://docs.docker.com/engine/install/)"
	elif forbidden; then
		echo "the right to use Docker. Get it with: sudo usermod -aG docker $(id -un), then log in again"
	else
		echo "a running Docker daemon. Start it with: sudo systemctl start docker (or: sudo dockerd)"
	fi
}

# forbidden is true if there is a daemon that does not talk to this user, as has_docker was told.
forbidden() {
	grep -qi 'permission denied' "$log"
}

# start_daemon leaves a daemon that outlives this script: the service manager's, or one by itself where none starts it,
# as in many containers and small virtual machines.
start_daemon() {
	local output=/var/log/dockerd.log i
	say "starting the Docker daemon"
	root service docker start </dev/null >/dev/null 2>&1
	for ((i = 0; i < 120; i++)); do
		if root docker info >/dev/null 2>&1; then return; fi
		if ((i == 20)) && ! pidof dockerd >/dev/null; then
			say "starting dockerd, since no service manager does; it writes to $output"
			root sh -c "setsid nohup dockerd </dev/null >>$output 2>&1 &"
		fi
		sleep 0.5
	done
	say "the Docker daemon does not start"
	root tail -n 10 "$output" >&2
}

# admit lets this user talk to the daemon: from the next login on as one of its group, and until then as the owner of
# the socket.
admit() {
	local user socket=/var/run/docker.sock
	user=$(id -un)
	say "adding $user to the group docker, and giving it $socket until it logs in again"
	root usermod -aG docker "$user" && root chown "$user" "$socket"
}

has_compose() {
	docker compose version >/dev/null 2>&1 || docker-compose version >/dev/null 2>&1
}
get_compose() {
	packages "the demo in containers" 'docker-compose-plugin|docker-compose-v2|docker-compose'
}
lack_compose() {
	echo "Docker Compose. Install it with: sudo apt-get install docker-compose (or docker-compose-v2, docker-compose-plugin)"
}

has_busybox() {
	command -v busybox >/dev/null
}
get_busybox() {
	packages "a Go image without a registry" busybox-static
}
lack_busybox() {
	echo "busybox, for a Go image without a registry. Install it with: sudo apt-get install busybox-static"
}

has_ca() {
	[[ -r /etc/ssl/certs/ca-certificates.crt ]]
}
get_ca() {
	packages "the images" ca-certificates
}
lack_ca() {
	echo "CA certificates. Install them with: sudo apt-get install ca-certificates"
}

missing=0
for tool in "$@"; do
	if "has_$tool"; then continue; fi
	if may_install && declare -F "get_$tool" >/dev/null; then "get_$tool" || true; fi
	if ! "has_$tool"; then
		echo "missing: $("lack_$tool")" >&2
		missing=1
	fi
done
exit "$missing"

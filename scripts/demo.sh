#!/usr/bin/env bash
# The demo without Docker: a director, three workers that fail every now and then, and a client, on loopback. Ends when
# the client's stream has ended, with the client's exit code, and leaves nothing running.
#
# Every variable of docs/CONFIGURATION.md can be set in the environment, for instance
#
#	CONNECTION_SWAP_WORKER_FAILURE_MODE=exit make demo
#
# WORKERS=1 or 2 starts fewer workers.
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/failures.sh

# Livelier than the roles' own defaults: half a minute of text, and a failure every few seconds.
export CONNECTION_SWAP_WORKER_FAILURE_MIN=${CONNECTION_SWAP_WORKER_FAILURE_MIN:-4s}
export CONNECTION_SWAP_WORKER_FAILURE_MAX=${CONNECTION_SWAP_WORKER_FAILURE_MAX:-9s}
export CONNECTION_SWAP_WORKER_TOKEN_INTERVAL=${CONNECTION_SWAP_WORKER_TOKEN_INTERVAL:-150ms}
export CONNECTION_SWAP_CLIENT_MAX_TOKENS=${CONNECTION_SWAP_CLIENT_MAX_TOKENS:-200}
export CONNECTION_SWAP_CLIENT_PROMPT=${CONNECTION_SWAP_CLIENT_PROMPT:-Once upon a time}
export CONNECTION_SWAP_TLS_DIR=${CONNECTION_SWAP_TLS_DIR:-.dev/certs}
# On loopback: whoever is on this machine may look.
export CONNECTION_SWAP_MGMT_PLAIN_STATUS=${CONNECTION_SWAP_MGMT_PLAIN_STATUS:-true}

logs=.dev/demo
rm -rf "$logs"
mkdir -p "$logs"

# Runs a command in a process group of its own: Ctrl-C at the terminal reaches this script alone, which then ends
# things in their order.
pids=()
start() {
	set -m
	"$@" </dev/null &
	set +m
	pids+=($!)
}

cleanup() {
	local pid i
	trap - EXIT INT TERM
	for pid in ${pids[@]+"${pids[@]}"}; do kill -TERM -- "-$pid" 2>/dev/null || true; done
	for ((i = 0; i < 50; i++)); do
		alive || return 0
		sleep 0.1
	done
	for pid in "${pids[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
}
alive() {
	local pid
	for pid in ${pids[@]+"${pids[@]}"}; do
		if kill -0 -- "-$pid" 2>/dev/null; then return 0; fi
	done
	return 1
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

director() {
	CONNECTION_SWAP_DIRECTOR_USER_ADDR=127.0.0.1:61000 CONNECTION_SWAP_DIRECTOR_MGMT_ADDR=127.0.0.1:61001 \
		CONNECTION_SWAP_DIRECTOR_ID=director bin/director "$@"
}

worker() { # NAME USER-PORT MGMT-PORT [COMMAND]
	CONNECTION_SWAP_WORKER_LABEL=$1 CONNECTION_SWAP_WORKER_USER_ADDR=127.0.0.1:$2 \
		CONNECTION_SWAP_WORKER_MGMT_ADDR=127.0.0.1:$3 CONNECTION_SWAP_DIRECTOR_MGMT_ADDR=127.0.0.1:61001 \
		bin/worker "${@:4}"
}

# What systemd or Docker do: a worker that died (failure mode "exit") is started again. One that never was ready has
# a reason to die that will not go away.
keep_worker() {
	local status
	while :; do
		status=0
		worker "$@" || status=$?
		[[ -e $logs/ready ]] || return "$status"
		echo "demo: $1 ended with exit code $status, starting it again"
		sleep 0.1
	done
}

# wait_ready NAME COMMAND… until the command says yes; ends the demo with the last words of NAME if it died before.
wait_ready() {
	local name=$1 pid=${pids[${#pids[@]} - 1]} i
	shift
	for ((i = 0; i < 150; i++)); do
		if ! kill -0 "$pid" 2>/dev/null; then break; fi
		if "$@" >/dev/null 2>&1; then return 0; fi
		sleep 0.1
	done
	echo "demo: $name did not start:" >&2
	tail -n 5 "$logs/$name.log" >&2
	exit 1
}

bin/director certs "$CONNECTION_SWAP_TLS_DIR" >"$logs/certs.log" 2>&1 || {
	cat "$logs/certs.log" >&2
	exit 1
}
start director >"$logs/director.log" 2>&1
wait_ready director director healthz
number=0
for name in "${workers[@]}"; do
	number=$((number + 1))
	start keep_worker "$name" "6200$number" "6300$number" >"$logs/$name.log" 2>&1
	wait_ready "$name" worker "$name" "6200$number" "6300$number" healthz
done
touch "$logs/ready"

echo "demo: director$(printf ', %s' "${workers[@]}") are up; failure mode $CONNECTION_SWAP_WORKER_FAILURE_MODE, after" \
	"$CONNECTION_SWAP_WORKER_FAILURE_MIN to $CONNECTION_SWAP_WORKER_FAILURE_MAX, for $CONNECTION_SWAP_WORKER_RECOVERY"
cat <<'EOF'
demo: meanwhile any program that speaks OpenAI's API can read too, from http://localhost:61000/v1:

    curl -N localhost:61000/v1/chat/completions -H 'content-type: application/json' -d '{"model":"markov","stream":true,"messages":[{"role":"user","content":"Once upon a time"}]}'

EOF

start env CONNECTION_SWAP_DIRECTOR_TARGET=127.0.0.1:61000 bin/client generate
client=$!
trap 'kill -INT "$client" 2>/dev/null || true' INT TERM # it says that it was cancelled, and exits with 130
status=0
while kill -0 "$client" 2>/dev/null; do wait "$client" || true; done
wait "$client" || status=$?

echo
echo "demo: what the others say: $logs/director.log$(printf " $logs/%s.log" "${workers[@]}")"
exit "$status"

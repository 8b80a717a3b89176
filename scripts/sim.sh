#!/usr/bin/env bash
# sim.sh -seed=N runs one seed of the simulated cluster and prints its trace; sim.sh -seeds=N runs seeds 1 to N.
#
# A seed replays exactly only where goroutines take turns the same way each time: one processor, no asynchronous
# preemption. So a process runs on one processor, and many seeds are dealt out to one process per processor. With them goes the
# matrix of OpenAI's API, cut at every chunk; `make check` plays a part of it, with the race detector.
set -euo pipefail
cd "$(dirname "$0")/.."

logs=$(mktemp -d)
pids=()
cleanup() {
	if ((${#pids[@]})); then kill "${pids[@]}" 2>/dev/null || true; fi
	rm -rf "$logs"
}
trap cleanup EXIT

go test -c -o "$logs/sim.test" ./e2e/sim
cd e2e/sim
export GOMAXPROCS=1 GODEBUG=asyncpreemptoff=1
simulate() {
	"$logs/sim.test" -test.run '^TestSimulation$' -test.timeout=60m "$@"
}

if [[ $1 == -seed=* ]]; then
	simulate -test.v "$1"
	exit
fi

shards=$(getconf _NPROCESSORS_ONLN)
echo "sim: ${1#-seeds=} seeds in $shards processes"
started=$SECONDS
for ((i = 0; i < shards; i++)); do
	simulate "$1" -shard="$i/$shards" >"$logs/$i" 2>&1 &
	pids+=($!)
done

failed=0
env -u GOMAXPROCS -u GODEBUG "$logs/sim.test" -test.run '^TestMatrix' -test.timeout=30m -cuts=6 || failed=1
for ((i = 0; i < shards; i++)); do
	wait "${pids[i]}" || failed=1
	cat "$logs/$i"
done
pids=()
echo "sim: $((SECONDS - started)) s"
exit "$failed"

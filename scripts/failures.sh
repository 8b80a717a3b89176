# shellcheck shell=bash
# Sourced by both demos: which workers there are, how they fail and for how long. WORKERS=1 shows what happens when no
# worker is left.
#
# With three workers, failures of 300 ms are as good as never simultaneous: all three are down at once in one of 40 runs
# of `make demo`, for 0.1 s on average, which is less than a token takes. A failure that the director has to notice by
# itself lasts long enough to be noticed: hang and drop after half a second, slow after some tokens' time.

workers=(worker-a worker-b worker-c)
if [[ ! ${WORKERS:=3} =~ ^[1-3]$ ]]; then
	echo "WORKERS=$WORKERS: give 1, 2 or 3" >&2
	exit 2
fi
workers=("${workers[@]::WORKERS}")

export CONNECTION_SWAP_WORKER_FAILURE_MODE=${CONNECTION_SWAP_WORKER_FAILURE_MODE:-error}
case $WORKERS-$CONNECTION_SWAP_WORKER_FAILURE_MODE in
1-* | *-slow) recovery=4s ;;
*-hang | *-drop) recovery=1s ;;
*) recovery=300ms ;;
esac
export CONNECTION_SWAP_WORKER_RECOVERY=${CONNECTION_SWAP_WORKER_RECOVERY:-$recovery}

if ((WORKERS == 1)); then
	echo "demo: one worker: whenever it fails, none is left, and the text stops until it is back and then goes on"
fi

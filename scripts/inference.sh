#!/usr/bin/env bash
# inference.sh makes a real inference server for tests, where it is not there: Ollama from the Go module proxy, for CPUs only, and tiny models of
# nonsense words. It takes some four minutes of CPU, once. OLLAMA=PATH is one that is there already.
#
# What is made lies in INFERENCE_DIR, .dev/inference if that is not set, and may be shared by several checkouts.
set -euo pipefail
cd "$(dirname "$0")/.."

version=v0.17.4
dir=${INFERENCE_DIR:-.dev/inference}
mkdir -p "$dir/models"
dir=$(cd "$dir" && pwd)
source=e2e/inference

exec 9>"$dir/.lock"
flock 9

if [[ -z ${OLLAMA:-} && ! -x $dir/bin/ollama-$version ]]; then
	scripts/need.sh go modules cc inference
	echo "inference: building Ollama $version, once; that takes some minutes" >&2
	# The shim stands in for an audio header that archives of modules do not have.
	export GOPATH=$dir/go GOBIN=$dir/bin GOWORK=off GOFLAGS=-mod=mod CGO_ENABLED=1
	export CGO_CPPFLAGS="-I$PWD/$source/ollama/shim -I/usr/include" CGO_CFLAGS=-O2 CGO_CXXFLAGS=-O2
	go install -p 2 "github.com/ollama/ollama@$version" 2>&1 | grep -v 'warning:\|^go: \|note:\|^ \|^#\|In file\|In func\|In mem\|In static\|from ' >&2 || true
	[[ -x $dir/bin/ollama ]]
	mv "$dir/bin/ollama" "$dir/bin/ollama-$version"
	chmod -R u+w "$dir/go" && rm -rf "$dir/go" # the archives, and a cache that nobody else uses
	unset GOPATH GOBIN GOWORK GOFLAGS CGO_CPPFLAGS CGO_CFLAGS CGO_CXXFLAGS
fi

model() { # model NAME FLAG…
	[[ -s $dir/models/$1.gguf ]] && return
	[[ -x $dir/bin/tinygguf ]] || (cd "$source/tinygguf" && GOWORK=off go build -o "$dir/bin/tinygguf" .)
	"$dir/bin/tinygguf" "${@:2}" -o "$dir/models/$1.gguf.new" >&2
	mv "$dir/models/$1.gguf.new" "$dir/models/$1.gguf"
}
model words -mode words
model frag -mode frag
model utf8 -mode utf8
model slow -mode words -embd 256 -layers 6 -heads 8 -ff 512 # some milliseconds a token

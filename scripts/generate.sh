#!/usr/bin/env bash
# Generates the protobuf code and docs/CONFIGURATION.md. With -check it changes nothing, and fails where a generated
# file is not what its source says.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=shared/wire/wirepb

if [[ ${1:-} != -check ]]; then
	bin/tools/protogo "$dir" "$dir"
	go run ./shared/config/gendoc
	exit 0
fi

go run ./shared/config/gendoc -check

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
bin/tools/protogo "$dir" "$out"
# Which compiler it was is written into the file, and does not matter.
if ! diff -u -I '^// 	protoc  ' -x '*.proto' "$dir" "$out"; then
	echo "$dir is not what its sources say: make generate" >&2
	exit 1
fi

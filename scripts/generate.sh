#!/usr/bin/env bash
# Generates the protobuf code and docs/CONFIGURATION.md. With -check it changes nothing, and fails where a generated
# file is not what its source says.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=shared/wire/wirepb

if [[ ${1:-} != -check ]]; then
	scripts/need.sh protoc
	protoc --plugin=bin/tools/protoc-gen-go --proto_path="$dir" --go_out="$dir" --go_opt=paths=source_relative \
		"$dir"/*.proto
	go run ./shared/config/gendoc
	exit 0
fi

go run ./shared/config/gendoc -check

if ! scripts/need.sh protoc; then
	echo "NOT CHECKED: whether $dir is what its source says" >&2
	exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
protoc --plugin=bin/tools/protoc-gen-go --proto_path="$dir" --go_out="$out" --go_opt=paths=source_relative \
	"$dir"/*.proto
# Which protoc it was is written into the file, and does not matter.
for file in "$out"/*.go; do
	if ! diff -u -I '^// 	protoc  ' "$dir/$(basename "$file")" "$file"; then
		echo "$dir/$(basename "$file") is not what its source says: make generate" >&2
		exit 1
	fi
done

#!/usr/bin/env bash
# fuzz.sh BUDGET fuzzes every Fuzz function of the workspace for that long: a number of inputs (30000x) or a time (1m).
# A failing input is kept by go test under the package's testdata/fuzz and is a test case from then on.
#
# Prefer a number where a machine decides: with a time, Go 1.26 can fail with "context deadline exceeded" although
# nothing was found (golang/go#75804).
set -euo pipefail
cd "$(dirname "$0")/.."

found=0
while read -r dir; do
	for file in "$dir"/*_test.go; do
		[[ -e $file ]] || continue
		for name in $(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$file"); do
			found=1
			echo "fuzz: ${dir#"$PWD"/} $name"
			go -C "$dir" test -run '^$' -fuzz "^$name\$" -fuzztime "$1" -fuzzminimizetime 1s . </dev/null |
				sed -E '/^(PASS|ok )/d'
		done
	done
done < <(go list -f '{{.Dir}}' work)

if ((!found)); then
	echo "fuzz: there are no Fuzz functions" >&2
	exit 1
fi

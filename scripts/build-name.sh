#!/usr/bin/env bash
# Names what is built from this tree, as --version says it: tag or commit, and whether something was changed since. It is
# dev where the tree is not the top of a repository, or git is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -e .git ]] && command -v git >/dev/null && git describe --tags --always --dirty 2>/dev/null; then exit; fi
echo dev

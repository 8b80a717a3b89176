#!/usr/bin/env bash
# The demo in containers, in the foreground. Every variable that deploy/docker-compose.yml names can be set in the
# environment; WORKERS=1 or 2 starts fewer workers.
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/failures.sh
exec scripts/compose.sh up director "${workers[@]}" client

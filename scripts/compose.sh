#!/usr/bin/env bash
# compose.sh ARGUMENT… runs whichever Compose is installed, in the root of the project, where .env names the file.
set -euo pipefail
cd "$(dirname "$0")/.."

if docker compose version >/dev/null 2>&1; then
	exec docker compose "$@"
fi
exec docker-compose "$@"

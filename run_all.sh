#!/usr/bin/env bash
# The whole paper with one command: environment if needed, then `minddiff run`.
# ./run_all.sh [--profile smoke|demo|nsd] [--help]
set -euo pipefail
cd "$(dirname "$0")"
. tests/setup.sh
exec minddiff run "$@"

#!/usr/bin/env bash
# Every check of the project: environment if needed, style, layers, types, tests.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/setup.sh
export OMP_NUM_THREADS=1
ruff format --check .
ruff check .
lint-imports
mypy
exec pytest "$@"

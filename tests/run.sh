#!/usr/bin/env bash
# Every check of the project: environment if needed, style, layers, types, tests.
set -euo pipefail
cd "$(dirname "$0")/.."
LOCKS="requirements.lock requirements-cluster.lock requirements-tests.lock"
. tests/setup.sh
export OMP_NUM_THREADS=1
ruff format --check .
ruff check .
lint-imports
mypy
# a module per worker, because its fixtures are dear; conftest.py puts the longest first
exec pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@"

# Sourced by run_all.sh and tests/run.sh: makes .venv from the lock files in LOCKS, once.
# A second call costs milliseconds; a changed lock file makes it anew.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="${PYTHON:-python3}"
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Python 3.11 or later is needed: install it, or name it with PYTHON=/path/to/python3." >&2
    exit 1
fi
for LOCK in ${LOCKS:-requirements.lock}; do
    STAMP="$ROOT/.venv/$LOCK.sha256"
    WANTED="$(cat "$ROOT/$LOCK" "$ROOT/pyproject.toml" | sha256sum | cut -d' ' -f1)"
    [ "$(cat "$STAMP" 2>/dev/null)" != "$WANTED" ] || continue
    echo "Setting up .venv from $LOCK (once; a few minutes) ..." >&2
    [ -x "$ROOT/.venv/bin/python" ] || "$PYTHON" -m venv "$ROOT/.venv"
    # torch first: the pin picks the build that fits this machine
    TORCH="$(grep '^torch==' "$ROOT/$LOCK" || true)"
    [ -z "$TORCH" ] || "$ROOT/.venv/bin/python" -m pip install --quiet "$TORCH"
    "$ROOT/.venv/bin/python" -m pip install --quiet --requirement "$ROOT/$LOCK"
    "$ROOT/.venv/bin/python" -m pip install --quiet --no-deps --editable "$ROOT"
    echo "$WANTED" > "$STAMP"
done
PATH="$ROOT/.venv/bin:$PATH"
export PATH

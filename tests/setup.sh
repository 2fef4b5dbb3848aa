# Sourced by run_all.sh and tests/run.sh: makes .venv from the lock files in LOCKS, once.
# A second call costs milliseconds; a changed lock file brings it up to date. A stamp holds
# the lock file's digest, the place and Python's version: in a clone that was copied or
# renamed, with another Python, or after a set-up that was cut off, .venv is made anew.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="$ROOT/.venv"
version_of() { "$1" -c 'import sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null; }
VERSION="$([ -n "${PYTHON:-}" ] || version_of "$VENV/bin/python" || true)"
PYTHON="${PYTHON:-python3}"
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Python 3.11 or later is needed: install it, or name it with PYTHON=/path/to/python3." >&2
    exit 1
fi
VERSION="${VERSION:-$(version_of "$PYTHON")}"
MADE="$ROOT
$VERSION"
for STAMP in "$VENV"/*.sha256; do
    [ -e "$STAMP" ] || continue  # without a stamp it is the user's own, and not emptied
    PLACE="$(sed 1d "$STAMP")"
    # stamps were one line once: then the scripts tell
    [ -n "$PLACE" ] || ! head -n 2 "$VENV/bin/pip" 2>/dev/null | grep -qF "$VENV/bin/" || continue
    [ "$PLACE" != "$MADE" ] || continue
    echo "Making .venv anew: it was made elsewhere, or not to its end ..." >&2
    "$PYTHON" -m venv --clear "$VENV"
    break
done
for LOCK in ${LOCKS:-requirements.lock}; do
    STAMP="$VENV/$LOCK.sha256"
    WANTED="$(cat "$ROOT/$LOCK" "$ROOT/pyproject.toml" | sha256sum | cut -d' ' -f1)
$MADE"
    [ "$(cat "$STAMP" 2>/dev/null)" != "$WANTED" ] || continue
    echo "Setting up .venv from $LOCK (once; a few minutes) ..." >&2
    mkdir -p "$VENV"
    printf 'unfinished\nunfinished\n' > "$STAMP"
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m venv "$VENV"
    # torch first: the pin picks the build that fits this machine
    TORCH="$(grep '^torch==' "$ROOT/$LOCK" || true)"
    [ -z "$TORCH" ] || "$VENV/bin/python" -m pip install --quiet "$TORCH"
    "$VENV/bin/python" -m pip install --quiet --requirement "$ROOT/$LOCK"
    # the package itself comes with what a run needs; the other files only add to it
    [ "$LOCK" != requirements.lock ] ||
        "$VENV/bin/python" -m pip install --quiet --no-deps --editable "$ROOT"
    echo "$WANTED" > "$STAMP"
done
PATH="$VENV/bin:$PATH"
export PATH

#!/usr/bin/env bash
# The whole paper with one command: environment if needed, then `minddiff run`.
# ./run_all.sh [--profile smoke|demo|nsd] [options of `minddiff run`] [--help]
set -euo pipefail
cd "$(dirname "$0")"
case "${1:-}" in
    -h | --help)
        # help costs no set-up: the options themselves are known once .venv is there
        echo "./run_all.sh: environment if needed, then \`minddiff run\` (profile demo)."
        .venv/bin/minddiff run --help 2>/dev/null && exit 0
        echo "  --profile smoke|demo|nsd   size of the run; nsd needs --nsd-root PATH"
        echo "  --profile nsd --rehearse   nsd on synthetic data of its sizes: needs no data"
        echo "  --subjects 1,2  --only 03,04  --from 02  --jobs N  --shards N  --force  --dry-run"
        exit 0
        ;;
esac
. tests/setup.sh
exec minddiff run "$@"

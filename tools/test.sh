#!/usr/bin/env bash
# Builds everything with warnings as errors and runs every test, the slow ones included.
#   tools/test.sh           all of it
#   tools/test.sh --quick   without the slow tests
# JOBS=n sets the number of parallel jobs (default: all cores).
set -euo pipefail
cd "$(dirname "$0")/.."

slow=(-C Slow)
for argument in "$@"; do
  case $argument in
    --quick) slow=() ;;
    *) echo "usage: tools/test.sh [--quick]" >&2; exit 2 ;;
  esac
done
jobs=${JOBS:-$(nproc)}

tools/packages.sh
cmake --preset ci
cmake --build --preset ci --parallel "$jobs"
ctest --preset ci "${slow[@]}"

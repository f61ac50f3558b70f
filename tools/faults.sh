#!/usr/bin/env bash
# Makes every write, fsync, rename and open fail, one a run, and a sample of allocations, or kills the program there:
# while commands are registered, in a training, in one that goes on, and in a stream with its saves. What comes of it in
# the end must be the bytes of one that nothing happened to, with nothing left over. By hand: hundreds of trainings; a few
# of each are slow tests.
#   tools/faults.sh [start|training|resume|stream ...]      all four without one
# JOBS: cores to build on. TALLY_FAULTS_FROM=write:120: where a part that was stopped goes on.
set -euo pipefail
cd "$(dirname "$0")/.."

parts=("$@")
if [ ${#parts[@]} -eq 0 ]; then parts=(start training resume stream); fi
cmake --preset ci >/dev/null
cmake --build --preset ci --parallel "${JOBS:-$(nproc)}" --target test_tools
for part in "${parts[@]}"; do
  case $part in
    start) name="each allocation of a start fails" ;;
    training) name="each call of a training fails" ;;
    resume) name="each call of a training that goes on fails" ;;
    stream) name="each call of a stream fails" ;;
    *) echo "usage: tools/faults.sh [start|training|resume|stream ...]" >&2; exit 2 ;;
  esac
  echo "== $part"
  TALLY_NUM_THREADS=1 build-ci/tests/test_tools "$name"
done

#!/usr/bin/env bash
# Looks for bytes that break a reader: libFuzzer (Clang 14) with address and undefined-behaviour sanitizers over
# tests/fuzz/, where each reader also writes what it read and reads it again. By hand; the replay test (test_fuzz) goes
# through the seeds and tests/fuzz/corpus on every run of the tests.
#   tools/fuzz.sh [SECONDS [READER ...]]      seconds a reader (default 600); all readers
# Prints executions, coverage and findings of each. Corpora grow in build-fuzz/corpus/READER, findings lie in
# build-fuzz/findings/READER: one that is kept goes to tests/fuzz/corpus/READER. JOBS: cores to build on.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-600}
case $seconds in *[!0-9]* | "") echo "usage: tools/fuzz.sh [SECONDS [READER ...]]" >&2; exit 2 ;; esac
shift || true
readers=("$@")
if [ ${#readers[@]} -eq 0 ]; then
  readers=(safetensors npy json config manifest delimited gzip serving state session_log)
fi

cmake --preset fuzz >/dev/null
cmake --build --preset fuzz --parallel "${JOBS:-$(nproc)}" --target fuzz
work=$PWD/build-fuzz
temporary=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)/tally-fuzz-XXXXXX")
trap 'rm -rf "$temporary"' EXIT

printf '%-12s %12s %9s %9s %9s  %s\n' reader executions per_s coverage corpus findings
status=0
for reader in "${readers[@]}"; do
  mkdir -p "$work/corpus/$reader" "$work/findings/$reader" "$work/seeds/$reader" "$temporary/$reader"
  kept=()
  if [ -d "tests/fuzz/corpus/$reader" ]; then kept=("tests/fuzz/corpus/$reader"); fi
  log=$work/findings/$reader.log
  ended=0
  TALLY_FUZZ_READER=$reader TALLY_FUZZ_SEEDS=$work/seeds/$reader TMPDIR=$temporary/$reader TALLY_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    "$work/tests/fuzz" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 -max_len=16384 \
    -print_final_stats=1 -artifact_prefix="$work/findings/$reader/" \
    "$work/corpus/$reader" "$work/seeds/$reader" "${kept[@]}" >"$log" 2>&1 || ended=$?
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
  coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
  findings=$(find "$work/findings/$reader" -type f | wc -l)
  printf '%-12s %12s %9s %9s %9s  %s\n' "$reader" "${executions:--}" "${rate:--}" "${coverage:--}" \
    "$(find "$work/corpus/$reader" -type f | wc -l)" "$findings"
  if [ "$ended" -ne 0 ] || [ "$findings" -ne 0 ]; then
    status=1
    echo "see $log"
  fi
done
exit $status

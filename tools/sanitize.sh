#!/usr/bin/env bash
# Runs the tests under the sanitizers: AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer in one build,
# ThreadSanitizer in another whose parallel_for runs on plain threads (Debian's oneTBB is not instrumented: with it a
# correct program gives false reports, and suppressing them hides real races).
#   tools/sanitize.sh [address|thread] [--quick]     one build only; --quick leaves the slow tests out
# Tests run side by side. Those that repeat others, in another locale and with other kernels of OpenBLAS, are left out:
# they are about what is written and about rounding, and touch no other memory.
# Any report fails the test that caused it. Nothing is suppressed: Highway loads and stores unaligned vectors by
# intrinsics made for it, and OpenBLAS is one thread, so neither gives reports.
set -euo pipefail
cd "$(dirname "$0")/.."

presets=(asan tsan)
slow=(-C Slow)
for argument in "$@"; do
  case $argument in
    address) presets=(asan) ;;
    thread) presets=(tsan) ;;
    --quick) slow=() ;;
    *) echo "usage: tools/sanitize.sh [address|thread] [--quick]" >&2; exit 2 ;;
  esac
done
jobs=${JOBS:-$(nproc)}
failed=0

tools/packages.sh
for preset in "${presets[@]}"; do
  echo "== $preset"
  begin=$SECONDS
  cmake --preset "$preset"
  cmake --build --preset "$preset" --parallel "$jobs"
  built=$SECONDS
  # An hour for a test: with ThreadSanitizer some take twenty times as long as without.
  ctest --preset "$preset" "${slow[@]}" --exclude-regex '\.(locale|prescott)$' --parallel "$jobs" --timeout 3600 ||
    failed=1
  echo "== $preset: $((built - begin)) s to build, $((SECONDS - built)) s of tests"
done
exit "$failed"

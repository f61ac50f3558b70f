#!/usr/bin/env bash
# Runs the quick study: whole, and stopped on the way and called again. Usage: question_answering_test.sh PROGRAM
set -euo pipefail
program=$1
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fails() { echo "$*" >&2; exit 1; }

# Stopped soon, and sooner or later again, until it says that all is done.
for seconds in 0.5 1; do
  timeout --signal=INT "$seconds" "$program" "$here/quick.json" --output "$scratch/stopped" >/dev/null || true
done
"$program" "$here/quick.json" --output "$scratch/stopped" --only none >/dev/null
"$program" "$here/quick.json" --output "$scratch/stopped" >/dev/null
"$program" "$here/quick.json" --output "$scratch/whole" >"$scratch/out"
for file in results.md accuracy.csv gaps.csv runs.csv accuracy.svg learning.svg; do
  [ -s "$scratch/whole/$file" ] || fails "no $file"
done
for file in accuracy.csv gaps.csv; do
  cmp "$scratch/whole/$file" "$scratch/stopped/$file" || fails "a study that was stopped has another $file"
done
grep -q 'softmax - linear' "$scratch/out" || fails 'no gaps in the report'

# Losses fall in every run.
awk -F, 'NR == 1 { for (i = 1; i <= NF; ++i) column[$i] = i; next }
         $column["last loss"] >= $column["first loss"] { print; bad = 1 }
         END { exit bad || NR < 9 }' "$scratch/whole/runs.csv" || fails 'a loss did not fall, or runs are missing'

if "$program" "$here/quick.json" --output "$scratch/whole" --only sotfmax 2>"$scratch/error"; then exit 1; fi
grep -q 'did you mean "softmax"' "$scratch/error" || fails 'no suggestion'
if "$program" --output 2>"$scratch/error"; then exit 1; fi
grep -q 'CONFIG.json' "$scratch/error" || fails 'no usage'

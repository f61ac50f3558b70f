#!/usr/bin/env bash
# The study of cheap linear attention by one command: question answering with every reader on bAbI, the drawn cloze set
# and associative retrieval, and what lookups cost. It can be stopped and started again.
#   examples/question_answering/run.sh [--output DIR]      default: studies/question_answering
# TALLY names the tally command and EXAMPLES the folder of question_answering; without TALLY both are built first.
set -euo pipefail
folder="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$folder/../.." && pwd)"

output="studies/question_answering"
case "$#:${1:-}" in
  0:) ;;
  2:--output) output="$2" ;;
  *) echo "usage: examples/question_answering/run.sh [--output DIR]" >&2; exit 2 ;;
esac

tally="${TALLY:-}" examples="${EXAMPLES:-$root/build/examples}"
if [ -z "$tally" ]; then
  (cd "$root" && cmake --preset release &&
    cmake --build --preset release --target tools/tally example_question_answering)
  tally="$root/build/tools/tally"
fi
mkdir -p "$output"
if [ ! -e "$output/lookups.txt" ]; then
  printf '== lookups\n'
  "$tally" bench lookups >"$output/lookups.txt.new"
  mv "$output/lookups.txt.new" "$output/lookups.txt"
fi
failed=""
for name in associative-retrieval entity-cloze babi; do
  printf '\n== %s\n' "$name"
  code=0
  "$examples/question_answering" "$folder/$name.json" --output "$output/$name" || code=$?
  [ "$code" -lt 128 ] || exit "$code"  # stopped by a signal
  [ "$code" = 0 ] || failed+=" $name"  # no data, say: the others can still be made
done
printf '\n%s\n' "$output"/*/results.md "$output/lookups.txt"
[ -z "$failed" ] || { echo "run.sh: failed:$failed" >&2; exit 1; }

#!/usr/bin/env bash
# LISA against other attentions: trains the studies of this folder and measures time and memory against length, and writes
# tables and plots into one directory. The same command goes on where it was stopped.
#   examples/lisa/run.sh [OPTION ...]
#     --output DIR         where everything goes (default: studies/lisa)
#     --studies NAME,...   studies to run, without .json (default: all)
#     --lengths N,...      lengths to measure (default: those of `tally bench lengths`)
#     --threads N          of training (default: all CPUs); lengths are measured on one
#     --no-quality, --no-lengths
# TALLY names the tally command; without it build/tools/tally is used, and built first.
set -euo pipefail
folder="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$folder/../.." && pwd)"

output="studies/lisa" studies="" quality=1 measured=1
training=() lengths=()
while [ $# -gt 0 ]; do
  case "$1" in
    --output | --studies | --lengths | --threads)
      [ $# -ge 2 ] || { echo "run.sh: $1 needs a value" >&2; exit 2; } ;;&
    --output) output="$2"; shift ;;
    --studies) studies="${2//,/ }"; shift ;;
    --lengths) lengths=(--lengths "$2"); shift ;;
    --threads) training=(--threads "$2"); shift ;;
    --no-quality) quality=0 ;;
    --no-lengths) measured=0 ;;
    *) echo "run.sh: knows no option '$1'; its first lines name those it has" >&2; exit 2 ;;
  esac
  shift
done

tally="${TALLY:-}"
if [ -z "$tally" ]; then
  (cd "$root" && cmake --preset release && cmake --build --preset release --target tools/tally)
  tally="$root/build/tools/tally"
fi
mkdir -p "$output"
if [ -z "$studies" ]; then
  for file in "$folder"/*.json; do studies+=" $(basename "$file" .json)"; done
fi

failed=""
if [ "$quality" = 1 ]; then
  for name in $studies; do
    printf '\n== %s\n' "$name"
    code=0
    "$tally" study "$folder/$name.json" --output "$output/$name" "${training[@]}" || code=$?
    [ "$code" -lt 128 ] || exit "$code"  # stopped by a signal
    [ "$code" = 0 ] || failed+=" $name"  # no data, say: the others can still be made
  done
fi

# measure NAME OPTION ...: a directory with its table is finished.
measure() {
  local directory="$output/lengths/$1"
  shift
  [ ! -e "$directory/lengths.md" ] || return 0
  printf '\n== lengths: %s\n' "$directory"
  "$tally" bench lengths --output "$directory" "${lengths[@]}" "$@" >/dev/null
}
if [ "$measured" = 1 ]; then
  measure forward-8x16
  measure forward-backward-8x16 --backward
  measure forward-8x128 --codewords 128
  measure forward-backward-8x128 --codewords 128 --backward
fi

# Every table that is there, in one page.
{
  for table in "$output"/*/study.md "$output"/lengths/*/lengths.md; do
    [ -e "$table" ] || continue
    cat "$table"
    directory="$(dirname "${table#"$output"/}")"
    for plot in "$output/$directory"/*.svg; do
      [ -e "$plot" ] || continue
      printf '\n![%s](%s)\n' "$(basename "$plot" .svg)" "$directory/$(basename "$plot")"
    done
    printf '\n'
  done
} >"$output/results.md.new"
mv "$output/results.md.new" "$output/results.md"
printf '\n%s\n' "$output/results.md"
[ -z "$failed" ] || { echo "run.sh: failed:$failed" >&2; exit 1; }

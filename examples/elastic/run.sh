#!/usr/bin/env bash
# ELASTIC against other attentions: measures time and memory against length, number of experts and size of the memory,
# trains the studies of this folder and reports what their experts read, into one directory. The same command goes on
# where it was stopped.
#   examples/elastic/run.sh [OPTION ...]
#     --output DIR         where everything goes (default: studies/elastic)
#     --studies NAME,...   studies to run, without .json (default: all)
#     --lengths N,...      lengths to measure (default: 50 to 16,384)
#     --threads N          of training (default: all CPUs); time is measured on one
#     --no-quality, --no-efficiency
# TALLY names the tally command, and EXAMPLES the folder of memory_size and planted_interests; without TALLY all are
# built first, and build/tools/tally and build/examples/ are used.
set -euo pipefail
folder="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$folder/../.." && pwd)"

output="studies/elastic" studies="" quality=1 measured=1
lengths="50,100,200,512,1000,1024,2048,4096,8192,16384"
training=()
while [ $# -gt 0 ]; do
  case "$1" in
    --output | --studies | --lengths | --threads)
      [ $# -ge 2 ] || { echo "run.sh: $1 needs a value" >&2; exit 2; } ;;&
    --output) output="$2"; shift ;;
    --studies) studies="${2//,/ }"; shift ;;
    --lengths) lengths="$2"; shift ;;
    --threads) training=(--threads "$2"); shift ;;
    --no-quality) quality=0 ;;
    --no-efficiency) measured=0 ;;
    *) echo "run.sh: knows no option '$1'; its first lines name those it has" >&2; exit 2 ;;
  esac
  shift
done

tally="${TALLY:-}" examples="${EXAMPLES:-$root/build/examples}"
if [ -z "$tally" ]; then
  (cd "$root" && cmake --preset release &&
    cmake --build --preset release --target tools/tally example_memory_size example_planted_interests)
  tally="$root/build/tools/tally"
fi
mkdir -p "$output"
if [ -z "$studies" ]; then
  for file in "$folder"/*.json; do
    [ "$(basename "$file")" = ml-1m-causal.json ] || studies+=" $(basename "$file" .json)"  # a single run
  done
fi

# measure NAME OPTION ...: a directory with its table is finished. Width 64, two heads.
measure() {
  local directory="$output/efficiency/$1"
  shift
  [ ! -e "$directory/lengths.md" ] || return 0
  printf '\n== %s\n' "$directory"
  "$tally" bench lengths --output "$directory" --width 64 --heads 2 "$@" >/dev/null
}
if [ "$measured" = 1 ]; then
  # Whole encoders of two layers, 64 experts; then the attentions alone; then encoders of 8 to 64 experts.
  both_ways=dispatcher,softmax,softmax_materialized,lightsans,linformer,linrec
  measure encoders-both-ways --blocks 2 --bidirectional --attentions "$both_ways" --codewords 8 --lengths "$lengths"
  measure encoders-both-ways-backward --blocks 2 --bidirectional --attentions "$both_ways" --codewords 8 \
    --lengths "$lengths" --backward
  measure encoders-causal --blocks 2 --attentions dispatcher,softmax,linear_elu,linrec --codewords 8 \
    --lengths "$lengths"
  attentions=softmax,softmax_bidirectional,dispatcher,dispatcher_causal
  measure attentions --attentions "$attentions" --codewords 8 --lengths "$lengths"
  measure attentions-backward --attentions "$attentions" --codewords 8 --lengths "$lengths" --backward
  for codewords in 1 2 4 8; do
    experts=$((8 * codewords))
    measure "experts-$experts-both-ways" --blocks 2 --bidirectional --attentions dispatcher --codewords "$codewords" \
      --lengths 200,1000,4096
    measure "experts-$experts-causal" --blocks 2 --attentions dispatcher --codewords "$codewords" \
      --lengths 200,1000,4096
  done
  if [ ! -e "$output/efficiency/memory_size.md" ]; then
    printf '\n== %s\n' "$output/efficiency/memory_size.md"
    "$examples/memory_size" >"$output/efficiency/memory_size.md.new"
    mv "$output/efficiency/memory_size.md.new" "$output/efficiency/memory_size.md"
  fi
fi

failed=""
if [ "$quality" = 1 ]; then
  for name in $studies; do
    printf '\n== %s\n' "$name"
    if [ "$name" = planted-interests ] && [ ! -e "$folder/planted_interests.tsv" ]; then
      "$examples/planted_interests" >"$folder/planted_interests.tsv.new"
      mv "$folder/planted_interests.tsv.new" "$folder/planted_interests.tsv"
    fi
    code=0
    "$tally" study "$folder/$name.json" --output "$output/$name" "${training[@]}" || code=$?
    [ "$code" -lt 128 ] || exit "$code"  # stopped by a signal
    [ "$code" = 0 ] || failed+=" $name"  # no data, say: the others can still be made
  done
fi
# What experts read, in every finished run that has some.
for run in "$output"/*/*/; do
  [ -e "$run/test_metrics.json" ] && [ ! -e "$run/experts.md" ] || continue
  grep -q '"name": "elastic"' "$run/config.resolved.json" && grep -q '"experts"' "$run/config.resolved.json" || continue
  "$tally" experts "${run%/}" >/dev/null || failed+=" $run"
done

# Every table that is there, in one page.
{
  for table in "$output"/*/study.md "$output"/*/*/experts.md "$output"/efficiency/*/lengths.md \
    "$output"/efficiency/memory_size.md; do
    [ -e "$table" ] || continue
    directory="$(dirname "${table#"$output"/}")"
    printf '`%s`\n\n' "$directory"
    cat "$table"
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

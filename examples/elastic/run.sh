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
source "$folder/../study_frame.sh"

output="studies/elastic" studies="" lengths="50,100,200,512,1000,1024,2048,4096,8192,16384"
parse_options "$@"
find_programs example_memory_size example_planted_interests
mkdir -p "$output"
[ -n "$studies" ] || studies="$(all_studies ml-1m-causal)"

if [ "$measured" = 1 ]; then
  # Whole encoders of two layers, 64 experts; then the attentions alone; then encoders of 8 to 64 experts.
  frame=(--width 64 --heads 2)
  both_ways=dispatcher,softmax,softmax_materialized,lightsans,linformer,linrec
  encoders=("${frame[@]}" --blocks 2 --codewords 8 --lengths "$lengths")
  measure encoders-both-ways "${encoders[@]}" --bidirectional --attentions "$both_ways"
  measure encoders-both-ways-backward "${encoders[@]}" --bidirectional --attentions "$both_ways" --backward
  measure encoders-causal "${encoders[@]}" --attentions dispatcher,softmax,linear_elu,linrec
  alone=("${frame[@]}" --attentions softmax,softmax_bidirectional,dispatcher,dispatcher_causal --codewords 8
    --lengths "$lengths")
  measure attentions "${alone[@]}"
  measure attentions-backward "${alone[@]}" --backward
  for codewords in 1 2 4 8; do
    some=("${frame[@]}" --blocks 2 --attentions dispatcher --codewords "$codewords" --lengths 200,1000,4096)
    measure "experts-$((8 * codewords))-both-ways" "${some[@]}" --bidirectional
    measure "experts-$((8 * codewords))-causal" "${some[@]}"
  done
  keep efficiency/memory_size.md "$examples/memory_size"
fi

if [ "$quality" = 1 ]; then
  drawn="$folder/planted_interests.tsv"
  if [[ " $studies " == *planted-interests* ]] && [ ! -e "$drawn" ]; then
    "$examples/planted_interests" >"$drawn.new"
    mv "$drawn.new" "$drawn"
  fi
  run_studies
fi
# What experts read, in every finished run that has some.
for run in "$output"/*/*/; do
  [ -e "$run/test_metrics.json" ] && [ ! -e "$run/experts.md" ] || continue
  grep -q '"name": "elastic"' "$run/config.resolved.json" && grep -q '"experts"' "$run/config.resolved.json" || continue
  "$tally" experts "${run%/}" >/dev/null || failed+=" $run"
done
write_results "$output"/*/study.md "$output"/*/*/experts.md "$output"/efficiency/*/lengths.md \
  "$output"/efficiency/memory_size.md

#!/usr/bin/env bash
# Linear attention's descendants: time and memory against length, recall from memories of fixed size, untrained and
# trained, and the studies of this folder, into one directory. The same command goes on where it was stopped.
#   examples/linear/run.sh [OPTION ...]
#     --output DIR         where everything goes (default: studies/linear)
#     --studies NAME,...   studies to run, without .json (default: all)
#     --lengths N,...      lengths to measure (default: 256 to 16,384)
#     --threads N          of training (default: all CPUs); time is measured on one
#     --no-quality, --no-efficiency
# TALLY names the tally command, and EXAMPLES the folder of recall and untrained_recall; without TALLY all are built
# first, and build/tools/tally and build/examples/ are used.
set -euo pipefail
folder="$(cd "$(dirname "$0")" && pwd)"
source "$folder/../study_frame.sh"

output="studies/linear" studies="" lengths="256,512,1024,2048,4096,8192,16384"
parse_options "$@"
find_programs example_recall example_untrained_recall
mkdir -p "$output"
[ -n "$studies" ] || studies="$(all_studies)"

if [ "$measured" = 1 ]; then
  attentions=softmax,linear_elu,linrec,retnet,lightning,gla,deltanet,gated_deltanet,gated_slot,recgrela
  attentions+=,efficient,lambda,galerkin,fixed_memory,hstu
  layers=(--width 128 --heads 2 --lengths "$lengths" --attentions "$attentions")
  measure layers "${layers[@]}"
  measure layers-backward "${layers[@]}" --backward
fi
if [ "$quality" = 1 ]; then
  keep recall/untrained.md "$examples/untrained_recall"
  for width in 16 32 64; do keep "recall/mqar-$width.md" "$examples/recall" --width "$width" --steps 1500; done
  keep recall/latest.md "$examples/recall" --task latest --pairs 8 --steps 1500
  run_studies
fi
write_results "$output"/recall/*.md "$output"/*/study.md "$output"/efficiency/*/lengths.md

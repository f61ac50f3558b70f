#!/usr/bin/env bash
# LISA against other attentions: trains the studies of this folder and measures time and memory against length, and writes
# tables and plots into one directory. The same command goes on where it was stopped.
#   examples/lisa/run.sh [OPTION ...]
#     --output DIR         where everything goes (default: studies/lisa)
#     --studies NAME,...   studies to run, without .json (default: all)
#     --lengths N,...      lengths to measure (default: those of `tally bench lengths`)
#     --threads N          of training (default: all CPUs); lengths are measured on one
#     --no-quality, --no-efficiency
# TALLY names the tally command; without it build/tools/tally is used, and built first.
set -euo pipefail
folder="$(cd "$(dirname "$0")" && pwd)"
source "$folder/../study_frame.sh"

output="studies/lisa" studies="" lengths=""
parse_options "$@"
find_programs
mkdir -p "$output"
[ -n "$studies" ] || studies="$(all_studies)"
[ "$quality" = 0 ] || run_studies
if [ "$measured" = 1 ]; then
  at=()
  [ -z "$lengths" ] || at=(--lengths "$lengths")
  measure forward-8x16 "${at[@]}"
  measure forward-backward-8x16 --backward "${at[@]}"
  measure forward-8x128 --codewords 128 "${at[@]}"
  measure forward-backward-8x128 --codewords 128 --backward "${at[@]}"
fi
write_results "$output"/*/study.md "$output"/efficiency/*/lengths.md

#!/usr/bin/env bash
# Does `check` find mistakes? Makes single-line mutants of kernels and rules (an operator, a bound, a constant, a dropped
# term, an ignored option), builds each and holds its ops to the contract and the naive references. Not part of CI.
#
#   tools/mutants.sh [--count N] [--seed S] [--commit REV] [--from TSV] [--list] [FILE ...]
#
# FILE: sources below ops/ (default: attention, quantization, losses, norms and GRU). Of all mutants N are drawn by the
# seed (default 200, 1). The tree is the last commit's, or REV's, in build-mutants/ (WORK), and every mutant's verdict a
# line of build-mutants/log.tsv, which a later run goes on with: found, survived, slow (more than 60 s) or not compiled,
# and what the checker said. --from takes mutants in the form that --list prints, and logs to build-mutants/from.tsv anew.
# BUILD_LOCK names a file to lock while building, BATCH (8) mutants at a time, on JOBS (1) cores; FLAGS are the compiler's
# (of another SIMD target), MUTANT_FLAGS those of the mutated file alone and the linker, such as -fsanitize=address. Known
# survivors, and why each computes the same: docs/mutants.md.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

export MUTANT_FLAGS=${MUTANT_FLAGS:-}
count=200 seed=1 commit=HEAD list=no from="" files=()
while [ $# -gt 0 ]; do
  case $1 in
    --count) count=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    --commit) commit=$2; shift 2 ;;
    --from) from=$2; shift 2 ;;
    --list) list=yes; shift ;;
    --help) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) files+=("$1"); shift ;;
  esac
done

# Ops that a source is checked with.
ops_of() {
  local attention="softmax_attention linformer_attention lsh_attention sinkhorn_attention"
  case $(basename "$1" .cpp) in
    attention_block) echo "linformer_attention lsh_attention sinkhorn_attention" ;;
    attention_tile) echo "$attention" ;;
    attention_options) echo "softmax_attention normalized_linear_attention" ;;
    softmax_attention) echo softmax_attention ;;
    softmax_attention_materialized) echo softmax_attention_materialized ;;
    normalized_linear_attention) echo normalized_linear_attention ;;
    feature_map) echo "normalized_linear_attention feature_map" ;;
    linformer_attention) echo linformer_attention ;;
    lsh_attention) echo lsh_attention ;;
    sinkhorn | sinkhorn_attention) echo sinkhorn_attention ;;
    histogram_attention | histogram_scan | histogram_tile) echo histogram_attention ;;
    residual_quantization*) echo "vector_quantization vector_quantization_tables product_quantization decode_codes" ;;
    codeword* | vector_quantization*) echo "vector_quantization vector_quantization_tables" ;;
    product_quantization) echo product_quantization ;;
    decode_codes | decayed_sum | item_cross_entropy | sampled_softmax | gru) basename "$1" .cpp ;;
    binary_cross_entropy | logistic_loss) echo "binary_cross_entropy binary_cross_entropy_with_logits" ;;
    sampled_scores | loss_tokens) echo "binary_cross_entropy sampled_softmax" ;;
    table_rows | table_softmax) echo "item_cross_entropy sampled_softmax binary_cross_entropy" ;;
    norm | norm_family) echo "layer_norm rms_norm residual_dropout_norm" ;;
    layer_norm | rms_norm | residual_dropout_norm) basename "$1" .cpp ;;
    columns) echo "layer_norm gru linear" ;;
    softmax | softmax_rows) echo "softmax log_softmax" ;;
    lookup_gates) echo "causal_lookup linear_attention" ;;
    linear_attention_gates | naive_linear_attention) echo linear_attention ;;
    lookup_order) echo "softmax_lookup causal_lookup" ;;
    packed_square) echo "outer_sums symmetric_lookup" ;;
    packed_symmetric) echo symmetric_lookup ;;
    *) basename "$1" .cpp ;;
  esac
}

# The row of a mutant in the table of results.
family_of() {
  case $1 in
    *lookup* | *outer_sums* | *packed_*) echo lookups ;;
    *attention* | *histogram* | *sinkhorn* | *feature_map*) echo attention ;;
    *quantization* | *codewords* | *decode*) echo quantization ;;
    *losses* | *loss* | *table_*) echo losses ;;
    *norm* | *columns*) echo norms ;;
    *gru* | *decayed_sum*) echo recurrent ;;
    *) echo others ;;
  esac
}

if [ ${#files[@]} -eq 0 ]; then
  for name in softmax_attention attention_block attention_tile linear_attention linear_attention_gates \
    normalized_linear_attention linformer_attention \
    lsh_attention sinkhorn sinkhorn_attention histogram_attention histogram_scan histogram_tile residual_quantization \
    residual_quantization_backward codewords codeword_assignment logistic_loss \
    table_rows table_softmax norm columns gru causal_lookup lookup_gates lookup_order outer_sums packed_square \
    packed_symmetric softmax_lookup symmetric_lookup; do
    files+=("ops/kernels/$name.cpp")
  done
  files+=(ops/attention/{softmax,normalized_linear,lsh,sinkhorn,histogram}_attention.cpp
    ops/quantization/{vector_quantization,vector_quantization_tables,product_quantization}.cpp
    ops/losses/{item_cross_entropy,binary_cross_entropy,sampled_softmax,sampled_scores}.cpp
    ops/norms/norm_family.cpp ops/recurrent/gru.cpp)
fi

# One mutant a line: file, line number, what changes, the new line. Comments, checks of arguments, samples and what only
# shares out work are left alone.
mutants_of() {
  awk -v file="$1" '
    function emit(kind, text) { if (text != $0) printf "%s\t%d\t%s\t%s\n", file, NR, kind, text }
    function swap(from, to,   at) {  # the first occurrence
      at = index($0, from)
      if (at > 0) emit(from "->" to, substr($0, 1, at - 1) to substr($0, at + length(from)))
    }
    /namespace entries|^void entries::|std::vector<OpSample>|std::vector<OpError>|^OpEntry / { skip = 1 }
    /^}/ { skip = 0 }
    /^ *\/\// || /^#/ || /^ *$/ { next }
    asserted { asserted = !/;$/; next }
    /check<|fail<|static_assert/ { asserted = !/;$/; next }
    /template|using |HWY_EXPORT|HWY_NAMESPACE|constexpr|^ *for .*lanes/ { next }
    /parallel_for|block_count|[gG]rain|kLong|kTask|kProductLimit|kMaxKeyTile|kBlock|kTile|round_up|Scratch|scratch\(|sample_[a-z]+\(/ { next }
    skip { next }
    {
      swap(" + ", " - "); swap(" - ", " + "); swap(" * ", " + "); swap(" / ", " * ")
      swap(" += ", " -= "); swap(" -= ", " += "); swap(" *= ", " = ")
      swap(" < ", " <= "); swap(" <= ", " < "); swap(" > ", " >= "); swap(" >= ", " > ")
      swap(" == ", " != "); swap(" != ", " == "); swap(" && ", " || "); swap(" || ", " && ")
      swap("Mul(", "Add("); swap("Add(", "Sub("); swap("Sub(", "Add("); swap("Max(", "Min("); swap("MulAdd(", "NegMulAdd(")
      swap("T{0}", "T{1}"); swap("T{1}", "T{2}"); swap("T{1}", "T{0}"); swap("0.5", "0.25"); swap("1.0f", "2.0f")
      swap(" ? ", " || true ? "); swap("true", "false"); swap("false", "true")
      swap("std::max", "std::min"); swap("std::min(", "std::max("); swap("std::exp(", "(")
      swap("scale(", "scale(0.5 * ("); swap("plan.causal", "true"); swap("plan.scale", "1"); swap("plan.window", "0")
      swap("Transpose::yes", "Transpose::no")
      if ($0 ~ /^ +[a-zA-Z_:<>]+(\[.*\])? [+*-]?= .*;$/ && $0 !~ /^ *(const|auto|double|float|T|std|int|bool|Tensor|return)/)
        emit("dropped", "  ;")
      if ($0 ~ /^ +(if \(.*\) )?(kernels::|hn::Store|add_|axpy|scale|g\.give|blas::).*;$/) emit("dropped", "  ;")
    }' <(git show "$commit:$1")
}

work=${WORK:-build-mutants}
mkdir -p "$work"
work=$(realpath "$work")
for file in "${files[@]}"; do mutants_of "$file"; done >"$work/all.tsv"
# Drawn alike by every awk (Park and Miller's generator). Neighbours by file: what was restored is then built again once.
awk -v seed="$seed" 'function draw() { return x = x * 16807 % 2147483647 }
  BEGIN { x = seed % 2147483646 + 1; for (i = 0; i < 20; ++i) draw() } { printf "%010d\t%s\n", draw(), $0 }' \
  "$work/all.tsv" | sort |
  awk -v count="$count" 'NR <= count' | cut -f 2- | sort >"$work/chosen.tsv"
if [ -n "$from" ]; then cp "$from" "$work/chosen.tsv"; fi
echo "$(wc -l <"$work/all.tsv") mutants of ${#files[@]} files, $(wc -l <"$work/chosen.tsv") chosen"
if [ "$list" = yes ]; then cat "$work/chosen.tsv"; exit 0; fi

lock() { if [ -n "${BUILD_LOCK:-}" ]; then exec 9>"$BUILD_LOCK" && flock 9; fi; }
unlock() { if [ -n "${BUILD_LOCK:-}" ]; then exec 9>&-; fi; }
# Whoever holds the lock should not hold it for long.
polite() { if [ -n "${BUILD_LOCK:-}" ]; then "$@"; else nice "$@"; fi; }

# The committed tree, of which only what changed is written again; one SIMD target (SSE4, and not scalar code, which has
# no ends of vectors) and little optimisation, so that a file compiles in seconds.
rm -rf "$work/new"
mkdir -p "$work/new" "$work/tree"
git archive "$commit" | tar -x -C "$work/new"
(cd "$work/new" && find . -type f) | while read -r file; do
  if cmp -s "$work/new/$file" "$work/tree/$file"; then continue; fi
  mkdir -p "$(dirname "$work/tree/$file")"
  cp "$work/new/$file" "$work/tree/$file"
done
lock
cmake -S "$work/tree" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DTALLY_BUILD_EXAMPLES=OFF \
  -DTALLY_UNITY=OFF >"$work/configure.log" \
  -DCMAKE_CXX_FLAGS_RELEASE="-O1 -DHWY_COMPILE_ONLY_STATIC ${FLAGS:--march=x86-64-v2 -maes -mpclmul}" 2>&1
polite cmake --build "$work/build" --target checker --parallel "${JOBS:-1}" >"$work/build.log" 2>&1 ||
  { tail "$work/build.log"; exit 1; }
unlock
checker=$work/build/tests/checker
# shellcheck disable=SC2016  # the script expands them
# A mutant is compiled as the sources of ops are, and linked before their library, which then has nothing to add.
{
  grep -m 1 'command.*tally_ops\.dir' "$work/build/compile_commands.json" |
    sed 's/^[^:]*: "//; s/ -o .*/ -w $MUTANT_FLAGS -o "$1.o" -c "$1.cpp" || exit 1/; s/\\"/"/g'
  echo 'cd "$(dirname "$0")/build" || exit 1'
  ninja -C "$work/build" -t commands tests/checker | tail -1 | sed 's/^: && //; s/ && :$//; s/-o tests.checker/$MUTANT_FLAGS -o "$1" "$1.o"/'
} >"$work/build_one.sh"
# A mutant may loop for ever, or ask for all memory: there are limits. A sanitizer maps more than there is.
run_checker() (
  ulimit -c 0 -t 60
  case "${FLAGS:-} ${MUTANT_FLAGS:-}" in *sanitize*) ;; *) ulimit -v 6000000 ;; esac
  exec timeout 300 nice "$@" </dev/null
)
# shellcheck disable=SC2046  # ops are separate words
run_checker "$checker" $(for file in "${files[@]}"; do ops_of "$file"; done | tr ' ' '\n' | sort -u) \
  >"$work/sound.txt" || { tail "$work/sound.txt"; echo "the tree itself does not pass" >&2; exit 1; }

# Builds the mutants of a batch, each as a checker of its own.
build_batch() {
  local batch=$1 file line kind text i=0
  mkdir -p "$batch"
  while IFS=$'\t' read -r file line kind text; do
    i=$((i + 1))
    awk -v at="$line" 'NR == FNR { text = $0; next } FNR == at { print text; next } { print }' \
      <(printf '%s\n' "$text") "$work/tree/$file" >"$batch/$i.cpp"
  done <"$batch.tsv"
  lock
  seq "$i" | polite xargs -P "${JOBS:-1}" -I '{}' bash "$work/build_one.sh" "$batch/{}" >"$work/build.log" 2>&1 || true
  unlock
}

# Runs them, and writes the verdicts.
check_batch() {
  local batch=$1 file line kind text i=0 verdict status said
  while IFS=$'\t' read -r file line kind text; do
    i=$((i + 1))
    verdict="not compiled" status=0 said=""
    if [ -x "$batch/$i" ]; then
      # shellcheck disable=SC2046
      run_checker "$batch/$i" $(ops_of "$file") >"$batch/said" 2>&1 || status=$?
      case $status in 0) verdict=survived ;; 124 | 137 | 152) verdict=slow ;; *) verdict=found ;; esac
      if [ "$verdict" = found ]; then said=$(grep -m 1 '[^ ]' "$batch/said" | tr '\t' ' ' | cut -c 1-160) || true; fi
    fi
    printf '%s\t%s:%s\t%s\t%s\t%s\n' "$verdict" "$file" "$line" "$kind" "$text" "$said" >>"$log"
  done <"$batch.tsv"
  rm -r "$batch" "$batch.tsv"
}

log=$work/log.tsv
if [ -n "$from" ]; then log=$work/from.tsv && : >"$log"; fi
touch "$log"
awk -F '\t' 'FILENAME == ARGV[1] { done[$2 "\t" $3] = 1; next } !(($1 ":" $2 "\t" $3) in done)' "$log" \
  "$work/chosen.tsv" >"$work/rest.tsv"
rm -rf "$work"/batch.*
split -a 4 --additional-suffix .tsv -l "${BATCH:-8}" "$work/rest.tsv" "$work/batch."
for batch in "$work"/batch.*.tsv; do
  if [ ! -s "$batch" ]; then continue; fi
  build_batch "${batch%.tsv}"
  wait  # for the checks of the batch before
  check_batch "${batch%.tsv}" &
done
wait

# The table of docs/mutants.md, and what is left to explain.
echo "| family | mutants | found | slow | not compiled | survived |"
echo "|---|---|---|---|---|---|"
while IFS=$'\t' read -r verdict place _; do printf '%s\t%s\n' "$verdict" "$(family_of "$place")"; done <"$log" |
  awk -F '\t' '{ for (i = 0; i < 2; ++i) { row = i ? "all" : $2; ++of[row]; ++n[row, $1] } }
    END { for (row in of) printf "| %s | %d | %d | %d | %d | %d |\n", row, of[row], n[row, "found"], n[row, "slow"],
      n[row, "not compiled"], n[row, "survived"] }' | sort
grep '^survived' "$log" | cut -f 2-4 || true

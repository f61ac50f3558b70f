# What the run.sh of every family of studies shares; sourced with `folder` set to the family's folder.
root="$(cd "$folder/../.." && pwd)"
failed=""

# usage_error TEXT
usage_error() {
  echo "run.sh: $1" >&2
  exit 2
}

# parse_options OPTION ...: sets output, studies (names), lengths (comma-separated, or empty), training (an array),
# quality and measured (1 or 0). The caller sets what is not given.
parse_options() {
  training=() quality=1 measured=1
  while [ $# -gt 0 ]; do
    case "$1" in
      --output | --studies | --lengths | --threads)
        [ $# -ge 2 ] || usage_error "$1 needs a value" ;;&
      --output) output="$2"; shift ;;
      --studies) studies="${2//,/ }"; shift ;;
      --lengths) lengths="$2"; shift ;;
      --threads) training=(--threads "$2"); shift ;;
      --no-quality) quality=0 ;;
      --no-efficiency) measured=0 ;;
      *) usage_error "knows no option '$1'; its first lines name those it has" ;;
    esac
    shift
  done
}

# find_programs TARGET ...: sets tally and examples from TALLY and EXAMPLES; without TALLY builds it and the targets.
find_programs() {
  tally="${TALLY:-}" examples="${EXAMPLES:-$root/build/examples}"
  [ -z "$tally" ] || return 0
  (cd "$root" && cmake --preset release && cmake --build --preset release --target tools/tally "$@")
  tally="$root/build/tools/tally"
}

# all_studies [NAME]: the names of the folder's studies; NAME is a config of a single run.
all_studies() {
  local file
  for file in "$folder"/*.json; do
    [ "$(basename "$file" .json)" = "${1:-}" ] || basename "$file" .json
  done
}

# run_studies: trains those of `studies` into `output`. One without data, say, fails alone.
run_studies() {
  local name code
  for name in $studies; do
    printf '\n== %s\n' "$name"
    code=0
    "$tally" study "$folder/$name.json" --output "$output/$name" "${training[@]}" || code=$?
    [ "$code" -lt 128 ] || exit "$code"  # stopped by a signal
    [ "$code" = 0 ] || failed+=" $name"
  done
}

# measure NAME OPTION ...: `bench lengths` into efficiency/NAME; a directory with its table is finished.
measure() {
  local directory="$output/efficiency/$1"
  shift
  [ ! -e "$directory/lengths.md" ] || return 0
  printf '\n== %s\n' "$directory"
  "$tally" bench lengths --output "$directory" "$@" >/dev/null
}

# keep FILE COMMAND ...: what the command prints, in a file of `output`; one that is there is finished.
keep() {
  local file="$output/$1"
  shift
  [ ! -e "$file" ] || return 0
  printf '\n== %s\n' "$file"
  mkdir -p "$(dirname "$file")"
  "$@" >"$file.new" || { rm "$file.new"; failed+=" $file"; return 0; }
  mv "$file.new" "$file"
}

# write_results TABLE ...: those that are there, with the plots beside them, in one page; ends the script.
write_results() {
  local table directory plot
  for table in "$@"; do
    [ -e "$table" ] || continue
    directory="$(dirname "${table#"$output"/}")"
    printf '`%s`\n\n' "${table#"$output"/}"
    cat "$table"
    case "$table" in *.md) for plot in "$output/$directory"/*.svg; do
      [ -e "$plot" ] || continue
      printf '\n![%s](%s)\n' "$(basename "$plot" .svg)" "$directory/$(basename "$plot")"
    done ;; esac
    printf '\n'
  done >"$output/results.md.new"
  mv "$output/results.md.new" "$output/results.md"
  printf '\n%s\n' "$output/results.md"
  [ -z "$failed" ] || { echo "run.sh: failed:$failed" >&2; exit 1; }
}

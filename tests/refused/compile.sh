#!/usr/bin/env bash
# compile.sh INCLUDE SOURCE COMPILER...: SOURCE begins with lines `// case N compiles` and `// case N refused: WORDS`. Each
# is compiled with -DCASE=N, and must pass, or must fail with an error that has these words.
set -euo pipefail
include=$1 source=$2
shift 2
bad=0 cases=0
while read -r number verdict words; do
  cases=$((cases + 1))
  if output=$("$@" -std=c++20 -fsyntax-only -Wall -Wextra -Werror -I "$include" -DCASE="$number" "$source" 2>&1); then
    if [ "$verdict" != compiles ]; then echo "case $number compiles; needs an error with: $words"; bad=1; fi
  elif [ "$verdict" = compiles ]; then
    printf 'case %s must compile; got\n%s\n' "$number" "$output"; bad=1
  elif ! grep -E 'error:|static_assert' <<<"$output" | grep -qF -- "$words"; then
    printf 'case %s needs an error with: %s; got\n%s\n' "$number" "$words" "$output"; bad=1
  fi
done < <(sed -nE 's|^// case ([0-9]+) (compiles\|refused):? ?(.*)$|\1 \2 \3|p' "$source")
if [ $cases -eq 0 ]; then echo "$source names no case"; bad=1; fi
exit $bad

#!/usr/bin/env bash
# Installs a finished build into a temporary prefix, moves the prefix, then builds and runs a program against it: once by
# find_package, once by pkg-config. Every public header must also compile on its own from there.
# Usage: install_consumer.sh BUILD_FOLDER CXX_COMPILER LIBRARY_KIND(static|shared)
set -euo pipefail
build=$1 compiler=$2 kind=$3
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cmake --install "$build" --prefix "$scratch/installed" >"$scratch/install.log"
mv "$scratch/installed" "$scratch/moved"
prefix=$scratch/moved
if grep -rIl "$scratch/installed" "$prefix" || grep -rIl "$build" "$prefix"; then
  echo "the files above hold the path of the build or of the first prefix" >&2
  exit 1
fi
if find "$prefix" -name '*_backend.h' | grep .; then
  echo "the private headers above were installed" >&2
  exit 1
fi

echo "== find_package"
cmake -S "$here/consumer" -B "$scratch/consumer" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" \
  -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release >"$scratch/configure.log" ||
  { cat "$scratch/configure.log"; exit 1; }
cmake --build "$scratch/consumer" >"$scratch/build.log" || { cat "$scratch/build.log"; exit 1; }
"$scratch/consumer/consumer"
if [ -x "$prefix/bin/tally" ]; then
  "$prefix/bin/tally" gradcheck relu | tail -n 1
  "$scratch/consumer/commands" gradcheck relu --max-elements 4 | tail -n 1
  "$prefix/bin/tally" check relu softmax | tail -n 1
  "$scratch/consumer/commands" check relu | tail -n 1
fi
# The example of a model of one's own, with every command, against the same prefix.
if [ -x "$scratch/consumer/own_model" ]; then "$here/../../examples/own_model_test.sh" "$scratch/consumer/own_model"; fi
# Another minor version must not be taken for this one.
if cmake -S "$here/consumer" -B "$scratch/refused" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" \
  -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_PROJECT_INCLUDE="$here/want_next_minor.cmake" >"$scratch/refused.log" 2>&1; then
  echo "version 0.2 was asked for and 0.1 accepted" >&2
  exit 1
fi
grep -q 'requested version "0.2"' "$scratch/refused.log" || { cat "$scratch/refused.log"; exit 1; }

echo "== pkg-config"
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name tally.pc)")
export PKG_CONFIG_PATH
static=()
if [ "$kind" = static ]; then static=(--static); fi
# The program in the README, so that it stays true.
sed -n '/^```cpp/,/^```$/{/^```/d;p}' "$here/../../README.md" >"$scratch/readme.cpp"
# shellcheck disable=SC2046  # the flags are separate words
"$compiler" -std=c++20 "$scratch/readme.cpp" -o "$scratch/by_pkg_config" \
  $(pkg-config --cflags tally) $(pkg-config "${static[@]}" --libs tally)
LD_LIBRARY_PATH=$(pkg-config --variable=libdir tally) "$scratch/by_pkg_config"

if [ -f "$PKG_CONFIG_PATH/tally-commands.pc" ]; then
  # shellcheck disable=SC2046
  "$compiler" -std=c++20 "$here/consumer/commands.cpp" -o "$scratch/commands_by_pkg_config" \
    $(pkg-config --cflags tally-commands) $(pkg-config "${static[@]}" --libs tally-commands)
  LD_LIBRARY_PATH=$(pkg-config --variable=libdir tally) "$scratch/commands_by_pkg_config" check relu | tail -n 1
fi

echo "== documents and examples"
documents=$(dirname "$(find "$prefix" -name getting-started.md)")/..
for file in README.md docs/autograd.md examples/own_op.cpp examples/data/ml-latest-small/ratings.csv.gz; do
  test -f "$documents/$file" || { echo "$file was not installed" >&2; exit 1; }
done
# shellcheck disable=SC2046
"$compiler" -std=c++20 -fsyntax-only $(pkg-config --cflags tally) "$documents/examples/linear_regression.cpp"

echo "== add_subdirectory"
printf 'cmake_minimum_required(VERSION 3.25)\nproject(parent LANGUAGES CXX)\nadd_subdirectory("%s" tally)\n' \
  "$here/../.." >"$scratch/CMakeLists.txt"
cmake -S "$scratch" -B "$scratch/parent" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" >"$scratch/parent.log" ||
  { cat "$scratch/parent.log"; exit 1; }
if ! grep -q '^CMAKE_BUILD_TYPE:[A-Z]*=$' "$scratch/parent/CMakeCache.txt"; then
  echo "the build type of the project around it was set" >&2
  exit 1
fi

echo "== every header stands alone"
(cd "$prefix/include" && find tally -name '*.h') >"$scratch/headers"
# shellcheck disable=SC2016  # the inner shell expands
xargs -P "$(nproc)" -I HEADER sh -c \
  'echo "#include \"$1\"" | "$2" -std=c++20 -fsyntax-only -I"$3" -x c++ - || { echo "in $1" >&2; exit 255; }' \
  sh HEADER "$compiler" "$prefix/include" <"$scratch/headers"
wc -l <"$scratch/headers" | sed 's/$/ headers/'

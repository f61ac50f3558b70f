#!/usr/bin/env bash
# The main job on a fresh machine: installs packages, builds the tally command, trains a recommender on the MovieLens
# ratings that ship with the tree, and prints what it learned.
#   tools/quickstart.sh [KEY=VALUE ...]     settings passed on to `tally train`, e.g. --train.epochs=5
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$1"; }
current="start"
trap 'echo "quickstart: failed at: $current" >&2' ERR

current="installing packages"
step "$current"
tools/packages.sh

current="building (into build/)"
step "$current"
cmake --preset release
cmake --build --preset release --parallel "${JOBS:-$(nproc)}" --target tools/tally

current="training (examples/quickstart.json)"
step "$current"
build/tools/tally train examples/quickstart.json "$@"

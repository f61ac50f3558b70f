#!/usr/bin/env bash
# Runs every command that a program of one's own has, on the data that ship with the tree.
# Usage: own_model_test.sh PROGRAM
set -euo pipefail
program=$1
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
run() { echo "== ${*:1:3}"; "$program" "$@" >"$scratch/out" || { tail -n 20 "$scratch/out" >&2; exit 1; }; }
says() { grep -q "$1" "$scratch/out" || { echo "no \"$1\" in:" >&2; tail -n 20 "$scratch/out" >&2; exit 1; }; }

small=(--train.epochs=1 --hidden_size=16 --train_batch_size=64)
run attentions age && says age_rate
run losses smoothed && says label_smoothing
run models plain && says hidden_size
run gradcheck --model "$here/own_model.json" && says blocks.0.attention.log_rate
run train "$here/own_model.json" "${small[@]}" --output="$scratch/runs" && says 'label smoothing'
directory=$(echo "$scratch"/runs/*)
run evaluate "$directory" && says HR@10
run recommend "$directory" --user 1
cat >"$scratch/study.json" <<END
{"name": "own", "base": "$here/own_model.json", "seeds": [1], "metrics": ["HR@10"],
 "grid": {"model.attention": ["age", "linear_elu"], "model.hidden_size": [16], "train.epochs": [1]}}
END
run study "$scratch/study.json" --output "$scratch/study" && says linear_elu
run bench lengths --attentions age,softmax --lengths 64,256 --seconds 0.02 && says 'the layer: the values so far'
if "$program" train "$here/own_model.json" --age_rate=0 2>"$scratch/error"; then exit 1; fi
grep -q 'model.age_rate\] needs a value above 0; got 0' "$scratch/error"

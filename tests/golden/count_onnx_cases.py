"""Counts the cases of ONNX's node suite that tally computes, refuses (it has the op, in a form without what the case asks for),
and has no op for. By hand:

    pip install onnx==1.23.2 safetensors && python3 count_onnx_cases.py TALLY [--list]

TALLY is the command. Cases are those of make_onnx_golden.py, and of more ops that the tests hold against loops of their own.
A case that is one op of tally counts, whatever moves its inputs and results into place here; one that would be made of
several does not.
"""

import collections
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file, save_file

import make_onnx_golden as golden

FLOATS = [np.float32, np.float64]
ONE = dict(
    Abs="abs", Exp="exp", Log="log", Neg="negate", Sqrt="sqrt", Tanh="tanh", Sigmoid="sigmoid", Relu="relu",
    Softplus="softplus", Sign="sign", Sin="sin", Cos="cos", Erf="erf",
)
TWO = dict(Add="add", Sub="subtract", Mul="multiply", Div="divide", Max="maximum", Min="minimum", Pow="tensor_power")
REDUCTIONS = dict(ReduceSum="sum", ReduceMean="mean", ReduceMax="max", ReduceMin="min")


def one(op_type, attributes, given, results):
    """(op, inputs, expected, options) of a case, or nothing."""
    values, y = list(given.values()), next(iter(results.values()))
    first = values[0] if values else None
    floats = all(value.dtype.type in FLOATS for value in values)
    if op_type in ONE and floats:
        return ONE[op_type], {"x": first}, {"y": y}, {}
    if op_type in TWO and floats and len(values) == 2:
        return TWO[op_type], {"a": values[0], "b": values[1]}, {"y": y}, {}
    if op_type == "Sum" and floats and len(values) == 2:
        return "add", {"a": values[0], "b": values[1]}, {"y": y}, {}
    if op_type in ("Max", "Min", "Sum", "Mean") and floats and len(values) == 1:
        return "reshape", {"x": first}, {"y": y}, {"shape": list(y.shape)}
    if op_type == "Reciprocal":
        return "divide", {"a": np.ones_like(first), "b": first}, {"y": y}, {}
    if op_type == "Gelu" and attributes.get("approximate", b"none") == b"none":
        return "gelu", {"x": first}, {"y": y}, {}
    if op_type == "Swish" and attributes.get("alpha", 1.0) == 1.0:
        return "silu", {"x": first}, {"y": y}, {}
    if op_type == "Elu":
        return "elu", {"x": first}, {"y": y}, {"alpha": attributes.get("alpha", 1.0)}
    if op_type == "Celu" and attributes.get("alpha", 1.0) == 1.0:
        return "elu", {"x": first}, {"y": y}, {"alpha": 1.0}
    if op_type == "Clip" and first.dtype.type in FLOATS:
        bounds = {"low": given.get("min"), "high": given.get("max")}
        return "clamp", {"x": first}, {"y": y}, {k: float(v) for k, v in bounds.items() if v is not None}
    if op_type == "Where":
        if values[1].dtype.type not in FLOATS:
            return None
        return "where", {"mask": first.astype(np.uint8), "a": values[1], "b": values[2]}, {"y": y}, {}
    if op_type in REDUCTIONS and first.dtype.type in FLOATS:
        axes = [int(axis) for axis in given.get("axes", attributes.get("axes", []))]
        if (not axes and attributes.get("noop_with_empty_axes", 0)) or (first.size == 0 and op_type != "ReduceSum"):
            return None
        return REDUCTIONS[op_type], {"x": first}, {"y": y}, {"dims": axes, "keepdims": bool(attributes.get("keepdims", 1))}
    if op_type == "CumSum" and first.dtype.type in FLOATS and not attributes.get("exclusive") and not attributes.get("reverse"):
        return "cumulative_sum", {"x": first}, {"y": y}, {"dim": int(values[1])}
    if op_type == "Concat" and len(values) == 2:
        return "concat", {"a": values[0], "b": values[1]}, {"y": y}, {"dim": attributes["axis"]}
    if op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity") and first is not None and floats_or_whole(first):
        return "reshape", {"x": first}, {"y": y}, {"shape": list(y.shape)}
    if op_type == "Dropout" and len(results) == 1 and np.array_equal(first, y):
        return "dropout", {"x": first}, {"y": y}, {"rate": 0.0}
    if op_type == "Expand":
        return "expand", {"x": first}, {"y": y}, {"shape": list(y.shape)}
    if op_type == "Slice":
        return sliced(given, y)
    if op_type == "Gather" and attributes.get("axis", 0) == 0:
        indices = golden.counted(values[1], first.shape[0])
        return "gather", {"x": first, "indices": indices}, {"y": y}, {}
    if op_type in ("LayerNormalization", "RMSNormalization") and len(results) <= 3:
        return norm(op_type, attributes, given, results)
    if op_type == "Gemm" and attributes.get("alpha", 1.0) == 1 and attributes.get("beta", 1.0) == 1 and "c" in given:
        a = given["a"].T if attributes.get("transA", 0) else given["a"]
        weight = given["b"] if attributes.get("transB", 0) else given["b"].T
        if given["c"].ndim > 2 or given["c"].size != weight.shape[0]:
            return None
        return "linear", {"x": a, "weight": weight, "bias": given["c"].reshape(-1)}, {"y": y}, {}
    return None


def floats_or_whole(x):
    return isinstance(x, np.ndarray) and x.dtype.type in golden.TYPES


def sliced(given, y):
    """Of one dimension with steps of 1."""
    x = given["x"]
    starts, ends = given["starts"], given["ends"]
    axes = given.get("axes", np.arange(len(starts)))
    if np.any(given.get("steps", np.ones(1)) != 1):
        return None
    cuts = []
    for axis, start, end in zip(axes, starts, ends):
        begin, stop, _ = slice(int(start), int(end)).indices(x.shape[axis])
        if (begin, stop) != (0, x.shape[axis]):
            cuts.append((int(axis), begin, max(begin, stop)))
    if len(cuts) > 1:
        return None
    dim, begin, end = cuts[0] if cuts else (0, 0, x.shape[0])
    return "slice", {"x": x}, {"y": y}, {"dim": dim, "begin": begin, "end": end}


def norm(op_type, attributes, given, results):
    """Over the last dimensions, as rows."""
    x, weight = list(given.values())[:2]
    axis = attributes.get("axis", -1) % x.ndim
    flat = lambda a: a.reshape(int(np.prod(x.shape[:axis])), -1)
    if weight.size != flat(x).shape[1]:
        return None
    inputs = {"x": flat(x), "weight": weight.reshape(-1)}
    if op_type == "LayerNormalization":
        bias = list(given.values())[2] if len(given) > 2 else np.zeros_like(weight)
        inputs["bias"] = bias.reshape(-1)
        if len(results) > 1:
            return None  # the mean and the inverse deviation besides
    y = next(iter(results.values()))
    op = "layer_norm" if op_type == "LayerNormalization" else "rms_norm"
    return op, inputs, {"y": flat(y)}, {"epsilon": attributes.get("epsilon", 1e-5)}


KNOWN = set(ONE) | set(TWO) | set(REDUCTIONS) | set(
    "Sum Mean Reciprocal Gelu Swish Elu Celu Clip Where CumSum Concat Reshape Flatten Squeeze Unsqueeze Identity Dropout Expand "
    "Slice Gather LayerNormalization RMSNormalization Gemm Equal Less LessOrEqual Greater GreaterOrEqual ArgMax ArgMin Transpose "
    "Split Pad GatherElements ScatterElements OneHot Softmax LogSoftmax ReduceLogSumExp TopK MatMul SoftmaxCrossEntropyLoss "
    "CausalConvWithState RotaryEmbedding LinearAttention GRU LSTM BatchNormalization Attention".split()
)


def passes(tally, op, inputs, expected, options, tolerance):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        # A result may be named otherwise here: then it is the first one.
        try:
            save_file({k: np.ascontiguousarray(v).reshape(np.shape(v)) for k, v in inputs.items()}, folder / "in.safetensors")
        except (KeyError, TypeError):
            return False  # of a type that there is no file for
        arguments = ["--input", folder / "in.safetensors", "--output", folder / "out.safetensors"]
        run = subprocess.run([tally, "apply", op, *arguments, "--options", json.dumps(options)], capture_output=True, text=True)
        if run.returncode != 0:
            return False
        got = load_file(folder / "out.safetensors")
    for key, value in expected.items():
        name, _, last = key.partition(":")
        result = got.get(name, next(iter(got.values())))
        if last:
            result = result[inputs["offsets"][1:] - 1]
        if result.shape != np.shape(value) or not np.allclose(result, value, rtol=tolerance, atol=tolerance, equal_nan=True):
            return False
    return True


def main():
    tally = sys.argv[1]
    made, good = collections.defaultdict(list), {}

    def keep(op, cases, rounded={}):
        for name, (inputs, expected, options) in cases.items():
            known, _, case = name.partition(".")
            made[case or known].append((known if case else op, inputs, expected, options, max(2e-6, rounded.get(name, 0))))

    golden.save = keep
    for family in (golden.attentions, golden.causal_convolutions, golden.elementwise, golden.linear_attentions, golden.losses,
                   golden.recurrences, golden.rotary, golden.tensors):
        family()
    modules = {}
    golden.save = lambda op, cases, rounded={}: modules.update(cases)
    golden.batch_norms()  # tests/nn computes them
    counts = collections.defaultdict(collections.Counter)
    for case in golden.SUITE:
        name = case.name.removeprefix("test_")
        if "_expanded" in name:
            continue
        op_type = case.model.graph.node[0].op_type
        single = len(case.model.graph.node) == 1
        tries = made[name] + made[name + "_0"] + made[name + "_1"]
        arrays = not any(isinstance(value, (list, type(None))) for values in case.data_sets[0] for value in values)
        if not tries and single and op_type in KNOWN and arrays:
            attributes, given, results = golden.contents(case)
            found = one(op_type, attributes, given, results)
            tries = [(*found, max(2e-6, golden.rounding(results)))] if found else []
        if name in modules or (tries and all(passes(tally, *each) for each in tries)):
            counts["passed"][op_type] += 1
        elif single and op_type in KNOWN:
            counts["refused"][op_type] += 1
            if tries:
                print("not as ONNX has it:", name, tries[0][0])
        else:
            counts["no op"][op_type] += 1
    for kind in ("passed", "refused", "no op"):
        print(kind, sum(counts[kind].values()))
        if "--list" in sys.argv:
            print("   ", ", ".join(f"{op} {count}" for op, count in sorted(counts[kind].items())))


main()

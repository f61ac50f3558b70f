"""Counts the cases of ONNX's node suite, but those of ops' expansions, that tally computes by one op (whatever moves inputs and
results into place), by several (onnx_compositions.py), refuses, and has nothing for. By hand:

    pip install onnx==1.23.2 safetensors && python3 count_onnx_cases.py TALLY [--list] [--write]

TALLY is the command. --list names the refused cases with the reason; --write writes what onnx_compositions.py ran as
onnx_compositions.safetensors: inputs CASE/NAME, results CASE/expected/NAME, and the steps in the metadata.
tests/tools/onnx_cases_test.cpp runs them again.
"""

import collections
import concurrent.futures
import inspect
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file, save_file

import make_onnx_golden as golden
import onnx_compositions as compositions

FLOATS = [np.float32, np.float64]
TWO = dict(Add="add", Sub="subtract", Mul="multiply", Div="divide", Max="maximum", Min="minimum", Pow="tensor_power")
REDUCTIONS = dict(ReduceSum="sum", ReduceMean="mean", ReduceMax="max", ReduceMin="min")


def one(op_type, attributes, given, results):
    """(op, inputs, expected, options) of a case, or nothing."""
    values, y = list(given.values()), next(iter(results.values()))
    first = values[0] if values else None
    floats = all(value.dtype.type in FLOATS for value in values)
    if op_type in compositions.UNARY and floats:
        return compositions.UNARY[op_type], {"x": first}, {"y": y}, {}
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


def close(got, expected, tolerance):
    expected = compositions.readable(expected)
    return got.shape == expected.shape and np.allclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def composed(tally, op_type, attributes, given, results):
    """The program that computes a case. Throws Refused."""
    compose = compositions.COMPOSITIONS[op_type]
    program = compositions.Program(tally)
    further = {
        key: value
        for key, value in dict(op_type=op_type, results=results).items()
        if key in inspect.signature(compose).parameters
    }
    made = compose(program, attributes, given, **further)
    if not isinstance(made, dict):
        made = dict(zip(results, made))
    tolerance = max(2e-6, golden.rounding(results))
    for key, value in results.items():
        if not close(made[key].array, value, tolerance):
            raise compositions.Refused("another result")
    steps = {"steps": program.steps, "results": {key: made[key].name for key in results}, "tolerance": tolerance}
    return steps, program.inputs, {key: compositions.readable(value) for key, value in results.items()}


def judge(tally, case, tries):
    """(verdict, why or the program) of a case."""
    op_type, single = case.model.graph.node[0].op_type, len(case.model.graph.node) == 1
    known = single and op_type in compositions.COMPOSITIONS
    if any(isinstance(value, (list, type(None))) for values in case.data_sets[0] for value in values):
        return ("refused", "sequences and optional values") if known else ("no op", None)
    attributes, given, results = golden.contents(case)
    if not tries and known:
        try:
            found = one(op_type, attributes, given, results)
        except (KeyError, IndexError):
            found = None
        tries = [(*found, max(2e-6, golden.rounding(results)))] if found else []
    if tries and all(passes(tally, *each) for each in tries):
        return "one op", None
    if not known:
        return "no op", None
    try:
        program = composed(tally, op_type, attributes, given, results)
        return "one op" if len(program[0]["steps"]) == 1 else "composed", program
    except compositions.Refused as why:
        return "refused", str(why)


def write(programs):
    tensors, steps = {}, {}
    for name, (made, inputs, expected) in sorted(programs.items()):
        if max(np.size(value) for value in [*inputs.values(), *expected.values()]) > 1024 or len(made["steps"]) > 60:
            continue
        steps[name] = made
        tensors.update({f"{name}/{key}": value for key, value in inputs.items()})
        tensors.update({f"{name}/expected/{key}": value for key, value in expected.items()})
    save_file(
        tensors, golden.HERE / "onnx_compositions.safetensors", metadata={"programs": json.dumps(steps, separators=(",", ":"))}
    )
    print("wrote", len(steps), "compositions")


def main():
    tally = sys.argv[1]
    made = collections.defaultdict(list)

    def keep(op, cases, rounded={}):
        for name, (inputs, expected, options) in cases.items():
            known, _, case = name.partition(".")
            made[case or known].append((known if case else op, inputs, expected, options, max(2e-6, rounded.get(name, 0))))

    golden.save = keep
    for family in (
        golden.attentions,
        golden.causal_convolutions,
        golden.elementwise,
        golden.linear_attentions,
        golden.losses,
        golden.recurrences,
        golden.rotary,
        golden.tensors,
    ):
        family()
    modules = {}
    golden.save = lambda op, cases, rounded={}: modules.update(cases)
    golden.batch_norms()  # tests/nn computes them
    suite = {case.name.removeprefix("test_"): case for case in golden.SUITE if "_expanded" not in case.name}
    tries = {name: made[name] + made[name + "_0"] + made[name + "_1"] for name in suite}
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        verdicts = dict(
            zip(
                suite,
                threads.map(
                    lambda name: ("one op", None) if name in modules else judge(tally, suite[name], tries[name]), suite
                ),
            )
        )
    counts, whys = collections.defaultdict(collections.Counter), collections.defaultdict(list)
    for name, (verdict, more) in verdicts.items():
        counts[verdict][suite[name].model.graph.node[0].op_type] += 1
        if verdict == "refused":
            whys[more].append(name)
    for kind in ("one op", "composed", "refused", "no op"):
        print(kind, sum(counts[kind].values()))
        if "--list" in sys.argv:
            print("   ", ", ".join(f"{op} {count}" for op, count in sorted(counts[kind].items())))
    if "--list" in sys.argv:
        for why, names in sorted(whys.items(), key=lambda each: -len(each[1])):
            print(f"refused, {len(names)}: {why}\n   ", ", ".join(names))
    if "--write" in sys.argv:
        write({name: more for name, (verdict, more) in verdicts.items() if verdict != "refused" and more is not None})


main()

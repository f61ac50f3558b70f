"""Writes the cases of ONNX's node suite that tally has ops for, one file an op or a family of small ones:
onnx_OP.safetensors of this folder.

    pip install onnx==1.23.2 safetensors && python3 make_onnx_golden.py

A case CASE is its inputs CASE/NAME and its results CASE/expected/NAME in the names and shapes of the op, and its options as
JSON in the metadata, with the op's name where the file is a family's. tests/tools/onnx_cases_test.cpp runs them through `tally apply`.
"""

import json
import pathlib

import numpy as np
from onnx.backend.test.case.node import collect_testcases
from onnx.helper import get_attribute_value
from onnx.numpy_helper import to_array
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent


np.random.seed(27)
# Once and of all ops: ONNX makes the cases while it imports them.
with np.errstate(all="ignore"):
    SUITE = collect_testcases(None)


def cases(op_type):
    """(name, attributes, inputs by name, outputs by name) of each case but those of the op's expansion."""
    for case in SUITE:
        if case.model.graph.node[0].op_type != op_type or case.name.endswith("_expanded"):
            continue
        node, ((inputs, outputs),) = case.model.graph.node[0], case.data_sets
        array = lambda value: value if isinstance(value, np.ndarray) else to_array(value)
        given = dict(zip((name for name in node.input if name), map(array, inputs)))
        attributes = {a.name: get_attribute_value(a) for a in node.attribute}
        yield case.name.removeprefix("test_"), attributes, given, dict(zip(node.output, map(array, outputs)))


def save(op, made, ops=None):
    tensors, options = {}, {}
    for name, (inputs, expected, case_options) in made.items():
        options[name] = json.dumps(case_options)
        tensors.update({f"{name}/{key}": np.ascontiguousarray(value) for key, value in inputs.items()})
        tensors.update({f"{name}/expected/{key}": np.ascontiguousarray(value) for key, value in expected.items()})
    metadata = {"options": json.dumps(options)} | ({"ops": json.dumps(ops)} if ops else {})
    save_file(tensors, HERE / f"onnx_{op}.safetensors", metadata=metadata)
    print(op, len(made), "cases")


TYPES = [np.float32, np.float64, np.int32, np.int64, np.uint8]


def elementwise():
    """One argument, two, and comparisons, of the types that tally has."""
    made, ops = {}, {}
    one = {"Sign": "sign", "Sin": "sin", "Cos": "cos", "Erf": "erf"}
    two = {"Max": "maximum", "Min": "minimum", "Pow": "tensor_power"}
    masks = {
        "Equal": "equal",
        "Less": "less",
        "LessOrEqual": "less_equal",
        "Greater": "greater",
        "GreaterOrEqual": "greater_equal",
    }
    for op_type, op in (one | two | masks).items():
        for name, _, given, results in cases(op_type):
            values, (result,) = list(given.values()), results.values()
            types = {value.dtype.type for value in values}
            count = 1 if op_type in one else 2
            # Only comparisons take integers.
            if len(values) != count or len(types) != 1 or not types <= set(TYPES if op_type in masks else TYPES[:2]):
                continue
            if op_type == "Erf":
                # One row of many.
                values, result = [values[0][0, 0, 0]], result[0, 0, 0]
            result = result.astype(np.uint8) if op_type in masks else result
            made[name] = (dict(zip(["x"] if count == 1 else ["a", "b"], values)), {"mask" if op_type in masks else "y": result}, {})
            ops[name] = op
    for op_type, op in {"ArgMax": "argmax", "ArgMin": "argmin"}.items():
        for name, attributes, given, results in cases(op_type):
            if attributes.get("select_last_index", 0):
                continue  # of equals tally takes the first
            options = {"dim": attributes.get("axis", 0), "keepdims": bool(attributes.get("keepdims", 1))}
            made[name] = ({"x": given["data"]}, {"indices": results["result"]}, options)
            ops[name] = op
    save("elementwise", made, ops)


def rows(x):
    """[B, C, L], channels before time, as packed rows [B * L, C]."""
    return x.transpose(0, 2, 1).reshape(-1, x.shape[1])


def causal_convolutions():
    convolutions, states = {}, {}
    for name, attributes, given, results in cases("CausalConvWithState"):
        x, weight = given["input"], given["weight"]
        offsets = np.arange(x.shape[0] + 1, dtype=np.int64) * x.shape[2]
        initial = {"initial": given["past_state"].transpose(0, 2, 1)} if "past_state" in given else {}
        bias = {"bias": given["bias"]} if "bias" in given else {}
        # ONNX's other name of it.
        activation = attributes.get("activation", b"none").decode().replace("swish", "silu")
        inputs = {"x": rows(x), "offsets": offsets} | initial
        convolutions[name] = (
            inputs | {"weight": weight[:, 0]} | bias,
            {"y": rows(results["output"])},
            {"activation": activation},
        )
        states[name] = (
            inputs,
            {"rows": results["present_state"].transpose(0, 2, 1)},
            {"count": weight.shape[2] - 1},
        )
    save("causal_conv1d", convolutions)
    save("last_rows", states)


def rotary():
    made = {}
    for name, attributes, given, results in cases("RotaryEmbedding"):
        x = given["input"]
        # [B, heads, T, width], or [B, T, heads * width] with the heads as an attribute.
        heads = x.shape[1] if x.ndim == 4 else attributes["num_heads"]
        columns = x.shape[-1] * (heads if x.ndim == 4 else 1)
        packed = lambda a: (a.transpose(0, 2, 1, 3) if a.ndim == 4 else a).reshape(-1, columns)
        cosines, sines = given["cos_cache"], given["sin_cache"]
        if "position_ids" in given:
            positions = given["position_ids"].reshape(-1)
        else:
            # A row of the caches for each row of x.
            cosines, sines = (cache.reshape(-1, cache.shape[-1]) for cache in (cosines, sines))
            positions = np.arange(cosines.shape[0], dtype=np.int64)
        pairs = "interleaved" if attributes.get("interleaved", 0) else "halves"
        made[name] = (
            {"x": packed(x), "positions": positions, "cosines": cosines, "sines": sines},
            {"y": packed(results["output"])},
            {"heads": int(heads), "pairs": pairs},
        )
    save("rotary", made)


def linear_attentions():
    made = {}
    for name, attributes, given, results in cases("LinearAttention"):
        # Half precision is computed in f32.
        given, results = ({k: x.astype(np.float32) for k, x in each.items()} for each in (given, results))
        packed = lambda x: x.reshape(-1, x.shape[-1])
        sequences, length = given["query"].shape[:2]
        names = {"query": "q", "key": "k", "value": "v", "decay": "log_decay", "beta": "gain"}
        inputs = {names[key]: packed(x) for key, x in given.items() if key in names}
        inputs["offsets"] = np.arange(sequences + 1, dtype=np.int64) * length
        if "past_state" in given:
            inputs["initial_state"] = given["past_state"]
        made[name] = (
            inputs,
            {"output": packed(results["output"]), "final_state": results["present_state"]},
            {
                "heads": int(attributes["q_num_heads"]),
                "rule": attributes.get("update_rule", b"gated_delta").decode(),
                "scale": float(attributes.get("scale", 0)),
            },
        )
    family = {case.name.removeprefix("test_") for case in SUITE if "linear_attention" in case.name}
    assert set(made) == {name for name in family if not name.endswith("_expanded")}, family
    save("linear_attention", made)


if __name__ == "__main__":
    causal_convolutions()
    elementwise()
    linear_attentions()
    rotary()

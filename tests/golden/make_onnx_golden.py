"""Writes the cases of ONNX's node suite that tally has ops for, one file an op or a family of small ones:
onnx_OP.safetensors of this folder.

    pip install onnx==1.23.2 safetensors && python3 make_onnx_golden.py

A case CASE is its inputs CASE/NAME and its results CASE/expected/NAME in the names and shapes of the op (NAME:last for the
last row of each sequence), and its options as JSON in the metadata; in the file of a family CASE is OP.CASE.
tests/tools/onnx_cases_test.cpp runs them through `tally apply`, but those of modules, which tests/nn has.
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
        if case.model.graph.node[0].op_type == op_type and not case.name.endswith("_expanded"):
            yield case.name.removeprefix("test_"), *contents(case)


def contents(case):
    """(attributes, inputs by name, outputs by name) of a case."""
    node, ((inputs, outputs),) = case.model.graph.node[0], case.data_sets
    array = lambda value: np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else to_array(value)
    given, results = (
        dict(zip((name for name in names if name), map(array, values)))
        for names, values in ((node.input, inputs), (node.output, outputs))
    )
    return {a.name: get_attribute_value(a) for a in node.attribute}, given, results


def rounding(results):
    """What a case's results are off by, at most, for being of few digits: those are computed in f32 here."""
    types = {str(value.dtype) for value in results.values()}
    return 2.0**-7 if "bfloat16" in types else 2.0**-10 if "float16" in types else 0.0


LARGE = 4096  # elements; count_onnx_cases.py alone has larger cases


def save(op, made, rounded={}):
    tensors, options = {}, {}
    for name, (inputs, expected, case_options) in made.items():
        if op == "losses" and max(np.size(value) for value in inputs.values()) > LARGE:
            continue
        options[name] = json.dumps(case_options)
        tensors.update({f"{name}/{key}": np.asarray(value, order="C") for key, value in inputs.items()})
        tensors.update({f"{name}/expected/{key}": np.asarray(value, order="C") for key, value in expected.items()})
    metadata = {"options": json.dumps(options)} | ({"rounded": json.dumps(rounded)} if rounded else {})
    save_file(tensors, HERE / f"onnx_{op}.safetensors", metadata=metadata)
    print(op, len(made), "cases")


TYPES = [np.float32, np.float64, np.int32, np.int64, np.uint8]


def elementwise():
    """One argument, two, and comparisons, of the types that tally has."""
    made = {}
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
            inputs = dict(zip(["x"] if count == 1 else ["a", "b"], values))
            made[f"{op}.{name}"] = (inputs, {"mask" if op_type in masks else "y": result}, {})
    for op_type, op in {"ArgMax": "argmax", "ArgMin": "argmin"}.items():
        for name, attributes, given, results in cases(op_type):
            if attributes.get("select_last_index", 0):
                continue  # of equals tally takes the first
            options = {"dim": attributes.get("axis", 0), "keepdims": bool(attributes.get("keepdims", 1))}
            made[f"{op}.{name}"] = ({"x": given["data"]}, {"indices": results["result"]}, options)
    save("elementwise", made)


def counted(indices, size):
    """Indices from the front."""
    indices = indices.astype(np.int64)
    return np.where(indices < 0, indices + size, indices)


def tensors():
    """What moves elements, softmax and matrix products."""
    made = {}

    def add(op, name, *case):
        made[f"{op}.{name}"] = case

    for name, attributes, given, results in cases("Transpose"):
        x, y = given["data"], results["transposed"]
        add("permute", name, {"x": x}, {"y": y}, {"dims": list(attributes.get("perm", range(x.ndim)[::-1]))})
    for name, attributes, given, results in cases("Split"):
        pieces = list(results.values())
        if len(pieces) == 3:  # the catalog's entry has as many
            dim = attributes.get("axis", 0)
            options = {"dim": dim, "sizes": [piece.shape[dim] for piece in pieces]}
            add("split", name, {"x": given["input"]}, dict(zip("abc", pieces)), options)
    for name, attributes, given, results in cases("Pad"):
        x = given["x"]
        if attributes["mode"] != b"constant" or "value" not in given:
            continue
        axes = counted(given.get("axes", np.arange(x.ndim)), x.ndim)
        before, after = np.zeros((2, x.ndim), dtype=np.int64)
        before[axes], after[axes] = given["pads"].reshape(2, -1)
        options = {"before": before.tolist(), "after": after.tolist(), "value": float(given["value"])}
        add("pad", name, {"x": x}, {"y": results["y"]}, options)
    for name, attributes, given, results in cases("GatherElements"):
        dim = attributes["axis"]
        inputs = {"x": given["data"], "indices": counted(given["indices"], given["data"].shape[dim])}
        add("gather_along", name, inputs, {"y": results["y"]}, {"dim": dim})
    for name, attributes, given, results in cases("ScatterElements"):
        if attributes.get("reduction") == b"add":
            dim = attributes["axis"]
            inputs = {"x": given["data"], "indices": counted(given["indices"], given["data"].shape[dim])}
            add("scatter_add", name, inputs | {"values": given["updates"]}, {"y": results["y"]}, {"dim": dim})
    for name, attributes, given, results in cases("OneHot"):
        classes, y = int(given["depth"]), results["y"]
        if "out_of_range" in name or "bfloat16" in name:
            continue  # refused, and no type of tally
        # ONNX has other numbers than 0 and 1, and the classes along any axis.
        off, on = given["values"]
        y = np.moveaxis((y - off) / (on - off), attributes.get("axis", -1), -1).astype(np.float32)
        add("one_hot", name, {"indices": counted(given["indices"], classes)}, {"y": y}, {"classes": classes})
    for op_type, op in {"Softmax": "softmax", "LogSoftmax": "log_softmax"}.items():
        for name, attributes, given, results in cases(op_type):
            add(op, name, {"x": given["x"]}, {"y": results["y"]}, {"dim": attributes.get("axis", -1)})
    for name, attributes, given, results in cases("ReduceLogSumExp"):
        x = given["data"]
        axes = [int(axis) for axis in given.get("axes", [])]
        if not axes and attributes.get("noop_with_empty_axes", 0):
            continue  # the input as it is
        options = {"dims": axes, "keepdims": bool(attributes.get("keepdims", 1))}
        add("log_sum_exp", name, {"x": x}, {"y": results["reduced"]}, options)
    for name, attributes, given, results in cases("TopK"):
        if not attributes.get("largest", 1) or given["x"].dtype not in TYPES[:2]:
            continue  # the smallest ones, and integers
        options = {"k": int(given["k"][0]), "dim": attributes.get("axis", -1)}
        add("top_k", name, {"x": given["x"]}, {"values": results["values"], "indices": results["indices"]}, options)
    for name, _, given, results in cases("MatMul"):
        add("matmul", name, given, {"product": results["c"]}, {})
    save("tensors", made)


def losses():
    """Of logits and of logarithms of probabilities; those that show these besides are compositions."""
    made = {}
    names = {
        "SoftmaxCrossEntropyLoss": ("cross_entropy", "logits"),
        "NegativeLogLikelihoodLoss": ("negative_log_likelihood", "log_probabilities"),
    }
    for op_type, (op, scores) in names.items():
        for name, attributes, given, results in cases(op_type):
            x, targets, *weights = given.values()
            if len(results) > 1:
                continue
            inputs = {scores: x, "targets": targets} | ({"class_weights": weights[0]} if weights else {})
            options = {"reduction": attributes["reduction"].decode(), "ignore_index": attributes.get("ignore_index", -1)}
            made[f"{op}.{name}"] = (inputs, {"loss": next(iter(results.values()))}, options)
    save("losses", made)


def rows(x):
    """[B, C, L], channels before time, as packed rows [B * L, C]."""
    return x.transpose(0, 2, 1).reshape(-1, x.shape[1])


def causal_convolutions():
    convolutions, states, rounded = {}, {}, {}
    for name, attributes, given, results in cases("CausalConvWithState"):
        rounded[name] = rounding(results)
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
    save("causal_conv1d", convolutions, rounded)
    save("last_rows", states, rounded)


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
    made, rounded = {}, {}
    for name, attributes, given, results in cases("LinearAttention"):
        rounded[name] = rounding(results)
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
    save("linear_attention", made, rounded)


def attentions():
    """Attention, of which past keys and values go before the others, and the scores that it shows a case of their own."""
    made, shown, rounded = {}, {}, {}
    for name, attributes, given, results in cases("Attention"):
        rounded[name] = rounding(results)
        # Half precision is computed in f32.
        single = lambda a: a.astype(np.float32) if a.dtype not in (np.bool_, np.int64) else a
        given, results = ({key: single(a) for key, a in each.items()} for each in (given, results))
        of_heads = [attributes.get(f"{which}_num_heads") for which in ("q", "kv", "kv")]
        # [B, heads, T, width] from [B, T, heads * width].
        split = lambda a, heads: a if a.ndim == 4 else a.reshape(*a.shape[:2], heads, -1).transpose(0, 2, 1, 3)
        q, k, v = (split(given[key], heads) for key, heads in zip("QKV", of_heads))
        past = 0
        if "past_key" in given:
            past = given["past_key"].shape[2]
            k, v = (np.concatenate([given[f"past_{key}"], a], axis=2) for key, a in (("key", k), ("value", v)))
            assert all(np.array_equal(results[f"present_{key}"], a) for key, a in (("key", k), ("value", v)))
        (count, heads, queries, _), keys = q.shape, k.shape[2]
        lengths = given.get("nonpad_kv_seqlen", np.full(count, keys, dtype=np.int64))
        packed = lambda a, lengths: np.concatenate([x[:, :n].transpose(1, 0, 2).reshape(n, -1) for x, n in zip(a, lengths)])
        inputs = {
            "q": packed(q, [queries] * count),
            "k": packed(k, lengths),
            "offsets": np.arange(count + 1, dtype=np.int64) * queries,
            "key_offsets": np.concatenate([[0], np.cumsum(lengths)]),
            "starts": lengths - queries if "nonpad_kv_seqlen" in given else np.full(count, past, dtype=np.int64),
        }
        if "attn_mask" in given:
            table = given["attn_mask"]
            table = table.reshape((1,) * (4 - table.ndim) + table.shape)
            boolean = table.dtype == np.bool_
            # One of fewer keys hides the others.
            missing = [(0, 0)] * 3 + [(0, max(keys - table.shape[3], 0))]
            table = np.pad(table, missing, constant_values=False if boolean else -np.inf)
            inputs["visible" if boolean else "bias"] = table.astype(np.uint8) if boolean else table
        options = {
            "heads": heads,
            "key_heads": k.shape[1],
            "mask": "causal" if attributes.get("is_causal", 0) else "bidirectional",
            "left_window": attributes.get("left_window_size", -1),
            "right_window": attributes.get("right_window_size", -1),
            "scale": float(attributes.get("scale", 0)),
            "soft_cap": float(attributes.get("softcap", 0)),
        }
        expected = packed(split(results["Y"], of_heads[0]), [queries] * count)
        made[name] = (inputs | {"v": packed(v, lengths)}, {"output": expected}, options)
        if "qk_matmul_output" in results:
            stage = ["products", "capped", "biased", "probabilities"][attributes.get("qk_matmul_output_mode", 0)]
            scores = results["qk_matmul_output"].reshape(-1)
            shown[name] = (inputs, {"scores": scores}, options | {"stage": stage})
    save("scaled_dot_product_attention", made, rounded)
    save("attention_scores", shown, rounded)


def recurrences():
    """GRU and LSTM, a case for each direction; of a reverse one the rows are given and expected in its order."""
    # Gates of ONNX (z, r, h and i, o, f, c) in the order of tally.
    for op_type, order in {"GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}.items():
        made = {}
        for name, attributes, given, results in cases(op_type):
            if "P" in given:
                continue  # no peepholes
            x, width, count = given["X"], attributes["hidden_size"], len(order)
            batchwise = attributes.get("layout", 0) == 1
            x = x if batchwise else x.transpose(1, 0, 2)  # [sequences, length, in]
            sequences, length = x.shape[:2]
            direction = attributes.get("direction", b"forward").decode()
            gates = lambda a: a.reshape(count, width, -1)[order].reshape(count * width, -1)
            for i, backward in enumerate({"bidirectional": [False, True]}.get(direction, [direction == "reverse"])):
                turn = lambda a: a[:, ::-1] if backward else a
                bias = given["B"][i] if "B" in given else np.zeros(2 * count * width, dtype=x.dtype)
                of_input, of_hidden = (gates(half)[:, 0] for half in np.split(bias, 2))
                products = turn(x).reshape(sequences * length, -1) @ gates(given["W"][i]).T + of_input
                inputs = {
                    "products": products.astype(np.float32),
                    "weight": gates(given["R"][i]),
                    "bias": of_hidden,
                    "offsets": np.arange(sequences + 1, dtype=np.int64) * length,
                }
                direct = lambda a: a[:, i] if batchwise else a[i]
                expected = {"states:last": direct(results["Y_h"])}
                if "Y_c" in results:
                    expected["cells:last"] = direct(results["Y_c"])
                if "Y" in results:
                    y = results["Y"][:, :, i] if batchwise else results["Y"][:, i].transpose(1, 0, 2)
                    expected["states"] = turn(y).reshape(-1, width)
                options = {"linear_before_reset": bool(attributes.get("linear_before_reset", 0))}
                made[f"{name}_{i}"] = (inputs, expected, options if op_type == "GRU" else {})
        save(op_type.lower(), made)


def batch_norms():
    """Columns of rows, for the module of nn."""
    made = {}
    for name, attributes, given, results in cases("BatchNormalization"):
        columns = lambda a: np.moveaxis(a, 1, -1).reshape(-1, a.shape[1])
        inputs = {key: value for key, value in given.items() if key != "x"} | {"x": columns(given["x"])}
        expected = {key: columns(value) if key == "y" else value for key, value in results.items()}
        options = {"epsilon": attributes.get("epsilon", 1e-5), "training": bool(attributes.get("training_mode", 0))}
        made[name] = (inputs, expected, options)
    save("batch_norm", made)


if __name__ == "__main__":
    attentions()
    batch_norms()
    causal_convolutions()
    elementwise()
    linear_attentions()
    losses()
    recurrences()
    rotary()
    tensors()

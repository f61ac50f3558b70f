"""Writes what PyTorch computes where tally has an op or a layer: results, and gradients under random cotangents, on odd shapes.

    pip install numpy safetensors torch && python3 make_pytorch_ops_golden.py

Inputs are of f32, and PyTorch computes in f64. A case CASE is its inputs CASE/NAME, its results CASE/expected/NAME, cotangents
CASE/cotangent/NAME and gradients CASE/gradient/NAME; its op and options are JSON in the metadata. tests/tools/pytorch_ops_test.cpp
runs ops (pytorch_ops.safetensors) in f64 and f32, tests/nn/pytorch_layers_test.cpp layers (pytorch_layers.safetensors).
"""

import json
import math
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
torch.manual_seed(19)
TENSORS, CASES = {}, {}
CONSTANTS = {"starts", "class_weights", "cosines", "sines"}


def normal(*shape, size=1.0):
    return (torch.randn(shape) * size).float()


def offsets(*lengths):
    return torch.tensor([0, *lengths]).cumsum(0)


def case(op, function, inputs, options={}, results=("y",)):
    """function(inputs in f64) is a tensor, or one for each name of `results`."""
    name = f"{op}.{sum(each['op'] == op for each in CASES.values())}"
    CASES[name] = {"op": op, "options": options}
    given = {key: x.double() if x.is_floating_point() else x for key, x in inputs.items()}
    for key, x in given.items():
        if x.is_floating_point() and key not in CONSTANTS:
            x.requires_grad_()
    made = function(**given)
    made = dict(zip(results, made if isinstance(made, (tuple, list)) else [made]))
    total = 0
    for key, x in inputs.items():
        TENSORS[f"{name}/{key}"] = x
    for key, y in made.items():
        TENSORS[f"{name}/expected/{key}"] = y.detach()
        if y.requires_grad:
            cotangent = normal(*y.shape)
            TENSORS[f"{name}/cotangent/{key}"] = cotangent
            total = total + (y * cotangent.double()).sum()
    if isinstance(total, torch.Tensor):
        total.backward()
    for key, x in given.items():
        if x.grad is not None:
            TENSORS[f"{name}/gradient/{key}"] = x.grad


def unary(op, function, x, options={}):
    case(op, lambda x: function(x), {"x": x}, options)


def elementwise():
    x = normal(3, 1, 7, size=2)
    for op, function in dict(
        negate=torch.neg,
        abs=torch.abs,
        exp=torch.exp,
        square=torch.square,
        tanh=torch.tanh,
        sigmoid=torch.sigmoid,
        relu=torch.relu,
        gelu=F.gelu,
        silu=F.silu,
        softplus=F.softplus,
        sin=torch.sin,
        cos=torch.cos,
        erf=torch.erf,
        expm1=torch.expm1,
        sign=torch.sign,
    ).items():
        unary(op, function, x)
    positive = x.abs() + 0.125
    for op, function in dict(log=torch.log, sqrt=torch.sqrt, log1p=torch.log1p).items():
        unary(op, function, positive)
    unary("power", lambda x: x**1.7, positive, {"exponent": 1.7})
    unary("elu", lambda x: F.elu(x, 0.7), x, {"alpha": 0.7})
    unary("clamp", lambda x: x.clamp(-0.5, 1.25), x, {"low": -0.5, "high": 1.25})
    for shapes in (((3, 5), (3, 5)), ((2, 1, 7), (3, 1))):
        a, b = normal(*shapes[0]), normal(*shapes[1])
        # Equals take half of the gradient each.
        a.view(-1)[:1] = b.view(-1)[:1]
        for op, function in dict(
            add=torch.add,
            subtract=torch.sub,
            multiply=torch.mul,
            divide=torch.div,
            maximum=torch.maximum,
            minimum=torch.minimum,
        ).items():
            case(op, lambda a, b, f=function: f(a, b), {"a": a, "b": b})
        case("tensor_power", lambda a, b: a**b, {"a": a.abs() + 0.125, "b": b})
        for op, function in dict(
            equal=torch.eq, less=torch.lt, less_equal=torch.le, greater=torch.gt, greater_equal=torch.ge
        ).items():
            case(op, lambda a, b, f=function: f(a, b).to(torch.uint8), {"a": a, "b": b}, results=("mask",))
        mask = torch.randint(0, 2, shapes[0], dtype=torch.uint8)
        case("where", lambda mask, a, b: torch.where(mask.bool(), a, b), {"mask": mask, "a": a, "b": b})


def reductions():
    x = normal(3, 5, 2, 3)
    for dims, keepdims in (([], False), ([1], True), ([0, 2], False), ([-1, 1], True)):
        options = {"dims": dims, "keepdims": keepdims}
        over = dims or [0, 1, 2, 3]
        for op, function in dict(
            sum=torch.sum, mean=torch.mean, max=torch.amax, min=torch.amin, log_sum_exp=torch.logsumexp
        ).items():
            unary(op, lambda x, f=function: f(x, over, keepdim=keepdims), x, options)
    for dim in (0, 1, -1):
        unary("softmax", lambda x: x.softmax(dim), x, {"dim": dim})
        unary("log_softmax", lambda x: x.log_softmax(dim), x, {"dim": dim})
        unary("cumulative_sum", lambda x: x.cumsum(dim), x, {"dim": dim})
        case("argmax", lambda x: x.argmax(dim), {"x": x}, {"dim": dim}, ["indices"])
        case("argmin", lambda x: x.argmin(dim, True), {"x": x}, {"dim": dim, "keepdims": True}, ["indices"])
        k = min(3, x.shape[dim])
        case("top_k", lambda x: x.topk(k, dim), {"x": x}, {"k": k, "dim": dim}, ["values", "indices"])


def shapes():
    x = normal(3, 5, 2)
    unary("permute", lambda x: x.permute(2, 0, 1), x, {"dims": [2, 0, 1]})
    unary("transpose", lambda x: x.transpose(0, 2), x, {"a": 0, "b": 2})
    unary("reverse", lambda x: x.flip(0, 2), x, {"dims": [0, 2]})
    unary("pad", lambda x: F.pad(x, (1, 0, 0, 3, 2, 1), value=0.5), x, {"before": [2, 0, 1], "after": [1, 3, 0], "value": 0.5})
    case("split", lambda x: x.split([1, 3, 1], 1), {"x": x}, {"sizes": [1, 3, 1], "dim": 1}, "abc")
    case("stack", lambda a, b: torch.stack([a, b], 1), {"a": x, "b": normal(3, 5, 2)}, {"dim": 1})
    case("concat", lambda a, b: torch.cat([a, b], 1), {"a": x, "b": normal(3, 2, 2)}, {"dim": 1})
    unary("slice", lambda x: x[:, 1:4], x, {"dim": 1, "begin": 1, "end": 4})
    unary("expand", lambda x: x.expand(2, 3, 5), normal(3, 1), {"shape": [2, 3, 5]})
    for dim in (0, 1, 2):
        sizes = [2, 4, 2]
        indices = torch.randint(0, x.shape[dim], sizes)
        case("gather_along", lambda x, indices: x.gather(dim, indices), {"x": x, "indices": indices}, {"dim": dim})
        inputs = {"x": x, "indices": indices, "values": normal(*sizes)}
        case("scatter_add", lambda x, indices, values: x.scatter_add(dim, indices, values), inputs, {"dim": dim})
    rows = torch.tensor([[2, 0], [2, 1]])
    case("gather", lambda x, indices: x[indices], {"x": x, "indices": rows})
    inputs = {"x": x, "indices": rows, "values": normal(2, 2, 5, 2)}
    case("index_add", lambda x, indices, values: x.index_add(0, indices.view(-1), values.flatten(0, 1)), inputs)
    case("one_hot", lambda indices: F.one_hot(indices, 4), {"indices": rows}, {"classes": 4})


def products():
    for a, b in (((7,), (7,)), ((7,), (2, 7, 3)), ((3, 7), (7,)), ((2, 1, 3, 5), (4, 5, 2)), ((5, 3), (3, 9))):
        case("matmul", lambda a, b: a @ b, {"a": normal(*a), "b": normal(*b)}, results=("product",))
    inputs = {"x": normal(3, 2, 5), "weight": normal(7, 5), "bias": normal(7)}
    case("linear", lambda x, weight, bias: F.gelu(F.linear(x, weight, bias)), inputs, {"activation": "gelu"})


def losses():
    for scores, targets in (((7, 5), (7,)), ((3, 5, 2, 3), (3, 2, 3))):
        for reduction in ("mean", "sum", "none"):
            for weights in (None, torch.rand(5) + 0.25):
                classes = torch.randint(0, 5, targets)
                inputs = {"targets": classes} | ({} if weights is None else {"class_weights": weights.float()})
                options = {"reduction": reduction, "ignore_index": 3}
                arguments = dict(reduction=reduction, ignore_index=3)
                call = lambda f: lambda x, targets, class_weights=None: f(x, targets, class_weights, **arguments)
                x = normal(*scores)
                case(
                    "cross_entropy",
                    lambda logits, **o: call(F.cross_entropy)(logits, **o),
                    {"logits": x} | inputs,
                    options,
                    ["loss"],
                )
                case(
                    "negative_log_likelihood",
                    lambda log_probabilities, **o: call(F.nll_loss)(log_probabilities, **o),
                    {"log_probabilities": x.log_softmax(1)} | inputs,
                    options,
                    ["loss"],
                )
    case("mean_squared_error", lambda a, b: F.mse_loss(a, b.expand_as(a)), {"a": normal(3, 5), "b": normal(5)})
    case("bpr_loss", lambda a, b: -F.logsigmoid(a - b).mean(), {"a": normal(3, 1), "b": normal(3, 4)})


def norms():
    inputs = {"x": normal(3, 5, 7), "weight": normal(7), "bias": normal(7)}
    case("layer_norm", lambda x, weight, bias: F.layer_norm(x, (7,), weight, bias, 1e-3), inputs, {"epsilon": 1e-3})
    del inputs["bias"]
    case("rms_norm", lambda x, weight: F.rms_norm(x, (7,), weight, 1e-3), inputs, {"epsilon": 1e-3})


LENGTHS = [3, 1, 5]


def pieces(x):
    return x.split(LENGTHS)


def sequences():
    of = {"x": normal(9, 5), "offsets": offsets(*LENGTHS)}
    for op, function in dict(
        segment_sum=lambda p: p.sum(0),
        segment_mean=lambda p: p.mean(0),
        segment_max=lambda p: p.amax(0),
        segment_last=lambda p: p[-1],
    ).items():
        case(op, lambda x, offsets, f=function: torch.stack([f(p) for p in pieces(x)]), of)

    def convolved(x, weight, bias, initial, offsets):
        rows = []
        for p, before in zip(pieces(x), initial):
            padded = torch.cat([before, p]).T[None]
            rows.append(F.silu(F.conv1d(padded, weight[:, None], bias, groups=5))[0].T)
        return torch.cat(rows)

    inputs = of | {"weight": normal(5, 4), "bias": normal(5), "initial": normal(3, 3, 5)}
    case("causal_conv1d", convolved, inputs, {"activation": "silu"})

    def turned(x, offsets, interleaved):
        # By complex numbers.
        places = torch.cat([torch.arange(n) for n in LENGTHS]).double()
        angles = places[:, None] * 10000.0 ** -(torch.arange(3).double() / 3)
        heads = x.reshape(9, 2, 3, 2) if interleaved else x.reshape(9, 2, 2, 3).transpose(2, 3)
        turned = torch.view_as_real(
            torch.view_as_complex(heads.contiguous()) * torch.polar(torch.ones_like(angles), angles)[:, None]
        )
        return (turned if interleaved else turned.transpose(2, 3)).reshape(9, 12)

    for pairs in ("interleaved", "halves"):
        inputs = {"x": normal(9, 12), "offsets": offsets(*LENGTHS)}
        case("rotary", lambda x, offsets: turned(x, offsets, pairs == "interleaved"), inputs, {"heads": 2, "pairs": pairs})

    # Recurrent cells of PyTorch on products made beforehand: their input weight is the identity.
    width = 5
    for op, gates, cell in (("gru", 3, torch.gru_cell), ("lstm", 4, torch.lstm_cell)):
        inputs = {
            "products": normal(9, gates * width),
            "weight": normal(gates * width, width, size=0.4),
            "bias": normal(gates * width),
        }
        starts = (
            {"initial": normal(3, width)}
            if op == "gru"
            else {"initial_state": normal(3, width), "initial_cell": normal(3, width)}
        )

        def walked(products, weight, bias, offsets, **starts):
            same, nothing = torch.eye(gates * width).double(), torch.zeros(gates * width).double()
            states, cells = [], []
            for i, p in enumerate(pieces(products)):
                state = tuple(start[i : i + 1] for start in starts.values())
                for row in p.split(1):
                    state = cell(row, state[0] if op == "gru" else state, same, weight, nothing, bias)
                    state = (state,) if op == "gru" else state
                    states.append(state[0])
                    cells.append(state[-1])
            return [torch.cat(states), torch.cat(cells)][: 1 if op == "gru" else 2]

        case(op, walked, inputs | starts | {"offsets": offsets(*LENGTHS)}, results=("states", "cells"))

    def paper(products, weight, bias, offsets):
        """The gate r before the product: torch has no such cell."""
        states = []
        for p in pieces(products):
            h = torch.zeros(1, width).double()
            for row in p.split(1):
                xr, xz, xn = row.chunk(3, 1)
                (wr, wz, wn), (br, bz, bn) = weight.chunk(3), bias.chunk(3)
                r, z = torch.sigmoid(xr + h @ wr.T + br), torch.sigmoid(xz + h @ wz.T + bz)
                h = (1 - z) * torch.tanh(xn + (r * h) @ wn.T + bn) + z * h
                states.append(h)
        return torch.cat(states)

    inputs = {"products": normal(9, 15), "weight": normal(15, 5, size=0.4), "bias": normal(15), "offsets": offsets(*LENGTHS)}
    case("gru", paper, inputs, {"linear_before_reset": False}, ["states"])


def attention():
    def attended(q, k, v, offsets, key_offsets, bias=None, visible=None, *, causal, cap, heads=4, key_heads=2):
        out = []
        for i in range(len(offsets) - 1):
            rows = lambda x, at, n: x[at[i] : at[i + 1]].reshape(-1, n, x.shape[1] // n).transpose(0, 1)
            own = [rows(q, offsets, heads), rows(k, key_offsets, key_heads), rows(v, key_offsets, key_heads)]
            grouped = [own[0], *(x.repeat_interleave(heads // key_heads, 0) for x in own[1:])]
            count, keys = grouped[0].shape[1], grouped[1].shape[1]
            mask = torch.zeros(heads, count, keys).double()
            if bias is not None:
                mask = mask + bias[min(i, len(bias) - 1), :, :count, :keys]
            if visible is not None:
                mask = mask.masked_fill(visible[min(i, len(visible) - 1), :, :count, :keys] == 0, -math.inf)
            if causal:
                mask = mask.masked_fill(torch.ones(count, keys).tril() == 0, -math.inf)
            if cap:
                scores = grouped[0] @ grouped[1].transpose(1, 2) / math.sqrt(grouped[0].shape[2])
                y = (cap * torch.tanh(scores / cap) + mask).softmax(-1) @ grouped[2]
            else:
                y = F.scaled_dot_product_attention(*grouped, attn_mask=mask)
            out.append(y.transpose(0, 1).flatten(1))
        return torch.cat(out)

    queries, keys = [3, 1, 2], [5, 7, 4]
    base = {
        "q": normal(6, 12),
        "k": normal(16, 6),
        "v": normal(16, 10),
        "offsets": offsets(*queries),
        "key_offsets": offsets(*keys),
    }
    seen = torch.randint(0, 2, (3, 1, 3, 7), dtype=torch.uint8)
    seen[..., 0] = 1
    for further, causal, cap in (
        ({}, False, 0),
        ({"bias": normal(1, 4, 3, 7)}, False, 0),
        ({"visible": seen}, False, 0),
        ({"bias": normal(3, 1, 3, 7)}, True, 1.5),
        ({}, True, 0),
    ):
        options = {"heads": 4, "key_heads": 2, "mask": "causal" if causal else "bidirectional", "soft_cap": float(cap)}
        case(
            "scaled_dot_product_attention",
            lambda **o: attended(**o, causal=causal, cap=cap),
            base | further,
            options,
            ["output"],
        )


def layers():
    x = normal(9, 3)
    norm = torch.nn.BatchNorm1d(3, eps=1e-3, momentum=0.25).double()
    of = {"weight": normal(3), "bias": normal(3), "running_mean": normal(3), "running_variance": normal(3).abs() + 0.5}
    for training in (True, False):

        def normed(x, weight, bias, running_mean, running_variance):
            mean, variance = running_mean.detach().clone(), running_variance.detach().clone()
            y = F.batch_norm(x, mean, variance, weight, bias, training, 0.25, 1e-3)
            return y, mean, variance

        case("batch_norm", normed, {"x": x} | of, {"training": training}, ["y", "running_mean", "running_variance"])
    for kind, gates in (("gru", 3), ("bidirectional_gru", 3), ("lstm", 4)):
        inputs = {"x": x, "offsets": offsets(*LENGTHS)}
        ends = ["", "_reverse"] if kind == "bidirectional_gru" else [""]
        for end in ends:
            inputs |= {
                f"weight_ih{end}": normal(gates * 2, 3),
                f"weight_hh{end}": normal(gates * 2, 2),
                f"bias_ih{end}": normal(gates * 2),
                f"bias_hh{end}": normal(gates * 2),
            }

        def walked(x, offsets, **weights):
            module = (torch.nn.LSTM if kind == "lstm" else torch.nn.GRU)(3, 2, bidirectional=len(ends) == 2).double()
            named = {
                key.replace("_reverse", "") + "_l0" + ("_reverse" if key.endswith("_reverse") else ""): w
                for key, w in weights.items()
            }
            return torch.cat([torch.func.functional_call(module, named, (p,))[0] for p in pieces(x)])

        case(kind, walked, inputs)


def write(name):
    tensors = {key: value.clone(memory_format=torch.contiguous_format) for key, value in TENSORS.items()}
    save_file(tensors, HERE / f"pytorch_{name}.safetensors", metadata={"cases": json.dumps(CASES, separators=(",", ":"))})
    print(name, len(CASES), "cases")
    TENSORS.clear()
    CASES.clear()


for family in (elementwise, reductions, shapes, products, losses, norms, sequences, attention):
    family()
write("ops")
layers()
write("layers")

"""ONNX's node cases as ops of tally: COMPOSITIONS has, for each type of ONNX, a function of a Program, the node's attributes and
its inputs by name, that gives the results in ONNX's order; or nothing for a form that tally lacks.

A Program runs ops by `tally apply` and writes down what it ran. Only shapes, orders and constants are made here.
"""

import json
import math
import pathlib
import subprocess
import tempfile

import numpy as np
from safetensors.numpy import load_file, save_file


class Refused(Exception):
    """tally has no such form; the message says why."""


class Value:
    def __init__(self, name, array):
        self.name, self.array = name, array

    shape = property(lambda self: self.array.shape)
    ndim = property(lambda self: self.array.ndim)


def readable(array):
    """As tally reads types that it lacks."""
    array = np.asarray(array)
    if array.dtype.name in ("float16", "bfloat16"):
        array = array.astype(np.float32)
    if array.dtype.name in ("bool", "int8", "int16", "uint16", "uint32", "uint64"):
        array = array.astype({"bool": np.uint8, "uint32": np.int64, "uint64": np.int64}.get(array.dtype.name, np.int32))
    if array.dtype.name not in ("float32", "float64", "int32", "int64", "uint8"):
        raise Refused(f"{array.dtype} is no type of tally")
    return np.ascontiguousarray(array).reshape(array.shape)


class Program:
    """`program(OP, options, NAME=value, ...)` is the op's first result, `program.all(...)` all by name."""

    def __init__(self, tally):
        self.tally, self.inputs, self.steps = tally, {}, []

    def given(self, array):
        if isinstance(array, Value):
            return array
        value = Value(f"i{len(self.inputs)}", readable(array))
        self.inputs[value.name] = value.array
        return value

    def all(self, op, options={}, **inputs):
        inputs = {name: self.given(value) for name, value in inputs.items() if value is not None}
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            save_file({name: value.array for name, value in inputs.items()}, folder / "in.safetensors")
            arguments = ["--input", folder / "in.safetensors", "--output", folder / "out.safetensors"]
            arguments += ["--options", json.dumps(options)]
            run = subprocess.run([self.tally, "apply", op, *arguments], capture_output=True, text=True)
            if run.returncode != 0:
                raise Refused(f"{op}: {run.stderr.strip().splitlines()[0]}")
            results = load_file(folder / "out.safetensors")
        step = f"s{len(self.steps)}"
        self.steps.append({"op": op, "options": options, "inputs": {key: value.name for key, value in inputs.items()}})
        return {key: Value(f"{step}.{key}", value) for key, value in results.items()}

    def __call__(self, op, options={}, **inputs):
        (result,) = self.all(op, options, **inputs).values()
        return result

    # Short names of what most compositions take.

    def add(self, a, b):
        return self("add", a=a, b=b)

    def subtract(self, a, b):
        return self("subtract", a=a, b=b)

    def multiply(self, a, b):
        return self("multiply", a=a, b=b)

    def divide(self, a, b):
        return self("divide", a=a, b=b)

    def scaled(self, x, factor):
        return self.multiply(x, one(x, factor))

    def shifted(self, x, offset):
        return self.add(x, one(x, offset))

    def map(self, x, *ops):
        for op in ops:
            x = self(op, x=x)
        return x

    def reshape(self, x, shape):
        return self("reshape", {"shape": [int(size) for size in shape]}, x=x)

    def permute(self, x, dims):
        return self("permute", {"dims": [int(dim) for dim in dims]}, x=x)

    def slice(self, x, dim, begin, end):
        return self("slice", {"dim": int(dim), "begin": int(begin), "end": int(end)}, x=x)

    def chosen(self, x, dim, indices):
        """Of a dimension, by a vector of indices: numpy.take."""
        order = [dim, *(d for d in range(x.ndim) if d != dim)]
        rows = self("gather", x=self.permute(x, order) if dim else x, indices=np.asarray(indices, np.int64))
        return self.permute(rows, np.argsort(order)) if dim else rows

    def reduced(self, op, x, dims, keepdims=True):
        return self(op, {"dims": [int(dim) for dim in dims], "keepdims": bool(keepdims)}, x=x)


def one(x, value):
    """A constant of the type of x."""
    return np.array(value, dtype=readable(x.array if isinstance(x, Value) else x).dtype)


def floating(*arrays):
    for array in arrays:
        if np.asarray(array).dtype.name not in ("float16", "bfloat16", "float32", "float64"):
            raise Refused(f"{np.asarray(array).dtype}: tally computes with f32 and f64 alone")


def counted(indices, size):
    indices = np.asarray(indices).astype(np.int64)
    return np.where(indices < 0, indices + size, indices)


COMPOSITIONS = {}


def of(*op_types):
    def keep(function):
        COMPOSITIONS.update(dict.fromkeys(op_types, function))
        return function

    return keep


def unary(**made):
    """Functions of one argument."""
    for op_type, function in made.items():

        def call(t, attributes, given, function=function):
            (x,) = given.values()
            floating(x)
            return [function(t, t.given(x), lambda name, otherwise: float(attributes.get(name, otherwise)))]

        COMPOSITIONS[op_type] = call


# ONNX's operators of one tensor and the ops that compute them.
UNARY = dict(
    Abs="abs",
    Exp="exp",
    Log="log",
    Neg="negate",
    Sqrt="sqrt",
    Tanh="tanh",
    Sigmoid="sigmoid",
    Relu="relu",
    Softplus="softplus",
    Sign="sign",
    Sin="sin",
    Cos="cos",
    Erf="erf",
)

unary(
    **{
        op_type: (lambda op: lambda t, x, a: t(op, x=x))(op)
        for op_type, op in UNARY.items()
    },
    Reciprocal=lambda t, x, a: t.divide(one(x, 1), x),
    Tan=lambda t, x, a: t.divide(t("sin", x=x), t("cos", x=x)),
    # Of e^x - 1, so that small ones keep their digits.
    Sinh=lambda t, x, a: t.scaled(t.subtract(t.map(x, "expm1"), t.map(x, "negate", "expm1")), 0.5),
    Cosh=lambda t, x, a: t.scaled(t.add(t.map(x, "exp"), t.map(x, "negate", "exp")), 0.5),
    Atanh=lambda t, x, a: t.scaled(t.subtract(t.map(x, "log1p"), t.map(x, "negate", "log1p")), 0.5),
    Acosh=lambda t, x, a: t("log", x=t.add(x, t("sqrt", x=t.shifted(t("square", x=x), -1)))),
    Asinh=lambda t, x, a: t.multiply(
        t("sign", x=x), t("log", x=t.add(t("abs", x=x), t("sqrt", x=t.shifted(t("square", x=x), 1))))
    ),
    Elu=lambda t, x, a: t("elu", {"alpha": a("alpha", 1)}, x=x),
    Celu=lambda t, x, a: t.scaled(t("elu", {"alpha": 1.0}, x=t.scaled(x, 1 / a("alpha", 1))), a("alpha", 1)),
    Selu=lambda t, x, a: t.scaled(
        t("elu", {"alpha": a("alpha", 1.67326319217681884765625)}, x=x), a("gamma", 1.05070102214813232421875)
    ),
    LeakyRelu=lambda t, x, a: t("where", mask=t("greater_equal", a=x, b=one(x, 0)), a=x, b=t.scaled(x, a("alpha", 0.01))),
    HardSigmoid=lambda t, x, a: t(
        "clamp", {"low": 0.0, "high": 1.0}, x=t.shifted(t.scaled(x, a("alpha", 0.2)), a("beta", 0.5))
    ),
    HardSwish=lambda t, x, a: t.multiply(x, t("clamp", {"low": 0.0, "high": 1.0}, x=t.shifted(t.scaled(x, 1 / 6), 0.5))),
    Mish=lambda t, x, a: t.multiply(x, t.map(x, "softplus", "tanh")),
    Softsign=lambda t, x, a: t.divide(x, t.shifted(t("abs", x=x), 1)),
    ThresholdedRelu=lambda t, x, a: t("where", mask=t("greater", a=x, b=one(x, a("alpha", 1))), a=x, b=one(x, 0)),
    Swish=lambda t, x, a: t.scaled(t("silu", x=t.scaled(x, a("alpha", 1))), 1 / a("alpha", 1)),
    GlobalAveragePool=lambda t, x, a: t.reduced("mean", x, range(2, x.ndim)),
    GlobalMaxPool=lambda t, x, a: t.reduced("max", x, range(2, x.ndim)),
)


@of("Gelu")
def gelu(t, attributes, given):
    (x,) = map(t.given, given.values())
    if attributes.get("approximate", b"none") == b"none":
        return [t("gelu", x=x)]
    cube = t("power", {"exponent": 3.0}, x=x)
    inner = t.scaled(t.add(x, t.scaled(cube, 0.044715)), math.sqrt(2 / math.pi))
    return [t.scaled(t.multiply(x, t.shifted(t("tanh", x=inner), 1)), 0.5)]


@of("Shrink")
def shrink(t, attributes, given):
    (x,) = given.values()
    floating(x)
    x, bound, bias = t.given(x), attributes.get("lambd", 0.5), attributes.get("bias", 0.0)
    low = t("where", mask=t("less", a=x, b=one(x, -bound)), a=t.shifted(x, bias), b=one(x, 0))
    return [t("where", mask=t("greater", a=x, b=one(x, bound)), a=t.shifted(x, -bias), b=low)]


@of("PRelu")
def prelu(t, attributes, given):
    x, slope = map(t.given, given.values())
    return [t("where", mask=t("greater_equal", a=x, b=one(x, 0)), a=x, b=t.multiply(x, slope))]


def chain(op):
    def call(t, attributes, given):
        values = list(given.values())
        if op not in ("maximum", "minimum"):
            floating(*values)
        result = t.given(values[0])
        for value in values[1:]:
            result = extreme(t, op, result, value) if op in ("maximum", "minimum") else t(op, a=result, b=value)
        return [result if len(values) > 1 else t.reshape(result, result.shape)]

    return call


def extreme(t, op, a, b):
    """Of integers, which are chosen and not computed with, too."""
    a, b = t.given(a), t.given(b)
    if a.array.dtype.kind == "f":
        return t(op, a=a, b=b)
    return t("where", mask=t("greater" if op == "maximum" else "less", a=a, b=b), a=a, b=b)


for op_type, op in dict(
    Add="add", Sub="subtract", Mul="multiply", Div="divide", Max="maximum", Min="minimum", Sum="add"
).items():
    COMPOSITIONS[op_type] = chain(op)


@of("Mean")
def mean(t, attributes, given):
    (total,) = chain("add")(t, attributes, given)
    return [t.scaled(total, 1 / len(given))]


@of("Pow")
def power(t, attributes, given):
    base, exponent = given.values()
    floating(base)  # the exponent is converted: Tensor::to
    return [t("tensor_power", a=base, b=np.asarray(exponent).astype(readable(base).dtype))]


for op_type, op in dict(
    Equal="equal", Less="less", LessOrEqual="less_equal", Greater="greater", GreaterOrEqual="greater_equal"
).items():
    COMPOSITIONS[op_type] = (lambda op: lambda t, attributes, given: [t(op, **dict(zip("ab", given.values())))])(op)


@of("Not")
def negation(t, attributes, given):
    (x,) = map(t.given, given.values())
    return [t("equal", a=x, b=one(x, 0))]


@of("Xor")
def exclusive(t, attributes, given):
    a, b = given.values()
    return [t("equal", a=t("equal", a=a, b=b), b=np.uint8(0))]


@of("And", "Or")
def conjunction(t, attributes, given, op_type):
    a, b = given.values()
    # a above "not b", or not below it.
    return [t("greater" if op_type == "And" else "greater_equal", a=a, b=t("equal", a=b, b=np.uint8(0)))]


@of("IsNaN")
def is_nan(t, attributes, given):
    (x,) = map(t.given, given.values())
    return [t("equal", a=t("equal", a=x, b=x), b=np.uint8(0))]


@of("Clip")
def clip(t, attributes, given):
    x, low, high = (list(given.values())[0], given.get("min"), given.get("max"))
    x = t.given(x)
    for op, bound in (("maximum", low), ("minimum", high)):
        if bound is not None:
            x = extreme(t, op, x, np.asarray(bound))
    return [x if t.steps else t.reshape(x, x.shape)]


@of("Where")
def where(t, attributes, given):
    mask, a, b = given.values()
    return [t("where", mask=np.asarray(mask).astype(np.uint8), a=a, b=b)]


def dims_of(attributes, given, ndim):
    dims = [int(dim) % max(ndim, 1) for dim in given.get("axes", attributes.get("axes", []))]
    return dims, not dims and bool(attributes.get("noop_with_empty_axes", 0))


def reduction(before, op, after):
    def call(t, attributes, given):
        x = list(given.values())[0]
        floating(x)
        x = t.given(x)
        dims, nothing = dims_of(attributes, given, x.ndim)
        x = t.map(x, *before)
        if not nothing:
            empty = np.prod([x.shape[dim] for dim in dims or range(x.ndim)]) == 0
            if empty and op in ("max", "min"):
                # Of nothing it is the least one: one more row of it.
                dims = dims or list(range(x.ndim))
                shape = [max(size, 1) if dim in dims else size for dim, size in enumerate(x.shape)]
                worst = np.full(shape, -np.inf if op == "max" else np.inf, x.array.dtype)
                x = t("concat", {"dim": dims[0]}, a=x, b=worst)
            x = t.reduced(op, x, dims, attributes.get("keepdims", 1))
        x = t.map(x, *after)
        return [x if before or after or not nothing else t.reshape(x, x.shape)]

    return call


COMPOSITIONS.update(
    ReduceSum=reduction([], "sum", []),
    ReduceMean=reduction([], "mean", []),
    ReduceMax=reduction([], "max", []),
    ReduceMin=reduction([], "min", []),
    ReduceL1=reduction(["abs"], "sum", []),
    ReduceL2=reduction(["square"], "sum", ["sqrt"]),
    ReduceSumSquare=reduction(["square"], "sum", []),
    ReduceLogSum=reduction([], "sum", ["log"]),
)


@of("ReduceLogSumExp")
def log_sum_exp(t, attributes, given):
    x = t.given(list(given.values())[0])
    dims, nothing = dims_of(attributes, given, x.ndim)
    if nothing:
        return [t.map(x, "exp", "log")]
    return [t.reduced("log_sum_exp", x, dims, attributes.get("keepdims", 1))]


@of("ArgMax", "ArgMin")
def arg(t, attributes, given, op_type):
    (x,) = map(t.given, given.values())
    floating(x.array)
    dim = attributes.get("axis", 0) % x.ndim
    options = {"dim": dim, "keepdims": bool(attributes.get("keepdims", 1))}
    if not attributes.get("select_last_index", 0):
        return [t(op_type.lower(), options, x=x)]
    places = t(op_type.lower(), options, x=t("reverse", {"dims": [dim]}, x=x))
    return [t("gather", x=np.arange(x.shape[dim], dtype=np.int64)[::-1], indices=places)]


@of("Hardmax")
def hardmax(t, attributes, given):
    (x,) = map(t.given, given.values())
    dim = attributes.get("axis", -1) % x.ndim
    y = t("one_hot", {"classes": x.shape[dim]}, indices=t("argmax", {"dim": dim}, x=x))
    return [t.permute(y, [*range(dim), x.ndim - 1, *range(dim, x.ndim - 1)])]


@of("CumSum")
def cumulative_sum(t, attributes, given):
    x, axis = given.values()
    floating(x)
    x, dim = t.given(x), int(axis) % np.ndim(x)
    turn = (lambda x: t("reverse", {"dims": [dim]}, x=x)) if attributes.get("reverse", 0) else lambda x: x
    y = t("cumulative_sum", {"dim": dim}, x=turn(x))
    if attributes.get("exclusive", 0):
        pad = lambda at: [at if d == dim else 0 for d in range(x.ndim)]
        y = t.slice(t("pad", {"before": pad(1), "after": pad(0)}, x=y), dim, 0, x.shape[dim])
    return [turn(y)]


@of("Concat")
def concat(t, attributes, given):
    return [joined(t, int(attributes["axis"]), list(given.values()))]


@of("Split")
def split(t, attributes, given, results):
    x = t.given(list(given.values())[0])
    dim, begin, pieces = attributes.get("axis", 0) % x.ndim, 0, []
    for size in [np.shape(result)[dim] for result in results.values()]:
        pieces.append(t.slice(x, dim, begin, begin + size))
        begin += size
    return pieces


@of("Slice")
def sliced(t, attributes, given):
    x, starts, ends = list(given.values())[:3]
    x = t.given(x)
    axes, steps = given.get("axes", np.arange(len(starts))), given.get("steps", np.ones(len(starts), np.int64))
    for axis, start, end, step in zip(axes, starts, ends, steps):
        dim = int(axis) % x.ndim
        places = range(*slice(int(start), int(end), int(step)).indices(x.shape[dim]))
        if step == 1:
            x = t.slice(x, dim, places.start, max(places.start, places.stop))
        else:
            x = t.chosen(x, dim, list(places))
    return [x if t.steps else t.reshape(x, x.shape)]


@of("Gather")
def gather(t, attributes, given):
    x, indices = given.values()
    x = t.given(x)
    dim = attributes.get("axis", 0) % x.ndim
    order = [dim, *(d for d in range(x.ndim) if d != dim)]
    y = t("gather", x=t.permute(x, order), indices=counted(indices, x.shape[dim]))
    count = np.ndim(indices)
    return [t.permute(y, [*range(count, count + dim), *range(count), *range(count + dim, y.ndim)])]


@of("GatherND")
def gather_nd(t, attributes, given):
    x, indices = given.values()
    x, batch = t.given(x), attributes.get("batch_dims", 0)
    depth = indices.shape[-1]
    # Places among the rows that the first dimensions make.
    places = tuple(counted(indices[..., k], x.shape[batch + k]) for k in range(depth))
    lead = np.indices(indices.shape[:-1])[:batch]
    flat = np.ravel_multi_index((*lead, *places), x.shape[: batch + depth])
    rows = t.reshape(x, [int(np.prod(x.shape[: batch + depth])), *x.shape[batch + depth :]])
    return [t("gather", x=rows, indices=flat)]


@of("ScatterElements", "Scatter")
def scatter(t, attributes, given):
    x, indices, values = given.values()
    floating(x)
    x, dim = t.given(x), attributes.get("axis", 0) % np.ndim(x)
    indices = counted(indices, x.shape[dim])
    kind = attributes.get("reduction", b"none").decode()
    if kind == "add":
        return [t("scatter_add", {"dim": dim}, x=x, indices=indices, values=values)]
    # One place along the dimension after the other: where it is written, and what.
    for place in range(indices.shape[dim]):
        at = np.take(indices, [place], dim)
        zeros = np.zeros_like(x.array)
        value = t("scatter_add", {"dim": dim}, x=zeros, indices=at, values=np.take(values, [place], dim))
        written = t("scatter_add", {"dim": dim}, x=zeros, indices=at, values=np.ones(at.shape, x.array.dtype))
        made = value if kind == "none" else t({"mul": "multiply", "max": "maximum", "min": "minimum"}[kind], a=x, b=value)
        x = t("where", mask=t("greater", a=written, b=one(x, 0)), a=made, b=x)
    return [x]


@of("ScatterND")
def scatter_nd(t, attributes, given):
    x, indices, values = given.values()
    floating(x)
    kind, depth = attributes.get("reduction", b"none").decode(), indices.shape[-1]
    x = t.given(x)
    flat = np.ravel_multi_index(tuple(counted(indices[..., k], x.shape[k]) for k in range(depth)), x.shape[:depth])
    rows = t.reshape(x, [int(np.prod(x.shape[:depth])), *x.shape[depth:]])
    flat, values = flat.reshape(-1), np.reshape(values, (-1, *x.shape[depth:]))
    if kind == "add":
        rows = t("index_add", x=rows, indices=flat, values=values)
    for i in range(0 if kind == "add" else len(flat)):
        at = slice(i, i + 1)
        zeros = np.zeros_like(rows.array)
        value = t("index_add", x=zeros, indices=flat[at], values=values[at])
        written = t("index_add", x=zeros, indices=flat[at], values=np.ones_like(values[at]))
        made = value if kind == "none" else t({"mul": "multiply", "max": "maximum", "min": "minimum"}[kind], a=rows, b=value)
        rows = t("where", mask=t("greater", a=written, b=one(x, 0)), a=made, b=rows)
    return [t.reshape(rows, x.shape)]


@of("OneHot")
def one_hot(t, attributes, given):
    indices, depth, (off, on) = given.values()
    classes = int(np.reshape(depth, ()))
    floating(off)
    dim = attributes.get("axis", -1) % (np.ndim(indices) + 1)
    # Out of range nothing is equal.
    wanted = np.expand_dims(counted(indices, classes), dim)
    places = np.arange(classes).reshape([-1 if d == dim else 1 for d in range(wanted.ndim)])
    return [t("where", mask=t("equal", a=wanted, b=places), a=on, b=off)]


@of("TopK")
def top_k(t, attributes, given):
    x, k = given.values()
    floating(x)
    x = t.given(x)
    options = {"k": int(np.reshape(k, ())), "dim": attributes.get("axis", -1)}
    if attributes.get("largest", 1):
        best = t.all("top_k", options, x=x)
        return [best["values"], best["indices"]]
    best = t.all("top_k", options, x=t("negate", x=x))
    return [t("negate", x=best["values"]), best["indices"]]


@of("Pad")
def pad(t, attributes, given):
    x = t.given(list(given.values())[0])
    mode = attributes.get("mode", b"constant").decode()
    dims = counted(given.get("axes", np.arange(x.ndim)), x.ndim)
    before, after = np.zeros((2, x.ndim), dtype=np.int64)
    before[dims], after[dims] = given["pads"].reshape(2, -1)
    if mode == "constant":
        value = float(given.get("value", 0))
        grown = {"before": np.maximum(before, 0).tolist(), "after": np.maximum(after, 0).tolist(), "value": value}
        y = t("pad", grown, x=x)
        for dim in range(x.ndim):
            if min(before[dim], after[dim]) < 0:
                y = t.slice(y, dim, max(-before[dim], 0), y.shape[dim] - max(-after[dim], 0))
        return [y]
    for dim in range(x.ndim):
        if before[dim] or after[dim]:
            kind = dict(mode=mode)
            x = t.chosen(x, dim, np.pad(np.arange(x.shape[dim]), (before[dim], after[dim]), **kind))
    return [x]


@of("CenterCropPad")
def center(t, attributes, given):
    x, sizes = given.values()
    x = t.given(x)
    dims = counted(attributes.get("axes", np.arange(x.ndim)), x.ndim)
    for dim, size in zip(dims, sizes):
        over = int(size) - x.shape[dim]
        if over > 0:
            only = lambda n: [n if d == dim else 0 for d in range(x.ndim)]
            x = t("pad", {"before": only(over // 2), "after": only(over - over // 2)}, x=x)
        elif over < 0:
            x = t.slice(x, dim, -over // 2, -over // 2 + int(size))
    return [x]


@of("Expand")
def expand(t, attributes, given, results):
    return [t("expand", {"shape": list(np.shape(next(iter(results.values()))))}, x=list(given.values())[0])]


@of("Tile")
def tile(t, attributes, given):
    x, repeats = given.values()
    x = t.given(x)
    for dim, count in enumerate(repeats):
        x = t.chosen(x, dim, np.tile(np.arange(x.shape[dim]), int(count)))
    return [x]


@of("Trilu")
def triangle(t, attributes, given):
    x, k = t.given(list(given.values())[0]), int(given.get("k", 0))
    upper = attributes.get("upper", 1)
    kept = np.tri(*x.shape[-2:], k=k - 1 if upper else k, dtype=bool) != bool(upper)
    # Integers move, but are not chosen: the others are a zero after the last.
    flat = t("pad", {"before": [0], "after": [1]}, x=t.reshape(x, [x.array.size]))
    places = np.where(kept, np.arange(x.array.size).reshape(x.shape), x.array.size)
    return [t("gather", x=flat, indices=places)]


@of("ReverseSequence")
def reverse_sequence(t, attributes, given):
    x, lengths = given.values()
    x = t.given(x)
    time, batch = attributes.get("time_axis", 0), attributes.get("batch_axis", 1)
    places = np.arange(x.shape[time])[:, None] * np.ones(x.shape[batch], np.int64)
    for i, length in enumerate(lengths):
        places[:length, i] = places[:length, i][::-1]
    places = places if time < batch else places.T
    shape = [size if d in (time, batch) else 1 for d, size in enumerate(x.shape)]
    return [t("gather_along", {"dim": time}, x=x, indices=np.broadcast_to(places.reshape(shape), x.shape))]


@of("DepthToSpace")
def depth_to_space(t, attributes, given):
    (x,) = map(t.given, given.values())
    (n, c, h, w), b = x.shape, attributes["blocksize"]
    if attributes.get("mode", b"DCR") == b"DCR":
        y = t.permute(t.reshape(x, [n, b, b, c // b**2, h, w]), [0, 3, 4, 1, 5, 2])
    else:
        y = t.permute(t.reshape(x, [n, c // b**2, b, b, h, w]), [0, 1, 4, 2, 5, 3])
    return [t.reshape(y, [n, c // b**2, h * b, w * b])]


@of("SpaceToDepth")
def space_to_depth(t, attributes, given):
    (x,) = map(t.given, given.values())
    (n, c, h, w), b = x.shape, attributes["blocksize"]
    order = [0, 3, 5, 1, 2, 4] if attributes.get("mode", b"DCR") == b"DCR" else [0, 1, 3, 5, 2, 4]
    y = t.permute(t.reshape(x, [n, c, h // b, b, w // b, b]), order)
    return [t.reshape(y, [n, c * b**2, h // b, w // b])]


@of("Gemm")
def gemm(t, attributes, given):
    values = list(given.values())
    floating(*values)
    a, b = (t.permute(x, [1, 0]) if attributes.get(key, 0) else t.given(x) for x, key in zip(values, ("transA", "transB")))
    y = t.scaled(t("matmul", a=a, b=b), attributes.get("alpha", 1.0))
    return [t.add(y, t.scaled(values[2], attributes.get("beta", 1.0))) if len(values) > 2 else y]


@of("MatMul")
def matmul(t, attributes, given):
    return [t("matmul", **dict(zip("ab", given.values())))]


def diagonal(t, x, part):
    """Of dimensions of one letter the elements at equal places."""
    for letter in part:
        if part.count(letter) > 1:
            first, second = part.index(letter), part.rindex(letter)
            shape = [1 if d == second else size for d, size in enumerate(x.shape)]
            places = np.arange(x.shape[first]).reshape([-1 if d == first else 1 for d in range(x.ndim)])
            x = t("gather_along", {"dim": second}, x=x, indices=np.broadcast_to(places, shape))
            x = t.reshape(x, [size for d, size in enumerate(x.shape) if d != second])
            return diagonal(t, x, part[:second] + part[second + 1 :])
    return x, part


@of("Einsum")
def einsum(t, attributes, given):
    """Of one operand a permutation and a sum; of two products of what both have, and a sum."""
    equation = attributes["equation"].decode().replace(" ", "")
    if "." in equation:
        rank = max(map(np.ndim, given.values()))
        names = [part.replace("...", "") for part in equation.split("->")[0].split(",")]
        dots = "ZYXW"[: max(np.ndim(x) - len(part) for x, part in zip(given.values(), names))]
        equation = equation.replace("...", dots) if rank else equation
    sides = equation.split("->")
    parts = sides[0].split(",")
    letters = "".join(parts)
    out = sides[1] if len(sides) > 1 else "".join(sorted(x for x in set(letters) if letters.count(x) == 1))
    order = out + "".join(sorted(set(letters) - set(out)))
    product = None
    for x, part in zip(given.values(), parts):
        x, part = diagonal(t, t.given(x), part)
        x = t.permute(x, sorted(range(len(part)), key=lambda d: order.index(part[d])))
        ordered = sorted(part, key=order.index)
        x = t.reshape(x, [x.shape[ordered.index(c)] if c in ordered else 1 for c in order])
        product = x if product is None else t.multiply(product, x)
    return [t.reduced("sum", product, range(len(out), len(order)), False) if len(order) > len(out) else product]


def per_channel(weight, ndim):
    return np.reshape(weight, (-1, *[1] * (ndim - 2)))


def normalised(t, x, dims, epsilon):
    """(x - mean) / sqrt(variance + epsilon), mean and 1 / sqrt(variance + epsilon) over dimensions."""
    center = t.reduced("mean", x, dims)
    deviations = t.subtract(x, center)
    variance = t.reduced("mean", t("square", x=deviations), dims)
    inverse = t.divide(one(x, 1), t("sqrt", x=t.shifted(variance, epsilon)))
    return t.multiply(deviations, inverse), center, inverse


@of("LayerNormalization")
def layer_norm(t, attributes, given):
    x, weight, *bias = given.values()
    x, epsilon = t.given(x), attributes.get("epsilon", 1e-5)
    axis = attributes.get("axis", -1) % x.ndim
    # The op over the last dimension; the statistics, which it does not show, by others.
    rows = t.reshape(x, [int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))])
    y = t(
        "layer_norm",
        {"epsilon": epsilon},
        x=rows,
        weight=np.reshape(weight, -1),
        bias=np.reshape(bias[0], -1) if bias else None,
    )
    _, center, inverse = normalised(t, x, range(axis, x.ndim), epsilon)
    return [t.reshape(y, x.shape), center, inverse]


@of("RMSNormalization")
def rms_norm(t, attributes, given):
    x, weight = given.values()
    x, axis = t.given(x), attributes.get("axis", -1) % np.ndim(x)
    rows = t.reshape(x, [int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))])
    y = t("rms_norm", {"epsilon": attributes.get("epsilon", 1e-5)}, x=rows, weight=np.reshape(weight, -1))
    return [t.reshape(y, x.shape)]


@of("GroupNormalization", "InstanceNormalization")
def group_norm(t, attributes, given):
    x, weight, bias = given.values()
    floating(x)
    x = t.given(x)
    groups = attributes.get("num_groups", x.shape[1])
    grouped = t.reshape(x, [x.shape[0], groups, x.array.size // (x.shape[0] * groups)])
    y = t.reshape(t("layer_norm", {"epsilon": attributes.get("epsilon", 1e-5)}, x=grouped), x.shape)
    return [t.add(t.multiply(y, per_channel(weight, x.ndim)), per_channel(bias, x.ndim))]


@of("MeanVarianceNormalization")
def mean_variance(t, attributes, given):
    (x,) = map(t.given, given.values())
    return [normalised(t, x, attributes.get("axes", [0, 2, 3]), 1e-9)[0]]


@of("LpNormalization")
def lp_norm(t, attributes, given):
    (x,) = map(t.given, given.values())
    dim, p = attributes.get("axis", -1), attributes.get("p", 2)
    total = t.reduced("sum", t("abs" if p == 1 else "square", x=x), [dim])
    length = total if p == 1 else t("sqrt", x=total)
    # Rows of zeros stay.
    return [t.divide(x, t("where", mask=t("equal", a=length, b=one(x, 0)), a=one(x, 1), b=length))]


@of("Softmax", "LogSoftmax")
def softmax(t, attributes, given, op_type):
    return [t({"Softmax": "softmax"}.get(op_type, "log_softmax"), {"dim": attributes.get("axis", -1)}, x=given["x"])]


@of("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss")
def cross_entropy(t, attributes, given, op_type):
    x, targets, *weights = given.values()
    options = {"reduction": attributes.get("reduction", b"mean").decode(), "ignore_index": attributes.get("ignore_index", -1)}
    inputs = dict(targets=targets, class_weights=weights[0] if weights else None)
    if op_type == "NegativeLogLikelihoodLoss":
        return [t("negative_log_likelihood", options, log_probabilities=x, **inputs)]
    return [t("cross_entropy", options, logits=x, **inputs), t("log_softmax", {"dim": 1}, x=x)]


@of("SwiGLU")
def swiglu(t, attributes, given):
    a, b = map(t.given, given.values())
    alpha = attributes.get("alpha", 1.0)
    return [t.multiply(t.scaled(t("silu", x=t.scaled(a, alpha)), 1 / alpha), b)]


@of("RNN")
def rnn(t, attributes, given):
    """tanh units, step by step."""
    if set(attributes.get("activations", [b"Tanh"])) != {b"Tanh"} or "clip" in attributes:
        raise Refused("other activations, or a clip")
    batchwise, width = attributes.get("layout", 0) == 1, attributes["hidden_size"]
    x = given["X"].transpose(1, 0, 2) if batchwise else given["X"]
    direction, count = attributes.get("direction", b"forward"), x.shape[1]
    rows, last = None, None
    for i, backward in enumerate({b"bidirectional": [False, True]}.get(direction, [direction == b"reverse"])):
        bias = given["B"][i].reshape(2, width) if "B" in given else np.zeros((2, width), x.dtype)
        state, states = t.given(np.zeros((count, width), x.dtype)), []
        for row in x[::-1] if backward else x:
            of_input = t("linear", x=row, weight=given["W"][i], bias=bias[0])
            state = t("tanh", x=t.add(of_input, t("linear", x=state, weight=given["R"][i], bias=bias[1])))
            states.append(t.reshape(state, [1, 1, count, width]))
        way = joined(t, 0, states[::-1] if backward else states)
        rows = joined(t, 1, [rows, way] if rows else [way])
        last = joined(t, 0, [last, t.reshape(state, [1, count, width])] if last else [t.reshape(state, [1, count, width])])
    if batchwise:
        return {"Y": t.permute(rows, [2, 0, 1, 3]), "Y_h": t.permute(last, [1, 0, 2])}
    return {"Y": rows, "Y_h": last}


def joined(t, dim, values):
    result = values[0]
    for value in values[1:]:
        result = t("concat", {"dim": dim}, a=result, b=value)
    return result


@of("LSTM")
def lstm(t, attributes, given):
    """With peepholes, step by step; others are the op."""
    width, x = attributes["hidden_size"], given["X"]
    gates = lambda a, count=4: a[0].reshape(count, width, -1)
    weights, recurrent, bias = gates(given["W"]), gates(given["R"]), gates(given["B"], 8)[:, :, 0]
    peep = given["P"].reshape(3, width)  # of the input, output and forget gates
    state, cell = (t.given(given[key][0]) for key in ("initial_h", "initial_c"))
    states = []
    for row in x:

        def gate(k, function, seen=None, hole=None):
            sums = t.add(
                t("linear", x=row, weight=weights[k], bias=bias[k]), t("linear", x=state, weight=recurrent[k], bias=bias[4 + k])
            )
            return t(function, x=sums if seen is None else t.add(sums, t.multiply(seen, peep[hole])))

        entering, forgotten = gate(0, "sigmoid", cell, 0), gate(2, "sigmoid", cell, 2)
        cell = t.add(t.multiply(forgotten, cell), t.multiply(entering, gate(3, "tanh")))
        state = t.multiply(gate(1, "sigmoid", cell, 1), t("tanh", x=cell))
        states.append(t.reshape(state, [1, *state.shape]))
    rows = joined(t, 0, states)
    return {"Y": t.reshape(rows, [len(x), 1, *state.shape]), "Y_h": states[-1], "Y_c": t.reshape(cell, [1, *cell.shape])}


@of("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
def shaped(t, attributes, given, results):
    return [t.reshape(list(given.values())[0], np.shape(next(iter(results.values()))))]


@of("Dropout")
def dropout(t, attributes, given):
    """Out of training, or at rate 0: with a mask of ones."""
    x, *others = given.values()
    training = bool(others[1]) if len(others) > 1 else False
    if training and float(others[0]) > 0:
        raise Refused("which elements fall is drawn by NumPy's generator")
    x = t.given(x)
    return [t("dropout", {"rate": 0.0}, x=x), t("equal", a=x, b=x)]

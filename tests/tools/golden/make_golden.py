#!/usr/bin/env python3
"""Writes the safetensors files beside this script: inputs of `tally apply` and what NumPy computes from them.

Needs NumPy alone. Run it again only to change the cases: the files are part of the tests.
"""
import json
import pathlib
import struct

import numpy as np

TYPES = {"float64": "F64", "float32": "F32", "int64": "I64"}


def save(name, tensors):
    """The tensors in the order that the reference implementation writes: widest type first, then by name."""
    order = ["int64", "float64", "float32"]
    names = sorted(tensors, key=lambda n: (order.index(str(tensors[n].dtype)), n))
    header, blobs, offset = {}, [], 0
    for key in names:
        array = np.ascontiguousarray(tensors[key])
        blobs.append(array.tobytes())
        header[key] = {
            "dtype": TYPES[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path = pathlib.Path(__file__).parent / (name + ".safetensors")
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def matmul(random):
    a, b = random.standard_normal((2, 3, 4)), random.standard_normal((2, 5, 4))
    grad = random.standard_normal((2, 3, 5))
    save("matmul_input", {"a": a, "b": b, "grad_output": grad})
    save(
        "matmul_expected",
        {"product": a @ b.swapaxes(1, 2), "grad_a": grad @ b, "grad_b": grad.swapaxes(1, 2) @ a},
    )


def layer_norm(random):
    single = lambda *shape: random.standard_normal(shape).astype(np.float32)
    x, weight, bias, grad = single(5, 7), single(7), single(7), single(5, 7)
    save("layer_norm_input", {"x": x, "weight": weight, "bias": bias, "grad_output": grad})
    wide = x.astype(np.float64)
    epsilon = 1e-3
    deviation = np.sqrt(wide.var(axis=1, keepdims=True) + epsilon)
    normal = (wide - wide.mean(axis=1, keepdims=True)) / deviation
    inner = grad * weight.astype(np.float64)
    grad_x = inner - inner.mean(axis=1, keepdims=True) - normal * (inner * normal).mean(axis=1, keepdims=True)
    expected = {
        "y": normal * weight + bias,
        "grad_x": grad_x / deviation,
        "grad_weight": (grad * normal).sum(axis=0),
        "grad_bias": grad.astype(np.float64).sum(axis=0),
    }
    save("layer_norm_expected", {name: array.astype(np.float32) for name, array in expected.items()})


def embedding(random):
    table = random.standard_normal((6, 3))
    indices = np.array([4, 0, 4, 5], dtype=np.int64)
    grad = random.standard_normal((4, 3))
    grad_table = np.zeros_like(table)
    np.add.at(grad_table, indices, grad)
    save("embedding_input", {"table": table, "indices": indices, "grad_output": grad})
    save("embedding_expected", {"rows": table[indices], "grad_table": grad_table})


if __name__ == "__main__":
    generator = np.random.default_rng(20210527)
    matmul(generator)
    layer_norm(generator)
    embedding(generator)

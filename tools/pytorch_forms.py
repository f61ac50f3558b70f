"""The PyTorch side of compare_pytorch.py: models and layers as a user of PyTorch would write them to be fast, over
weights that have tally's names."""

import json
import math
import struct

import torch
import torch.nn.functional as F
from torch import nn

EPSILON = 1e-8  # tally's layer_norm_eps; the check would show another
IGNORED = -100  # target of a pad, which F.cross_entropy leaves out


def read_safetensors(path):
    types = {"F32": torch.float32, "F64": torch.float64, "I32": torch.int32, "I64": torch.int64}
    with open(path, "rb") as file:
        data = bytearray(file.read())
    (size,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        tensor = torch.frombuffer(data[8 + size + begin : 8 + size + end], dtype=types[entry["dtype"]])
        tensors[name] = tensor.reshape(entry["shape"]).clone()
    return tensors


def with_prefix(tensors, prefix):
    """Those whose names begin so, by the rest of the name."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def heads_of(x, heads):
    """[..., length, width] as [..., heads, length, width of a head]."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def rows_of(x):
    """The reverse."""
    return x.transpose(-3, -2).flatten(-2)


class Weights(nn.Module):
    """Parameters by tally's names, which have dots."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.ParameterDict({name.replace(".", "/"): nn.Parameter(w) for name, w in weights.items()})

    def weight(self, name):
        return self.weights[name.replace(".", "/")]

    def linear(self, x, name):
        return F.linear(x, self.weight(name + ".weight"), self.weight(name + ".bias"))


# ---- Models: hidden rows [users, window, width] of items [users, window]. Pads stand after the events, so that a
# causal attention needs no other mask.


class SasRec(Weights):
    def __init__(self, weights, row, dropout):
        super().__init__(weights)
        self.row, self.dropout = row, dropout

    def table(self):
        return self.weight("items.table")

    def drop(self, x):
        return F.dropout(x, self.dropout, self.training)

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.weight(name + ".weight"), self.weight(name + ".bias"), EPSILON)

    def attend(self, queries, source, name):
        q, k, v = (heads_of(self.linear(x, f"{name}.{part}"), self.row.heads)
                   for x, part in [(queries, "query"), (source, "key"), (source, "value")])
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        return self.linear(rows_of(mixed), name + ".output")

    def forward(self, items):
        x = self.table()[items] * math.sqrt(self.row.width) + self.weight("positions.table")[: items.shape[1]]
        x = self.drop(x)
        for block in range(self.row.blocks):
            name = f"blocks.{block}"
            q = self.norm(x, name + ".attention_norm")
            z = self.norm(q + self.attend(q, x, name + ".attention"), name + ".feed_forward_norm")
            inner = self.drop(F.relu(self.linear(z, name + ".feed_forward.inner")))
            x = z + self.drop(self.linear(inner, name + ".feed_forward.outer"))
        return self.norm(x, "norm")


class Gru4Rec(nn.Module):
    NAMES = {"layers.0.input.weight": "weight_ih_l0", "layers.0.input.bias": "bias_ih_l0",
             "layers.0.hidden_weight": "weight_hh_l0", "layers.0.hidden_bias": "bias_hh_l0"}

    def __init__(self, weights, row, dropout):
        super().__init__()
        self.items = nn.Parameter(weights["items.table"])
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(row.width, row.width, batch_first=True)
        for name, own in self.NAMES.items():
            getattr(self.gru, own).data.copy_(weights[name])

    def table(self):
        return self.items

    def weight(self, name):
        return self.items if name == "items.table" else getattr(self.gru, self.NAMES[name])

    def forward(self, items):
        return self.gru(self.dropout(self.items[items]))[0]


MODELS = {"sasrec": SasRec, "gru4rec": Gru4Rec}


# ---- Layers: rows [length, width] to rows.


class Projected(Weights):
    """An attention between projections of queries, keys and values and one of its output."""

    def __init__(self, weights, row):
        super().__init__(weights)
        self.row = row

    def forward(self, x):
        q, k, v = (heads_of(self.linear(x, part), self.row.heads) for part in ["query", "key", "value"])
        return self.linear(rows_of(self.attend(q, k, v)), "output")


class Softmax(Projected):
    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]


class LinearElu(Projected):
    """By chunks: within one by a masked matrix of scores, and what came before as a sum of outer products."""

    CHUNK = 64  # the fastest of 32, 64, 128 and 256

    def attend(self, q, k, v):
        q, k, v = (x.unflatten(1, (-1, self.CHUNK)) for x in [F.elu(q) + 1, F.elu(k) + 1, v])
        state, total = k.transpose(-1, -2) @ v, k.sum(-2)
        state, total = state.cumsum(1) - state, total.cumsum(1) - total
        scores = (q @ k.transpose(-1, -2)).tril()
        mixed = scores @ v + q @ state
        return (mixed / (scores.sum(-1, keepdim=True) + q @ total[..., None])).flatten(1, 2)


class Histogram(Weights):
    """LISA. Tried: residual passes over the rows (a product with each codebook in turn), or one product of the rows with
    all codewords, from which products among codewords are taken; counts by cumsum, by cumsum of the transpose, or by
    chunks of 64, 128 and 256 with a triangular product; rows of the table of exponentials by embedding or by products
    with one-hots; the likeliest of them compiled too. The fastest is below: 47 ms eager and 40 compiled, where residual
    passes with cumsum take 67 and 50."""

    TEMPERATURE, CHUNK = 0.7, 64

    def __init__(self, weights, row):
        super().__init__(weights)

    def encode(self, x, codebooks):
        """Assignments y, straight through to their softmax, and codes: [length, books, words] and [length, books]."""
        books, words, width = codebooks.shape
        projected = (codebooks @ self.weight("quantizer.bilinear").T).reshape(books * words, width)
        products = codebooks.reshape(books * words, width) @ projected.T
        logits = x @ projected.T
        assignments, codes = [], []
        for book in range(books):
            soft = F.softmax(logits[:, :words] / self.TEMPERATURE, -1)
            codes.append(logits[:, :words].argmax(-1))
            assignments.append(F.one_hot(codes[-1], words).to(x.dtype) + (soft - soft.detach()))
            if book + 1 < books:
                at = words * book
                logits = logits[:, words:] - assignments[-1] @ products[at : at + words, at + words :]
        return torch.stack(assignments, 1), torch.stack(codes, 1)

    def count(self, assignments):
        """Sums over each row and all before it."""
        chunks = assignments.flatten(1).unflatten(0, (-1, self.CHUNK))
        before = chunks.sum(1)
        before = before.cumsum(0) - before
        lower = torch.ones(self.CHUNK, self.CHUNK).tril()
        return (lower @ chunks + before[:, None]).view_as(assignments)

    def forward(self, x):
        codebooks = self.weight("quantizer.codebooks")
        books, words, width = codebooks.shape
        assignments, codes = self.encode(x, codebooks)
        queries, keys, values = (codebooks @ self.weight("histogram." + part) for part in ["query", "key", "value"])
        scores = queries @ keys.transpose(1, 2) / math.sqrt(width)
        exponentials = (scores - scores.detach().amax(-1, keepdim=True)).exp()
        seen = F.embedding(codes + words * torch.arange(books), exponentials.view(books * words, words))
        weights = self.count(assignments) * seen
        weights = weights / weights.sum(-1, keepdim=True)
        return weights.flatten(1) @ values.view(books * words, width)


LAYERS = {"softmax": Softmax, "linear_elu": LinearElu, "histogram": Histogram}

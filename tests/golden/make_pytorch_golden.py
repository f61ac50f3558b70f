"""Writes small models of PyTorch with their scores, which tests/recsys/convert_weights_test.cpp computes again:
pytorch_NAME.safetensors of this folder.

    pip install numpy safetensors torch && python3 make_pytorch_golden.py

A file has the state dict, `history/N` (rows of the item table) and `scores/N`, of all rows after the padding's. SASRec is in
the form and with the names of github.com/pmixer/SASRec.pytorch, of histories without padding. Those of RecBole are written
after its description (arXiv 2011.01731, and its documents of version 1.2), with its names, and with histories padded on the
right as it has them.
"""

import pathlib

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
ITEMS, WIDTH, WINDOW = 11, 8, 6


class PointWiseFeedForward(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv1d(WIDTH, WIDTH, kernel_size=1)
        self.conv2 = torch.nn.Conv1d(WIDTH, WIDTH, kernel_size=1)

    def forward(self, x):
        return x + self.conv2(torch.relu(self.conv1(x.transpose(-1, -2)))).transpose(-1, -2)


class SASRec(torch.nn.Module):
    def __init__(self, blocks=2, heads=2):
        super().__init__()
        norms = lambda: torch.nn.ModuleList(torch.nn.LayerNorm(WIDTH, eps=1e-8) for _ in range(blocks))
        self.item_emb = torch.nn.Embedding(ITEMS + 1, WIDTH, padding_idx=0)
        self.pos_emb = torch.nn.Embedding(WINDOW, WIDTH)
        self.attention_layernorms, self.forward_layernorms = norms(), norms()
        self.attention_layers = torch.nn.ModuleList(torch.nn.MultiheadAttention(WIDTH, heads) for _ in range(blocks))
        self.forward_layers = torch.nn.ModuleList(PointWiseFeedForward() for _ in range(blocks))
        self.last_layernorm = torch.nn.LayerNorm(WIDTH, eps=1e-8)

    def forward(self, history):
        x = self.item_emb(history) * WIDTH**0.5 + self.pos_emb(torch.arange(len(history)))
        mask = ~torch.tril(torch.ones(len(history), len(history), dtype=torch.bool))
        for norm, attention, second, forward in zip(
            self.attention_layernorms, self.attention_layers, self.forward_layernorms, self.forward_layers
        ):
            q = norm(x)
            x = q + attention(q, x, x, attn_mask=mask)[0]
            x = forward(second(x))
        return self.last_layernorm(x)[-1]


class GRU4Rec(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.item_emb = torch.nn.Embedding(ITEMS + 1, WIDTH, padding_idx=0)
        self.gru = torch.nn.GRU(WIDTH, WIDTH, num_layers=2)

    def forward(self, history):
        return self.gru(self.item_emb(history))[0][-1]


class RecBoleAttention(torch.nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.dense = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.LayerNorm = torch.nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x, mask):
        split = lambda y: y.unflatten(-1, (self.heads, -1)).transpose(-2, -3)
        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = q @ k.transpose(-1, -2) / (WIDTH / self.heads) ** 0.5 + mask
        return self.LayerNorm(self.dense((scores.softmax(-1) @ v).transpose(-2, -3).flatten(-2)) + x)


class RecBoleFeedForward(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.dense_1, self.dense_2 = torch.nn.Linear(WIDTH, inner), torch.nn.Linear(inner, WIDTH)
        self.LayerNorm = torch.nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x):
        return self.LayerNorm(self.dense_2(torch.nn.functional.gelu(self.dense_1(x))) + x)


class RecBoleLayer(torch.nn.Module):
    def __init__(self, heads, inner):
        super().__init__()
        self.multi_head_attention, self.feed_forward = RecBoleAttention(heads), RecBoleFeedForward(inner)

    def forward(self, x, mask):
        return self.feed_forward(self.multi_head_attention(x, mask))


class RecBoleSASRec(torch.nn.Module):
    def __init__(self, layers=2, heads=2, inner=16):
        super().__init__()
        self.item_embedding = torch.nn.Embedding(ITEMS + 1, WIDTH, padding_idx=0)
        self.position_embedding = torch.nn.Embedding(WINDOW, WIDTH)
        self.trm_encoder = torch.nn.Module()
        self.trm_encoder.layer = torch.nn.ModuleList(RecBoleLayer(heads, inner) for _ in range(layers))
        self.LayerNorm = torch.nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, history):
        padded = torch.nn.functional.pad(history, (0, WINDOW - len(history)))
        x = self.LayerNorm(self.item_embedding(padded) + self.position_embedding(torch.arange(WINDOW)))
        mask = torch.where(torch.tril((padded != 0).expand(WINDOW, WINDOW)), 0.0, -10000.0)
        for layer in self.trm_encoder.layer:
            x = layer(x, mask)
        return x[len(history) - 1]


class RecBoleGRU4Rec(torch.nn.Module):
    def __init__(self, hidden=12, layers=2):
        super().__init__()
        self.item_embedding = torch.nn.Embedding(ITEMS + 1, WIDTH, padding_idx=0)
        self.gru_layers = torch.nn.GRU(WIDTH, hidden, num_layers=layers, bias=False)
        self.dense = torch.nn.Linear(hidden, WIDTH)

    def forward(self, history):
        padded = torch.nn.functional.pad(history, (0, WINDOW - len(history)))
        return self.dense(self.gru_layers(self.item_embedding(padded))[0])[len(history) - 1]


def write(name, model):
    tensors = {}
    with torch.no_grad():
        for key, value in model.state_dict().items():
            # Not what layers begin with: norms of ones would hide a missing one.
            tensors[key] = value.copy_(torch.randn(value.shape) * 0.3 + (1 if "norm.weight" in key.lower() else 0)).clone()
        for i, history in enumerate([[3], [1, 2, 3, 4, 5, 6], [11, 11, 2], [7, 1, 9, 4]]):
            tensors[f"history/{i}"] = torch.tensor(history)
            table = next(value for key, value in model.state_dict().items() if key.startswith("item_emb"))
            tensors[f"scores/{i}"] = table[1:] @ model(torch.tensor(history))
    save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / f"pytorch_{name}.safetensors")


torch.manual_seed(5)
write("sasrec", SASRec().eval())
write("gru4rec", GRU4Rec().eval())
write("recbole_sasrec", RecBoleSASRec().eval())
write("recbole_gru4rec", RecBoleGRU4Rec().eval())

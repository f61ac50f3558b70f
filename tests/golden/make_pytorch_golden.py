"""Writes small models of PyTorch with their scores, which tests/recsys/convert_weights_test.cpp computes again:
pytorch_sasrec.safetensors and pytorch_gru4rec.safetensors of this folder.

    pip install numpy safetensors torch && python3 make_pytorch_golden.py

A file has the state dict, `history/N` (rows of the item table) and `scores/N`, of all rows after the padding's. SASRec is in
the form and with the names of github.com/pmixer/SASRec.pytorch, of histories without padding.
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


def write(name, model):
    tensors = {}
    with torch.no_grad():
        for key, value in model.state_dict().items():
            # Not what layers begin with: norms of ones would hide a missing one.
            tensors[key] = value.copy_(torch.randn(value.shape) * 0.3 + (1 if "norm.weight" in key else 0)).clone()
        for i, history in enumerate([[3], [1, 2, 3, 4, 5, 6], [11, 11, 2], [7, 1, 9, 4]]):
            tensors[f"history/{i}"] = torch.tensor(history)
            tensors[f"scores/{i}"] = model.item_emb.weight[1:] @ model(torch.tensor(history))
    save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / f"pytorch_{name}.safetensors")


torch.manual_seed(5)
write("sasrec", SASRec().eval())
write("gru4rec", GRU4Rec().eval())

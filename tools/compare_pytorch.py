#!/usr/bin/env python3
"""Training steps of tally beside the same steps in plain PyTorch: same shapes, same threads, alternated in one run.

    python3 tools/compare_pytorch.py [--tally build/tools/tally] [--threads 1] [--rounds 5] [--rows sasrec-ce,...]
                                     [--eager-only] [--json FILE]

Needs PyTorch (pip install torch); nothing of tally depends on it. Each row is checked first: PyTorch computes the loss
and the gradient of every parameter from the weights and the batch that tally wrote, without dropout, and both must
agree. Then each round times tally in a process of its own, PyTorch eager, and PyTorch compiled, one after the other;
a ratio is of times of the same round, to the faster of the two PyTorch forms. Memory: of tally the peak of its tensors
during a step, of PyTorch the growth of the peak resident size over two steps of a fresh process.
"""

import argparse
import json
import math
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROWS = {
    "sasrec-ce": ("SASRec, full cross-entropy", "sasrec", {"loss_type": "CE"}),
    "sasrec-bce": ("SASRec, BCE with one negative", "sasrec", {"loss_type": "BCE"}),
    "gru4rec-ce": ("GRU4Rec, cross-entropy", "gru4rec", {"loss_type": "CE"}),
}
USERS, WINDOW, WIDTH, BLOCKS, HEADS, ITEMS, DROPOUT, RATE = 128, 200, 64, 2, 2, 3416, 0.2, 1e-3
WARM_STEPS, STEPS = 2, 3


def config_of(row, dropout):
    _, model, train = ROWS[row]
    section = {"name": model, "hidden_size": WIDTH, "MAX_ITEM_LIST_LENGTH": WINDOW, "hidden_dropout_prob": dropout}
    if model == "sasrec":
        section.update(n_layers=BLOCKS, n_heads=HEADS, attn_dropout_prob=dropout)
    else:
        section.update(n_layers=1)
    return {"model": section, "train": dict(train, train_batch_size=USERS, learning_rate=RATE)}


def run_tally(options, row, dropout, extra):
    """The figures of one process of `tally bench step`."""
    with tempfile.TemporaryDirectory() as scratch:
        config, figures = os.path.join(scratch, "config.json"), os.path.join(scratch, "figures.json")
        with open(config, "w") as file:
            json.dump(config_of(row, dropout), file)
        command = [options.tally, "bench", "step", config, "--items", str(ITEMS), "--threads", str(options.threads),
                   "--json", figures] + extra
        process = subprocess.run(command, stdout=subprocess.DEVNULL)
        if process.returncode != 0:
            sys.exit(f"compare_pytorch: {' '.join(command)} ended with {process.returncode}")
        with open(figures) as file:
            return json.load(file)


# ---- PyTorch forms. Weights have tally's names, so that one table of parameters serves both.


def read_safetensors(path):
    import torch

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


def forms():
    """The models as torch.nn modules: hidden rows of items [users, window]."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class SasRec(nn.Module):
        def __init__(self, weights, dropout):
            super().__init__()
            self.weights = nn.ParameterDict({name.replace(".", "/"): nn.Parameter(w) for name, w in weights.items()})
            self.dropout = dropout

        def weight(self, name):
            return self.weights[name.replace(".", "/")]

        def table(self):
            return self.weight("items.table")

        def drop(self, x):
            return F.dropout(x, self.dropout, self.training)

        def linear(self, x, name):
            return F.linear(x, self.weight(name + ".weight"), self.weight(name + ".bias"))

        def norm(self, x, name):
            return F.layer_norm(x, (WIDTH,), self.weight(name + ".weight"), self.weight(name + ".bias"), EPSILON)

        def attend(self, queries, source, name):
            users, length, _ = queries.shape

            def heads(x, part):
                return self.linear(x, f"{name}.{part}").view(users, length, HEADS, WIDTH // HEADS).transpose(1, 2)

            mixed = F.scaled_dot_product_attention(
                heads(queries, "query"), heads(source, "key"), heads(source, "value"), is_causal=True,
                dropout_p=self.dropout if self.training else 0.0)
            return self.linear(mixed.transpose(1, 2).reshape(users, length, WIDTH), name + ".output")

        def forward(self, items):
            x = self.table()[items] * math.sqrt(WIDTH) + self.weight("positions.table")[: items.shape[1]]
            x = self.drop(x)
            for block in range(BLOCKS):
                name = f"blocks.{block}"
                q = self.norm(x, name + ".attention_norm")
                z = self.norm(q + self.attend(q, x, name + ".attention"), name + ".feed_forward_norm")
                inner = self.drop(F.relu(self.linear(z, name + ".feed_forward.inner")))
                x = z + self.drop(self.linear(inner, name + ".feed_forward.outer"))
            return self.norm(x, "norm")

    class Gru4Rec(nn.Module):
        NAMES = {"layers.0.input.weight": "weight_ih_l0", "layers.0.input.bias": "bias_ih_l0",
                 "layers.0.hidden_weight": "weight_hh_l0", "layers.0.hidden_bias": "bias_hh_l0"}

        def __init__(self, weights, dropout):
            super().__init__()
            self.items = nn.Parameter(weights["items.table"])
            self.dropout = nn.Dropout(dropout)
            self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)
            for name, own in self.NAMES.items():
                getattr(self.gru, own).data.copy_(weights[name])

        def table(self):
            return self.items

        def weight(self, name):
            return self.items if name == "items.table" else getattr(self.gru, self.NAMES[name])

        def forward(self, items):
            return self.gru(self.dropout(self.items[items]))[0]

    return {"sasrec": SasRec, "gru4rec": Gru4Rec}


EPSILON = 1e-8  # tally's layer_norm_eps; --check would show another


class Work:
    """A step of a row in PyTorch, on the batch and from the weights that tally wrote."""

    def __init__(self, row, path, dropout, compiled=False):
        import torch

        self.row, self.data = row, read_safetensors(path)
        _, model, self.train = ROWS[row]
        weights = {name[10:]: w for name, w in self.data.items() if name.startswith("parameter.")}
        self.model = forms()[model](weights, dropout)
        self.items = self.data["items"].view(USERS, WINDOW).long()
        self.targets = self.data["targets"].view(USERS, WINDOW).long()
        self.forward = torch.compile(self.loss) if compiled else self.loss
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE)

    def loss(self, items, targets, negatives):
        import torch
        import torch.nn.functional as F

        hidden = self.model(items)
        table = self.model.table()
        if self.train["loss_type"] == "CE":
            return F.cross_entropy((hidden @ table.T).view(-1, ITEMS), targets.view(-1))
        right, wrong = (hidden * table[targets]).sum(-1), (hidden * table[negatives]).sum(-1)
        return (F.softplus(-right) + F.softplus(wrong)).mean()

    def step(self):
        import torch

        negatives = torch.randint(ITEMS, self.targets.shape)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward(self.items, self.targets, negatives)
        loss.backward()
        self.optimizer.step()

    def time(self):
        start = time.perf_counter()
        for _ in range(STEPS):
            self.step()
        return (time.perf_counter() - start) / STEPS


def check(options, row):
    """Loss and gradients of both agree, without dropout. Negatives are drawn, so BCE is checked by its encoder's CE."""
    scratch = tempfile.mkdtemp()
    path = os.path.join(scratch, "step.safetensors")
    name = ROWS[row][1] + "-ce"
    run_tally(options, name, 0.0, ["--rounds", "1", "--tensors", path])
    work = Work(name, path, 0.0)
    work.model.eval()
    loss = work.loss(work.items, work.targets, None)
    loss.backward()
    worst, where = abs(loss.item() - work.data["loss"].item()) / abs(loss.item()), "loss"
    for key, gradient in work.data.items():
        if not key.startswith("gradient."):
            continue
        theirs = work.model.weight(key[9:]).grad
        difference = ((theirs - gradient).abs().max() / theirs.abs().max().clamp_min(1e-6)).item()
        if difference > worst:
            worst, where = difference, key
    if worst > 1e-3:
        sys.exit(f"compare_pytorch: {row}: tally and PyTorch differ by {worst:.2g} of the largest value in {where}")
    return path, worst


def memory_of_pytorch(options, row, path, compiled):
    """Growth of the peak resident size over the first steps, in a fresh process."""
    code = (f"import sys; sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r}); import compare_pytorch as c;"
            f"import torch; torch.set_num_threads({options.threads});"
            f"work = c.Work({row!r}, {path!r}, c.DROPOUT, {compiled!r}); before = c.peak_resident();"
            "work.step(); work.step(); print(c.peak_resident() - before)")
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def peak_resident():
    """Bytes. Not of getrusage, which counts what the process was before exec too."""
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tally", default="build/tools/tally")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--eager-only", action="store_true", help="leave out torch.compile")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("compare_pytorch: needs PyTorch: pip install torch")
    torch.set_num_threads(options.threads)
    os.environ["TALLY_NUM_THREADS"] = str(options.threads)
    print(f"PyTorch {torch.__version__}, {options.threads} thread{'s' if options.threads > 1 else ''}, "
          f"{options.rounds} rounds; {USERS} sequences x {WINDOW}, width {WIDTH}, {ITEMS} items, dropout {DROPOUT}\n")
    print("| step | tally ms | of sgemm | PyTorch eager ms | compiled ms | ratio to the faster | least, most "
          "| memory: tally, PyTorch | differ by |\n|---|---|---|---|---|---|---|---|---|")
    rows = []
    for row in options.rows.split(","):
        if row not in ROWS:
            sys.exit(f"compare_pytorch: knows no row {row!r}; rows are {', '.join(ROWS)}")
        path, difference = check(options, row)
        works = {"eager": Work(row, path, DROPOUT)}
        if not options.eager_only:
            works["compiled"] = Work(row, path, DROPOUT, compiled=True)
        for work in works.values():
            for _ in range(WARM_STEPS):
                work.step()
        times, shares, ratios, peak = {name: [] for name in ["tally", *works]}, [], [], 0
        for _ in range(options.rounds):
            figures = run_tally(options, row, DROPOUT, ["--rounds", str(STEPS)])
            times["tally"].append(figures["seconds"])
            shares.append(figures["sgemm_share"])
            peak = max(peak, figures["peak_bytes"])
            for name, work in works.items():
                times[name].append(work.time())
            ratios.append(min(times[name][-1] for name in works) / times["tally"][-1])
        memory = memory_of_pytorch(options, row, path, False)
        middle = {name: 1e3 * statistics.median(values) for name, values in times.items()}
        compiled = f"{middle['compiled']:.0f}" if "compiled" in middle else "-"
        print(f"| {ROWS[row][0]} | {middle['tally']:.0f} | {100 * statistics.median(shares):.0f} % | "
              f"{middle['eager']:.0f} | {compiled} | {statistics.median(ratios):.2f} | "
              f"{min(ratios):.2f}, {max(ratios):.2f} | {peak / 1e6:.0f} MB, {memory / 1e6:.0f} MB | {difference:.1g} |",
              flush=True)
        rows.append({"row": row, "threads": options.threads, "seconds": times, "sgemm_shares": shares,
                     "ratios": ratios, "tally_peak_bytes": peak, "pytorch_peak_growth": memory,
                     "difference": difference})
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"pytorch": torch.__version__, "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()

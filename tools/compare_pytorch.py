#!/usr/bin/env python3
"""Tally beside plain PyTorch: training steps and layers, same shapes, same threads, alternated in one run.

    python3 tools/compare_pytorch.py [--tally build/tools/tally] [--threads 1] [--rounds 5] [--rows sasrec-ce,...]
                                     [--data interactions.tsv.gz] [--eager-only] [--json FILE]

Needs PyTorch (pip install torch); nothing of tally depends on it. Each row is checked first: PyTorch computes the loss
or output and all gradients from the weights and the batch or rows that tally wrote, without dropout, and both must
agree. Then each round times tally in a process of its own, PyTorch eager, and PyTorch compiled, one after the other;
a ratio is of times of the same round, to the faster of the two PyTorch forms. Memory: of tally the peak of its tensors,
of PyTorch the growth of the peak resident size over two steps of a fresh process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("compare_pytorch: needs PyTorch: pip install torch")

import pytorch_forms as forms

HERE = os.path.dirname(os.path.abspath(__file__))
RATE, WARM_STEPS = 1e-3, 2


@dataclass
class Step:
    """A training step on 128 sequences: drawn ones that fill the window, or the first batch of a data set."""

    title: str
    model: str
    loss: str
    users: int = 128
    window: int = 200
    items: int = 3416  # of drawn sequences
    real: bool = False  # sequences of --data, which PyTorch pads to the window
    drops_pads: bool = False  # PyTorch selects the hidden rows of events before it computes logits
    width: int = 64
    blocks: int = 2
    heads: int = 2
    dropout: float = 0.2
    steps = 3  # timed in a round
    middle = staticmethod(statistics.median)  # of them, as tally takes it

    def clock(self, options):
        return time.perf_counter

    def config(self, options):
        model = {"name": self.model, "hidden_size": self.width, "MAX_ITEM_LIST_LENGTH": self.window,
                 "hidden_dropout_prob": self.dropout}
        if self.model == "sasrec":
            model.update(n_layers=self.blocks, n_heads=self.heads, attn_dropout_prob=self.dropout)
        else:
            model.update(n_layers=1)
        config = {"model": model,
                  "train": {"loss_type": self.loss, "train_batch_size": self.users, "learning_rate": RATE}}
        if self.real:
            config["data"] = {"path": os.path.abspath(options.data), "separator": "\t", "TIME_FIELD": "position"}
        return config

    def run(self, options, tensors=None):
        """The figures of one process of tally."""
        with tempfile.TemporaryDirectory() as scratch:
            config = os.path.join(scratch, "config.json")
            with open(config, "w") as file:
                json.dump(self.config(options), file)
            command = ["step", config, "--items", str(self.items)]
            command += ["--rounds", "1", "--tensors", tensors] if tensors else ["--rounds", str(self.steps)]
            return run_tally(options, command)

    def figures(self, options):
        """Seconds, share of the sgemm rate, peak of tensors."""
        figures = self.run(options)
        return figures["seconds"], figures["sgemm_share"], figures["peak_bytes"]

    def write(self, options, path):
        """For check(). Negatives are drawn, so that BCE is checked by its encoder's CE."""
        replace(self, loss="CE", dropout=0.0).run(options, path)

    def check(self, path):
        """Names, what PyTorch gives, what tally gave."""
        work = replace(self, loss="CE", dropout=0.0).work(path)
        loss = work.loss(*work.batch())
        loss.backward()
        yield "loss", loss, work.data["loss"]
        for name, gradient in forms.with_prefix(work.data, "gradient.").items():
            yield name, work.model.weight(name).grad, gradient

    def work(self, path, compiled=False):
        return StepWork(self, path, compiled)


@dataclass
class CrossEntropy(Step):
    """The cross-entropy of such a step alone: hidden rows and table to loss and both gradients."""

    middle = staticmethod(min)  # for tally gives the ops of its fastest step

    def figures(self, options):
        figures = self.run(options)
        (op,) = (op for op in figures["ops"] if op["op"] == "item_cross_entropy")
        seconds = op["forward_seconds"] + op["backward_seconds"]
        operations = op["forward_operations"] + op["backward_operations"]
        return seconds, operations / seconds / figures["sgemm_operations_per_second"], None

    def work(self, path, compiled=False):
        return CrossEntropyWork(self, path, compiled)


@dataclass
class Layer:
    """Forward and backward of a layer over one causal sequence, with gradients of its rows and parameters."""

    title: str
    attention: str
    length: int
    width: int = 128
    heads: int = 2
    steps = 9
    middle = staticmethod(statistics.median)

    def clock(self, options):
        return time.process_time if options.threads == 1 else time.perf_counter  # as tally does

    def run(self, options, extra=()):
        return run_tally(options, ["lengths", "--layers", "--attentions", self.attention, "--lengths", str(self.length),
                                   "--width", str(self.width), "--heads", str(self.heads), "--backward",
                                   "--seconds", "0.3", *extra])

    def figures(self, options):
        (point,) = self.run(options)["points"]
        return point["seconds"], point["sgemm_share"], point["bytes"]

    def write(self, options, path):
        self.run(options, ["--tensors", path])

    def check(self, path):
        work = self.work(path)
        output = work.step()
        yield "output", output, work.data["output"]
        for name, gradient in forms.with_prefix(work.data, "gradient.").items():
            yield name, work.x.grad if name == "input.0" else work.layer.weight(name).grad, gradient

    def work(self, path, compiled=False):
        return LayerWork(self, path, compiled)


def real(title, drops_pads, kind=Step):
    return kind(title, "sasrec", "CE", window=50, real=True, drops_pads=drops_pads)


ROWS = {
    "sasrec-ce": Step("SASRec, full cross-entropy", "sasrec", "CE"),
    "sasrec-bce": Step("SASRec, BCE with one negative", "sasrec", "BCE"),
    "gru4rec-ce": Step("GRU4Rec, cross-entropy", "gru4rec", "CE"),
    "real-lengths": real("SASRec, cross-entropy on real lengths; PyTorch padded", False),
    "real-lengths-dropped": real("SASRec, cross-entropy on real lengths; PyTorch drops pads before the logits", True),
    "real-lengths-loss": real("cross-entropy on real lengths alone; PyTorch padded", False, CrossEntropy),
    "real-lengths-loss-dropped": real("cross-entropy on real lengths alone; PyTorch drops pads", True, CrossEntropy),
    "lisa": Layer("LISA 8 x 16 with encoding, 8,192 rows", "histogram", 8192),
    "linear-elu": Layer("linear attention elu + 1, with projections, 8,192 rows", "linear_elu", 8192),
    "softmax-block": Layer("softmax attention, with projections, 2,048 rows", "softmax", 2048),
}


def run_tally(options, command):
    with tempfile.TemporaryDirectory() as scratch:
        figures = os.path.join(scratch, "figures.json")
        command = [options.tally, "bench", *command, "--threads", str(options.threads), "--json", figures]
        process = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if process.returncode != 0:
            sys.exit(f"compare_pytorch: {' '.join(command)} ended with {process.returncode}: {process.stderr}")
        with open(figures) as file:
            return json.load(file)


# ---- A row's work in PyTorch, from what tally wrote: step() does what is timed.


class StepWork:
    def __init__(self, row, path, compiled):
        self.row, self.data = row, forms.read_safetensors(path)
        self.model = forms.MODELS[row.model](forms.with_prefix(self.data, "parameter."), row, row.dropout)
        lengths = self.data["offsets"].diff().tolist()
        self.items = torch.zeros(len(lengths), row.window, dtype=torch.long)
        self.targets = torch.full_like(self.items, forms.IGNORED)
        for tensor, name in [(self.items, "items"), (self.targets, "targets")]:
            for user, events in enumerate(self.data[name].split(lengths)):
                tensor[user, : len(events)] = events
        self.targets = self.targets.view(-1)
        self.rows = (self.targets != forms.IGNORED).nonzero().view(-1) if row.drops_pads else None
        if row.drops_pads:
            self.targets = self.targets[self.rows]
        self.forward = torch.compile(self.loss, dynamic=False) if compiled else self.loss
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE)

    def batch(self):
        return self.items, self.targets, self.rows, torch.randint(len(self.model.table()), self.targets.shape)

    def hidden(self, items, rows):
        hidden = self.model(items).flatten(0, 1)
        return hidden if rows is None else hidden[rows]

    def loss(self, items, targets, rows, negatives):
        return self.loss_of(self.hidden(items, rows), self.model.table(), targets, negatives)

    def loss_of(self, hidden, table, targets, negatives):
        if self.row.loss == "CE":
            return F.cross_entropy(hidden @ table.T, targets, ignore_index=forms.IGNORED)
        right, wrong = (hidden * table[targets]).sum(-1), (hidden * table[negatives]).sum(-1)
        return (F.softplus(-right) + F.softplus(wrong)).mean()

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        self.forward(*self.batch()).backward()
        self.optimizer.step()


class CrossEntropyWork(StepWork):
    def __init__(self, row, path, compiled):
        super().__init__(row, path, False)
        self.forward = torch.compile(self.loss_of, dynamic=False) if compiled else self.loss_of
        with torch.no_grad():
            self.fixed = self.hidden(self.items, self.rows)
        self.fixed.requires_grad_()

    def step(self):
        self.fixed.grad = self.model.table().grad = None
        self.forward(self.fixed, self.model.table(), self.targets, None).backward()


class LayerWork:
    def __init__(self, row, path, compiled):
        tensors = forms.read_safetensors(path)
        self.data = forms.with_prefix(tensors, row.attention + ".")
        self.cotangent = tensors["cotangent"]
        self.layer = forms.LAYERS[row.attention](forms.with_prefix(self.data, "parameter."), row)
        self.x = self.data["input.0"].requires_grad_()
        self.forward = torch.compile(self.layer, dynamic=False) if compiled else self.layer

    def step(self):
        self.x.grad = None
        self.layer.zero_grad(set_to_none=True)
        output = self.forward(self.x)
        output.backward(self.cotangent)
        return output


# ---- What all rows share.


def check(name, row, path):
    """The largest difference, as a part of the tensor's largest value; of a bias, of its weight's where that is more,
    for the gradient of a softmax's key bias is 0 but for rounding."""
    worst, where = 0.0, ""
    compared = {what: (theirs.detach(), ours) for what, theirs, ours in row.check(path)}
    for what, (theirs, ours) in compared.items():
        weight, _ = compared.get(what.removesuffix("bias") + "weight", (theirs, ours))
        difference = ((theirs - ours).abs().max() / max(theirs.abs().max(), weight.abs().max())).item()
        if not difference <= worst:
            worst, where = difference, what
    if not worst <= 1e-3:
        sys.exit(f"compare_pytorch: {name}: tally and PyTorch differ by {worst:.2g} of the largest value in {where}")
    return worst


def time_of(row, work, clock):
    seconds = []
    for _ in range(row.steps):
        start = clock()
        work.step()
        seconds.append(clock() - start)
    return row.middle(seconds)


def memory_of_pytorch(name, path, threads):
    """Growth of the peak resident size over the first steps, in a fresh process."""
    code = (f"import sys; sys.path.insert(0, {HERE!r}); import compare_pytorch as c;"
            f"c.torch.set_num_threads({threads}); work = c.ROWS[{name!r}].work({path!r}); before = c.peak_resident();"
            "work.step(); work.step(); print(c.peak_resident() - before)")
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def peak_resident():
    """Bytes. Not of getrusage, which counts what the process was before exec too."""
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def measure(name, row, options, path):
    row.write(options, path)
    difference, clock = check(name, row, path), row.clock(options)
    works = {"eager": row.work(path)}
    if not options.eager_only:
        works["compiled"] = row.work(path, compiled=True)
    for work in works.values():
        for _ in range(WARM_STEPS):
            work.step()
    times, shares, ratios, peaks = {form: [] for form in ["tally", *works]}, [], [], []
    for _ in range(options.rounds):
        seconds, share, peak = row.figures(options)
        times["tally"].append(seconds)
        shares.append(share)
        peaks.append(peak)
        for form, work in works.items():
            times[form].append(time_of(row, work, clock))
        ratios.append(min(times[form][-1] for form in works) / seconds)
    return {"row": name, "threads": options.threads, "seconds": times, "sgemm_shares": shares, "ratios": ratios,
            "tally_peak_bytes": None if None in peaks else max(peaks),
            "pytorch_peak_growth": memory_of_pytorch(name, path, options.threads), "difference": difference}


def line_of(row, figures):
    def milliseconds(form):
        if form not in figures["seconds"]:
            return "-"
        middle = 1e3 * statistics.median(figures["seconds"][form])
        return f"{middle:.{0 if middle >= 100 else 1}f}"

    def megabytes(count):
        return "-" if count is None else f"{count / 1e6:.0f} MB"

    ratios = figures["ratios"]
    cells = [row.title, milliseconds("tally"), f"{100 * statistics.median(figures['sgemm_shares']):.0f} %",
             milliseconds("eager"), milliseconds("compiled"), f"{statistics.median(ratios):.2f}",
             f"{min(ratios):.2f}, {max(ratios):.2f}",
             f"{megabytes(figures['tally_peak_bytes'])}, {megabytes(figures['pytorch_peak_growth'])}",
             f"{figures['difference']:.1g}"]
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tally", default="build/tools/tally")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--data", help="interactions of the real lengths (default: %(default)s)",
                        default=os.path.normpath(os.path.join(
                            HERE, "../../shared/data/amazon-beauty-bert4rec/interactions.tsv.gz")))
    parser.add_argument("--eager-only", action="store_true", help="leave out torch.compile")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    if not os.access(options.tally, os.X_OK):
        sys.exit(f"compare_pytorch: --tally: there is no program {options.tally}; build it, or say where it is")
    torch.set_num_threads(options.threads)
    os.environ["TALLY_NUM_THREADS"] = str(options.threads)
    print(f"PyTorch {torch.__version__}, {options.threads} thread{'s' if options.threads > 1 else ''}, "
          f"{options.rounds} rounds\n")
    print("| what | tally ms | of sgemm | PyTorch eager ms | compiled ms | ratio to the faster | least, most "
          "| memory: tally, PyTorch | differ by |\n|---|---|---|---|---|---|---|---|---|")
    rows = []
    for name in options.rows.split(","):
        if name not in ROWS:
            sys.exit(f"compare_pytorch: knows no row {name!r}; rows are {', '.join(ROWS)}")
        row, missing = ROWS[name], None
        if getattr(row, "real", False) and not os.path.exists(options.data):
            missing = f"there is no {options.data}"
        elif isinstance(row, CrossEntropy) and options.threads > 1:
            missing = "tally times the ops of a step on one thread"
        if missing:
            print(f"| {row.title}: skipped, for {missing} |" + " |" * 8, flush=True)
            rows.append({"row": name, "skipped": missing})
            continue
        with tempfile.TemporaryDirectory() as scratch:
            rows.append(measure(name, row, options, os.path.join(scratch, "tensors.safetensors")))
        print(line_of(row, rows[-1]), flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"pytorch": torch.__version__, "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()

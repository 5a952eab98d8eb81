"""Times PyTorch and ONNX Runtime beside adamant, on the same machine, in turns.

    pip install -r tests/peers/requirements.txt
    python tests/peers/speed.py [--adamant target/release/adamant] [--threads 2] [--rounds 5]

Each round runs every program once; the median of the rounds counts. PyTorch runs both layouts and the
better one counts. All compute the same networks, which PyTorch exports: float32, PGD in the linf ball with
BatchNorm in inference mode, SGD with momentum. It prints a table in Markdown.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
import torch.nn as nn
import torch.nn.functional as F

EPS, STEP = 8 / 255, 2 / 255
WORKLOADS = ["forward", "pgd_step", "train_step", "pgd10_adversarial_step"]


class Block(nn.Module):
    """A basic block; `pad` is option A of He et al.: a shortcut without weights."""

    def __init__(self, inputs, outputs, stride, pad):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.extra, self.stride, self.shortcut = outputs - inputs, stride, None
        if not pad and (stride != 1 or inputs != outputs):
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.extra:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return F.relu(y + x)


class ResNet(nn.Module):
    def __init__(self, widths, blocks, pad):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        layers, inputs = [], widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(Block(inputs, width, 2 if stage and not block else 1, pad))
                inputs = width
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(inputs, 10)

    def forward(self, x):
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


# Name, batch, the network.
CASES = [
    ("ResNet-20, CIFAR, batch 128", 128, lambda: ResNet([16, 32, 64], 3, True)),
    ("ResNet-18, CIFAR, batch 32", 32, lambda: ResNet([64, 128, 256, 512], 2, False)),
]


class Torch:
    def __init__(self, make, batch, layout):
        torch.manual_seed(0)
        self.net = make().to(memory_format=layout)
        self.x = torch.rand(batch, 3, 32, 32).contiguous(memory_format=layout)
        self.y = torch.arange(batch) % 10
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.0, momentum=0.9)
        self.adversarial = self.x

    def forward(self):
        self.net.eval()
        with torch.inference_mode():
            self.net(self.x)

    def pgd_step(self):
        self.net.eval()
        for p in self.net.parameters():
            p.requires_grad_(False)
        x = self.adversarial.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(self.net(x), self.y, reduction="sum"), x)
        moved = x.detach() + STEP * gradient.sign()
        self.adversarial = torch.min(torch.max(moved, self.x - EPS), self.x + EPS).clamp(0, 1)

    def train_step(self):
        self.net.train()
        for p in self.net.parameters():
            p.requires_grad_(True)
        self.optimizer.zero_grad()
        F.cross_entropy(self.net(self.adversarial.detach()), self.y).backward()
        self.optimizer.step()

    def pgd10_adversarial_step(self):
        self.adversarial = (self.x + EPS * (2 * torch.rand_like(self.x) - 1)).clamp(0, 1)
        for _ in range(10):
            self.pgd_step()
        self.train_step()

    def time(self, workload):
        return timed(getattr(self, workload))


def export(make, batch, path, folded):
    """The network as ONNX, with BatchNorm folded or kept."""
    torch.manual_seed(0)
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    x = torch.rand(batch, 3, 32, 32)
    torch.onnx.export(
        make().eval(), (x,), path, dynamo=False, training=mode, do_constant_folding=folded, input_names=["x"],
        dynamic_axes={"x": {0: "batch"}},
    )


def onnx_runtime(path, batch, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options)
    x = np.random.default_rng(0).random((batch, 3, 32, 32), dtype=np.float32)
    return lambda: session.run(None, {"x": x})


def timed(run, runs=3):
    """Milliseconds: the median of some runs after one to warm up, as `adamant bench --runs 3` does it."""
    run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def adamant(binary, path, batch, device):
    options = ["--batch", str(batch), "--runs", "3", "--device", device, "--json", "-", "--quiet"]
    command = [binary, "bench", path, *options]
    results = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["results"]
    return {r["name"]: r["median_ms"] for r in results}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adamant", default="target/release/adamant")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="the cases whose name holds this")
    parser.add_argument("--gpu", action="store_true", help="also time adamant on the first adapter")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"PyTorch {torch.__version__}, ONNX Runtime {ort.__version__}, {options.threads} threads, milliseconds\n")
    print("| | PyTorch | ONNX Runtime | adamant cpu | of PyTorch |" + (" adamant gpu | of PyTorch |" if options.gpu else ""))
    print("|---|---|---|---|---|" + ("---|---|" if options.gpu else ""))
    folder = Path(tempfile.mkdtemp())
    for name, batch, make in (case for case in CASES if options.only in case[0]):
        layouts = [Torch(make, batch, f) for f in (torch.contiguous_format, torch.channels_last)]
        export(make, batch, folder / "folded.onnx", True)
        export(make, batch, folder / "net.onnx", False)
        session = onnx_runtime(folder / "folded.onnx", batch, options.threads)
        rounds = []
        for _ in range(options.rounds):
            row = {("torch", i, w): net.time(w) for i, net in enumerate(layouts) for w in WORKLOADS}
            row["onnx", 0, "forward"] = timed(session)
            for device in ["cpu", "gpu"] if options.gpu else ["cpu"]:
                for workload, ms in adamant(options.adamant, folder / "net.onnx", batch, device).items():
                    row[device, 0, workload] = ms
            rounds.append(row)
        median = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        for workload in WORKLOADS:
            peer = min(median["torch", i, workload] for i in range(2))
            onnx = f"{median['onnx', 0, workload]:.1f}" if ("onnx", 0, workload) in median else ""
            line = f"| {name}, {workload} | {peer:.1f} | {onnx} |"
            for device in ["cpu", "gpu"] if options.gpu else ["cpu"]:
                own = median[device, 0, workload]
                line += f" {own:.1f} | {own / peer:.2f} |"
            print(line, flush=True)


if __name__ == "__main__":
    main()

"""Times PyTorch, ONNX Runtime and burn beside adamant, on the same machine, in turns.

    cargo build --release --workspace --bins
    pip install -r tests/peers/requirements.txt
    python tests/peers/speed.py cpu          # ResNet-20 and ResNet-18 against PyTorch
    python tests/peers/speed.py gpu          # the first adapter against PyTorch on the CPU
    python tests/peers/speed.py cuda         # the first adapter against PyTorch on the same NVIDIA card
    python tests/peers/speed.py inference    # one image of 224 x 224 against ONNX Runtime
    cargo build --release --manifest-path tests/peers/burn/Cargo.toml
    python tests/peers/speed.py burn         # the first adapter against burn's wgpu backend on the same
    python tests/peers/speed.py burn-cpu     # the CPU executor against burn's flex

Each prints one table in Markdown and takes up to twenty minutes on two cores; `--rounds` and `--threads` change that.
Each round runs every program once, and the median of the rounds counts: of at least five. PyTorch runs both
layouts, eagerly, and the better one counts; on CUDA without TF32, with cuDNN's search for the fastest kernels. All
compute the same networks with random weights, float32, PGD in the linf ball with BatchNorm in inference mode, SGD with
momentum; burn has the network in `burn/src/network.rs`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, NamedTuple

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
    """`large` is for images of 224 x 224: the first layers reduce them by four, and there are 1000 classes."""

    def __init__(self, widths, blocks, pad, large=False):
        super().__init__()
        size, stride = (7, 2) if large else (3, 1)
        self.conv1 = nn.Conv2d(3, widths[0], size, stride, size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.pool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        layers, inputs = [], widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(Block(inputs, width, 2 if stage and not block else 1, pad))
                inputs = width
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(inputs, 1000 if large else 10)

    def forward(self, x):
        x = self.layers(self.pool(F.relu(self.bn1(self.conv1(x)))))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Torch:
    """A network with a batch of random images, in one memory layout."""

    def __init__(self, make, batch, layout, size=32, device="cpu"):
        torch.manual_seed(0)
        self.net = make().to(device, memory_format=layout)
        self.x = torch.rand(batch, 3, size, size).to(device).contiguous(memory_format=layout)
        self.y = torch.arange(batch, device=device) % 10
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


def export(make, batch, path, folded, size=32):
    """The network as ONNX, with BatchNorm folded or kept."""
    torch.manual_seed(0)
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    x = torch.rand(batch, 3, size, size)
    torch.onnx.export(
        make().eval(), (x,), path, dynamo=False, training=mode, do_constant_folding=folded, input_names=["x"],
        dynamic_axes={"x": {0: "batch"}},
    )


def timed(run, runs):
    """Milliseconds: the median of some runs after one to warm up."""
    run()
    finish()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        finish()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def finish():
    """Waits for CUDA, which works on after a call returns."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


class PyTorch:
    def __init__(self, device, case, options, folder):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        layouts = (torch.contiguous_format, torch.channels_last)
        self.nets = [Torch(case.make, case.batch, layout, case.size, device) for layout in layouts]

    def time(self, workloads, runs):
        for w in workloads:
            for i, net in enumerate(self.nets):
                yield (w, i), timed(getattr(net, w), runs)


class OnnxRuntime:
    def __init__(self, case, options, folder):
        path = str(folder / "folded.onnx")
        export(case.make, case.batch, path, True, case.size)
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.threads
        self.session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        self.x = np.random.default_rng(0).random((case.batch, 3, case.size, case.size), dtype=np.float32)

    def time(self, workloads, runs):
        if "forward" in workloads:
            yield ("forward", 0), timed(lambda: self.session.run(None, {"x": self.x}), runs)


class Adamant:
    def __init__(self, device, case, options, folder):
        self.path = folder / "net.onnx"
        export(case.make, case.batch, self.path, False, case.size)
        self.command = [options.adamant, "bench", self.path, "--batch", str(case.batch), "--device", device]

    def time(self, workloads, runs):
        chosen = [word for w in workloads for word in ("--workload", w)]
        command = [*self.command, "--runs", str(runs), *chosen, "--json", "-", "--quiet"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        self.device = found["device"]
        for r in found["results"]:
            yield (r["name"], 0), r["median_ms"]


class Burn:
    """One process for all rounds: to tune and compile takes burn's wgpu backend a minute."""

    def __init__(self, backend, case, options, folder):
        if not Path(options.burn).exists():
            sys.exit(f"{options.burn} is not there: cargo build --release --manifest-path tests/peers/burn/Cargo.toml")
        command = [options.burn, backend, case.burn, str(case.batch)]
        # A layer of Mesa's looks for a display and complains where there is none.
        quiet = {**os.environ, "NODEVICE_SELECT": "1"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet)
        first = self.answer()["first_gradient_s"]
        print(f"{' '.join(command)}: the first gradient took {first:.1f} s", file=sys.stderr, flush=True)

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"burn stopped with exit code {self.process.wait()}")
        return json.loads(line)

    def time(self, workloads, runs):
        for w in workloads:
            self.process.stdin.write(f"{w} {runs}\n")
            self.process.stdin.flush()
            yield (w, 0), self.answer()["median_ms"]


PROGRAMS = {
    "PyTorch": lambda *a: PyTorch("cpu", *a),
    "PyTorch CUDA": lambda *a: PyTorch("cuda", *a),
    "ONNX Runtime": OnnxRuntime,
    "burn wgpu": lambda *a: Burn("wgpu", *a),
    "burn flex": lambda *a: Burn("flex", *a),
    "Adamant `cpu`": lambda *a: Adamant("cpu", *a),
    "Adamant `gpu`": lambda *a: Adamant("gpu", *a),
}


class Case(NamedTuple):
    name: str
    batch: int
    size: int
    make: Callable[[], nn.Module]
    burn: str = ""


def resnet20(batch):
    return Case(f"ResNet-20, CIFAR, batch {batch}", batch, 32, lambda: ResNet([16, 32, 64], 3, True), "resnet20")


def resnet18(batch):
    make = lambda: ResNet([64, 128, 256, 512], 2, False)
    return Case(f"ResNet-18, CIFAR, batch {batch}", batch, 32, make, "resnet18")


LARGE = Case("ResNet-18, 224 x 224, batch 1", 1, 224, lambda: ResNet([64, 128, 256, 512], 2, False, True))


class Table(NamedTuple):
    cases: list[Case]
    workloads: list[str]
    runs: int
    programs: list[str]
    # Adamant's time is given as a part of the fastest of these.
    against: list[str]


TABLES = {
    "cpu": Table([resnet20(128), resnet18(32)], WORKLOADS, 3, ["PyTorch", "ONNX Runtime", "Adamant `cpu`"], ["PyTorch"]),
    "gpu": Table([resnet20(128)], WORKLOADS, 3, ["PyTorch", "Adamant `gpu`"], ["PyTorch"]),
    "cuda": Table([resnet18(128), resnet20(128)], WORKLOADS, 10, ["PyTorch CUDA", "Adamant `gpu`"], ["PyTorch CUDA"]),
    "inference": Table([LARGE], ["forward"], 20, ["PyTorch", "ONNX Runtime", "Adamant `cpu`"], ["ONNX Runtime"]),
    # Of more images burn's wgpu backend would take a minute a step on a software adapter, and the last workload is ten
    # times the second and once the third.
    "burn": Table([resnet20(32)], WORKLOADS[:3], 3, ["burn wgpu", "Adamant `gpu`"], ["burn wgpu"]),
    # Of burn's two CPU backends the faster: for a PGD step ndarray takes fifteen times as long.
    "burn-cpu": Table([resnet20(32)], WORKLOADS[:3], 3, ["burn flex", "Adamant `cpu`"], ["burn flex"]),
}


def measure(case, table, options, folder):
    """Milliseconds of each workload by each program, and what Adamant calls its device."""
    programs = {name: PROGRAMS[name](case, options, folder) for name in table.programs}
    rounds = []
    for n in range(options.rounds):
        print(f"{case.name}: round {n + 1} of {options.rounds}", file=sys.stderr, flush=True)
        row = {}
        for name, program in programs.items():
            for (workload, variant), ms in program.time(table.workloads, table.runs):
                row[name, workload, variant] = ms
                # What a run that is cut short leaves.
                print(f"  {name} {variant} {workload}: {ms:.1f} ms", file=sys.stderr, flush=True)
        rounds.append(row)
    found = {}
    for name, workload, variant in rounds[0]:
        median = statistics.median(r[name, workload, variant] for r in rounds)
        found[name, workload] = min(median, found.get((name, workload), median))
    return found, programs[table.programs[-1]].device


def cell(ms):
    return "" if ms is None else f"{ms:.1f}"


def machine():
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{os.cpu_count()} x {model}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--adamant", default="target/release/adamant")
    parser.add_argument("--burn", default="tests/peers/burn/target/release/adamant-peer-burn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="the cases whose name holds this")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = TABLES[options.table]
    own = table.programs[-1]
    peers = " or ".join(table.against)
    lines = [f"| milliseconds | {' | '.join(table.programs)} | of {peers} |", "|---" * (len(table.programs) + 2) + "|"]
    devices = set()
    for case in (case for case in table.cases if options.only in case.name):
        with tempfile.TemporaryDirectory() as folder:
            found, device = measure(case, table, options, Path(folder))
        devices.add(device)
        for workload in table.workloads:
            peer = min(found[name, workload] for name in table.against)
            cells = " | ".join(cell(found.get((name, workload))) for name in table.programs)
            lines.append(f"| {case.name}, {workload} | {cells} | {found[own, workload] / peer:.2f} |")
    versions = f"PyTorch {torch.__version__}, ONNX Runtime {ort.__version__}, burn 0.21.0"
    card = f", {torch.cuda.get_device_name()}" if torch.cuda.is_initialized() else ""
    print(f"{machine()}{card}, {options.threads} threads; Adamant on {', '.join(sorted(devices))}")
    print(f"{versions}; median of {options.rounds} rounds\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

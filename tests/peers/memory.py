"""Peak memory of a PGD-10 adversarial training step, PyTorch's beside adamant's.

    pip install -r tests/peers/requirements.txt
    python tests/peers/memory.py [--adamant target/release/adamant]

Each measurement is a process of its own, whose peak resident memory Linux counts. PyTorch's is also
given without what it takes before the step (the libraries, the network, the batch). It prints a table in Markdown.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from speed import ResNet, Torch, export

CASES = {
    "ResNet-20, CIFAR, batch 128": (128, lambda: ResNet([16, 32, 64], 3, True)),
    "ResNet-18, CIFAR, batch 128": (128, lambda: ResNet([64, 128, 256, 512], 2, False)),
}


# Runs a command, and prints the KiB that it took at most. A process begins with its parent's peak, even where it goes on
# as another program, so that a parent with PyTorch in it would be measured.
MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak():
    """MiB that this process has taken at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def step_of_torch(name, layout):
    batch, make = CASES[name]
    torch.set_num_threads(2)
    trainer = Torch(make, batch, {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}[layout])
    before = peak()
    trainer.pgd10_adversarial_step()
    print(before, peak())


def torch_peaks(name):
    """The better of both layouts: before the step, and at most."""
    found = []
    for layout in ("channels_last", "contiguous"):
        out = subprocess.run([sys.executable, __file__, "--step", name, layout], check=True, capture_output=True, text=True)
        found.append(tuple(float(x) for x in out.stdout.split()))
    return min(found, key=lambda pair: pair[1])


def adamant_peak(adamant, name, folder):
    """A run of one batch in one epoch."""
    batch, make = CASES[name]
    model, data = Path(folder) / "model.onnx", Path(folder) / "cifar-10-batches-bin"
    export(make, batch, str(model), False)
    data.mkdir(exist_ok=True)
    (data / "data_batch_1.bin").write_bytes(b"".join(bytes([i % 10]) + os.urandom(3072) for i in range(batch)))
    command = [
        adamant, "finetune", model, "--mean", "none", "--data", f"cifar10:{folder}", "--recipe", "madry", "--epochs", "1",
        "--batch", str(batch), "--validate", "none", "--device", "cpu", "--quiet", "--out", Path(folder) / "run",
    ]
    command = [sys.executable, "-c", MEASURED, *(str(x) for x in command)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adamant", default="target/release/adamant")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        return step_of_torch(*args.step)
    print("| MiB | PyTorch | of it the step | Adamant, the whole run |\n|---|---|---|---|")
    for name in CASES:
        before, most = torch_peaks(name)
        with tempfile.TemporaryDirectory() as folder:
            ours = adamant_peak(Path(args.adamant).resolve(), name, folder)
        print(f"| {name} | {most:.0f} | {most - before:.0f} | {ours:.0f} |", flush=True)


if __name__ == "__main__":
    main()

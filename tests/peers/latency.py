"""One picture at a time: packages of every precision beside ONNX Runtime on what they export.

    cargo build --release --workspace --bins
    pip install -r tests/peers/requirements.txt
    python tests/peers/latency.py [--runs 50] [--threads 2]

Each program is run on its own, and the median of its calls counts. The networks have random weights: time does not
depend on them. It prints a table in Markdown.
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


def onnx_runtime(path, threads, runs):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    x = np.full((1, 3, 32, 32), 0.5, np.float32)
    times = []
    for n in range(runs + 5):
        start = time.perf_counter()
        session.run(None, {name: x})
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[5:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", default="target/release/latency")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.latency, folder, "--runs", str(arguments.runs)]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        found = [json.loads(line) for line in lines]
        print(f"GPU: {found[0]['adapter']}; onnxruntime {ort.__version__}, {arguments.threads} threads\n")
        print("| | package | ONNX file | `cpu` | its memory | `gpu` | its memory | ONNX Runtime |")
        print("|---|---|---|---|---|---|---|---|")
        for row in found:
            path = Path(folder) / f"{row['name']}.onnx"
            peer = onnx_runtime(path, arguments.threads, arguments.runs)
            sizes = " | ".join(f"{size / 1e6:.2f} MB" for size in (row["bytes"], path.stat().st_size))
            cpu, gpu = (f"{row[f'{d}_ms']:.2f} ms | {row[f'{d}_bytes'] / 2**20:.1f} MiB" for d in ("cpu", "gpu"))
            print(f"| {row['name'].replace('-', ', ')} | {sizes} | {cpu} | {gpu} | {peer:.2f} ms |")


if __name__ == "__main__":
    main()

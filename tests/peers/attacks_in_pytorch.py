"""The robust accuracy of an ONNX model under attacks that others wrote, in PyTorch.

An independent check of `adamant evaluate`: another framework and other implementations of the attacks, on
the same images. Needs torch, onnx and numpy; `--autoattack` names a checkout of
https://github.com/fra31/auto-attack, and the attacks of `--torchattacks` need that package.

    python tests/peers/attacks_in_pytorch.py MODEL.onnx CIFAR-10-DIR --mean .4914 .4822 .4465 \\
        --std .2471 .2435 .2616 --images 200 --eps 2/255 --autoattack ~/auto-attack

prints a line for each attack: how many of the images withstand it, alone and in AutoAttack's order.
Compare with

    adamant evaluate MODEL.onnx --mean .4914,.4822,.4465 --std .2471,.2435,.2616 --data cifar10:CIFAR-10-DIR \\
        --limit 200 --eps 2/255 --attack apgd-ce --attack apgd-dlr --attack apgd-t --attack fab-t --attack square
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import nn


class Network(nn.Module):
    """The operators of a residual network without BatchNorm, run node by node."""

    def __init__(self, path, mean, std):
        super().__init__()
        graph = onnx.load(path).graph
        self.nodes = [
            (n.op_type, list(n.input), n.output[0], {a.name: helper.get_attribute_value(a) for a in n.attribute})
            for n in graph.node
        ]
        self.values = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
        self.input, self.output = graph.input[0].name, graph.output[0].name
        self.mean, self.std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (mean, std))

    def forward(self, x):
        values = {**self.values, self.input: (x - self.mean) / self.std}
        for kind, inputs, output, attributes in self.nodes:
            args = [values[name] for name in inputs]
            if kind == "Conv":
                top, left, bottom, right = attributes["pads"]
                padded = F.pad(args[0], (left, right, top, bottom))
                y = F.conv2d(padded, *args[1:], stride=attributes["strides"], groups=attributes["group"],
                             dilation=attributes["dilations"])
            elif kind == "Gemm" and attributes.get("transB") == 1:
                y = F.linear(*args)
            elif kind == "Relu":
                y = F.relu(args[0])
            elif kind == "Add":
                y = args[0] + args[1]
            elif kind == "Flatten":
                y = args[0].flatten(1)
            elif kind == "GlobalAveragePool":
                y = args[0].mean((2, 3), keepdim=True)
            else:
                sys.exit(f"this script does not run {kind} {attributes}")
            values[output] = y
        return values[self.output]


def fraction(text):
    top, _, bottom = text.partition("/")
    return float(top) / float(bottom or 1)


def images(folder, count):
    raw = np.fromfile(Path(folder) / "test_batch.bin", np.uint8).reshape(-1, 3073)[:count]
    x = torch.from_numpy(raw[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255)
    return x, torch.from_numpy(raw[:, 0].astype(np.int64))


def withstand(net, x, adversarial, y, norm, eps):
    """Which images are right, after a look at the ball and the box."""
    away = (adversarial - x).flatten(1)
    away = away.abs().max(1).values if norm == "linf" else away.norm(dim=1)
    assert adversarial.min() >= 0 and adversarial.max() <= 1 and away.max() <= eps * (1 + 1e-4)
    with torch.no_grad():
        return net(adversarial).argmax(1) == y


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data", help="folder with test_batch.bin")
    parser.add_argument("--mean", type=float, nargs=3, default=[0.0] * 3)
    parser.add_argument("--std", type=float, nargs=3, default=[1.0] * 3)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--norm", choices=["linf", "l2"], default="linf")
    parser.add_argument("--eps", type=fraction, default=8 / 255)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--autoattack", help="a checkout of the official AutoAttack")
    parser.add_argument("--torchattacks", action="store_true")
    parser.add_argument("--only", nargs="*", help="names of attacks")
    options = parser.parse_args()
    torch.manual_seed(options.seed)

    net = Network(options.model, options.mean, options.std).eval()
    x, y = images(options.data, options.images)
    with torch.no_grad():
        clean = net(x).argmax(1) == y
    print(f"clean {clean.sum().item()}/{len(x)}", flush=True)
    still = clean.clone()

    def report(name, start, right, in_turn=None):
        nonlocal still
        alone = "" if right is None else f"{(clean & right).sum().item()}/{len(x)}"
        turn = "" if in_turn is None else f"{in_turn}/{len(x)} in turn"
        print(f"{name:<12} {alone:>9} {turn:>20} {time.time() - start:8.1f} s", flush=True)

    wanted = lambda name: options.only is None or name in options.only
    if options.torchattacks:
        import torchattacks

        eps, steps = options.eps, dict(steps=10, alpha=options.eps / 4)
        attacks = {
            "bim": torchattacks.BIM(net, eps=eps, **steps),
            "mi-fgsm": torchattacks.MIFGSM(net, eps=eps, decay=1.0, **steps),
            "pgd": torchattacks.PGD(net, eps=eps, steps=20, alpha=2.5 * eps / 20),
        }
        for name, attack in attacks.items():
            if wanted(name) and options.norm == "linf":
                start = time.time()
                report(name, start, withstand(net, x, attack(x, y), y, options.norm, eps))
    if options.autoattack:
        sys.path.insert(0, options.autoattack)
        from autoattack import AutoAttack

        norm = {"linf": "Linf", "l2": "L2"}[options.norm]
        for name in ["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"]:
            if not wanted(name):
                continue
            attack = AutoAttack(net, norm=norm, eps=options.eps, seed=options.seed, version="custom", verbose=False,
                                attacks_to_run=[name], device="cpu")
            attack.apgd.n_restarts = 1
            attack.fab.n_restarts = 1
            start = time.time()
            found = attack.run_standard_evaluation(x, y, bs=options.batch)
            report(name, start, withstand(net, x, found, y, options.norm, options.eps))
        if wanted("standard"):
            attack = AutoAttack(net, norm=norm, eps=options.eps, seed=options.seed, version="standard", verbose=False,
                                device="cpu")
            start = time.time()
            found = attack.run_standard_evaluation(x, y, bs=options.batch)
            right = withstand(net, x, found, y, options.norm, options.eps)
            report("standard", start, None, (clean & right).sum().item())


if __name__ == "__main__":
    main()

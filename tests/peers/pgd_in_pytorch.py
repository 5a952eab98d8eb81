"""Clean accuracy and PGD in PyTorch of a CIFAR ResNet (6n+2) that Adamant exported.

An independent check of `adamant evaluate`: another framework, another implementation of the network
and of the attack, the same images. Needs torch, onnx and numpy.

    adamant export RUN --out model.onnx
    python tests/peers/pgd_in_pytorch.py model.onnx CIFAR-10-DIR --images 1000 --eps 2 --step 0.5 --steps 20
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.more = outputs - inputs
        self.stride = stride

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return F.relu(y + x)


class ResNet(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (inputs, outputs, stride) in enumerate([(16, 16, 1), (16, 32, 2), (32, 64, 2)], 1):
            blocks = [Block(inputs, outputs, stride)] + [Block(outputs, outputs, 1) for _ in range(n - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def load(path):
    stored = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in onnx.load(path).graph.initializer}
    convolutions = sum(t.dim() == 4 for t in stored.values())
    net = ResNet((convolutions - 1) // 6)
    state = {k: stored[k] for k in net.state_dict() if "num_batches" not in k}
    net.load_state_dict(state, strict=False)
    return net.eval()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model")
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--images", type=int, default=1000)
    arguments.add_argument("--eps", type=float, default=2, help="in 255ths")
    arguments.add_argument("--step", type=float, default=0.5, help="in 255ths")
    arguments.add_argument("--steps", type=int, default=20)
    a = arguments.parse_args()

    torch.manual_seed(0)
    records = np.fromfile(a.data / "test_batch.bin", np.uint8).reshape(-1, 3073)[: a.images]
    labels = torch.from_numpy(records[:, 0].astype(np.int64))
    images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32)).float() / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    net = load(a.model)
    logits = lambda x: net((x - mean) / std)  # noqa: E731

    clean = robust = 0
    eps, step = a.eps / 255, a.step / 255
    for x, y in zip(images.split(128), labels.split(128)):
        with torch.no_grad():
            right = logits(x).argmax(1) == y
        z = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
        for _ in range(a.steps):
            z.requires_grad_(True)
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits(z), y, reduction="sum"), z)
            z = (z.detach() + step * gradient.sign()).clamp(x - eps, x + eps).clamp(0, 1)
        with torch.no_grad():
            withstood = (logits(z).argmax(1) == y) & right
        clean += right.sum().item()
        robust += withstood.sum().item()
    print(f"{a.images} images: clean {clean}, robust {robust} (torch {torch.__version__})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

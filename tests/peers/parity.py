"""The same attacks by Adamant and by others, on the same images: how many images withstand each.

Runs `adamant evaluate` and, in PyTorch, implementations that others wrote, and prints a table in Markdown.
The gradient attacks come from torchattacks, CW-L2 from Foolbox, APGD, FAB and Square from the authors'
AutoAttack. PGD with Carlini and Wagner's loss is in none of them: it is the short `cw` below. Needs torch,
onnx, numpy, torchattacks and foolbox; `--autoattack` names a checkout of https://github.com/fra31/auto-attack.

    python tests/peers/parity.py MODEL.onnx CIFAR-10-DIR --adamant target/release/adamant --eps 2/255 \\
        --images 500 --autoattack auto-attack --rows rows.jsonl [--mean .4914 .4822 .4465 --std .2471 .2435 .2616]

A row that is in `--rows` is not measured again: what was stopped goes on.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx
import torch
from torch import nn

import attacks_in_pytorch as peer
import pgd_in_pytorch as resnet

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
GRADIENT = ["fgsm", "bim", "mi-fgsm", "pgd", "cw"]
OFFICIAL = ["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "fab", "square"]


class Normalized(nn.Module):
    def __init__(self, net, mean, std):
        super().__init__()
        self.net = net
        self.mean, self.std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (mean, std))

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


def load(path, mean, std):
    if any(n.op_type == "BatchNormalization" for n in onnx.load(path).graph.node):
        return Normalized(resnet.load(path), mean, std).eval()
    return peer.Network(path, mean, std).eval()


def cw(net, x, y, eps, steps=30):
    """Madry's PGD with the margin loss of Carlini and Wagner, confidence 50."""
    adv = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        adv.requires_grad_(True)
        logits = net(adv)
        own = logits.gather(1, y[:, None])[:, 0]
        other = logits.scatter(1, y[:, None], float("-inf")).max(1).values
        loss = -(own - other + 50).clamp(min=0).sum()
        (gradient,) = torch.autograd.grad(loss, adv)
        adv = (adv.detach() + eps / 4 * gradient.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return adv


def theirs(name, net, x, y, options):
    """Adversarial images, and who made them."""
    eps = options.eps
    if name in GRADIENT:
        import torchattacks

        who = f"torchattacks {torchattacks.__version__}"
        iterated = dict(eps=eps, steps=10, alpha=eps / 4)
        if name == "cw":
            return cw(net, x, y, eps), "parity.py"
        attack = {
            "fgsm": lambda: torchattacks.FGSM(net, eps=eps),
            "bim": lambda: torchattacks.BIM(net, **iterated),
            "mi-fgsm": lambda: torchattacks.MIFGSM(net, decay=1.0, **iterated),
            "pgd": lambda: torchattacks.PGD(net, eps=eps, steps=20, alpha=eps / 4),
        }[name]()
        return attack(x, y), who
    if name == "cw-l2":
        import foolbox

        attack = foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=options.cw_searches, steps=options.cw_steps, initial_const=0.1
        )
        _, found, inside = attack(foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, y, epsilons=options.l2)
        return torch.where(inside[:, None, None, None], found, x), f"Foolbox {foolbox.__version__}"
    from autoattack import AutoAttack

    attack = AutoAttack(net, norm="Linf", eps=eps, seed=options.seed, version="custom", verbose=False,
                        attacks_to_run=[name], device="cpu")
    attack.apgd.n_restarts = attack.fab.n_restarts = 1
    attack.fab.n_iter = options.fab_steps
    attack.square.n_queries = options.queries
    return attack.run_standard_evaluation(x, y, bs=options.batch), "AutoAttack a392200"


def ours(name, options):
    """What `adamant evaluate` says of one attack."""
    eps = f"eps={options.eps!r}"
    settings = {
        "fab-t": f"{eps},steps={options.fab_steps}",
        "fab": f"{eps},steps={options.fab_steps}",
        "square": f"{eps},queries={options.queries}",
        "cw-l2": f"eps={options.l2!r},c=0.1,searches={options.cw_searches},steps={options.cw_steps}",
    }.get(name, eps)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [options.adamant, "evaluate", options.model, "--data", f"cifar10:{options.data}",
                   "--limit", str(options.images), "--attack", f"{name}:{settings}", "--device", options.device,
                   "--mean", ",".join(map(str, options.mean)), "--std", ",".join(map(str, options.std)),
                   "--seed", str(options.seed), "--json", str(result)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(result.read_text())
    return found["clean"]["correct"], found["attacks"][0]["robust_correct"], found["attacks"][0]["seconds"]


def describe(row):
    steps = f", {row['fab_steps']} steps"
    budget = {"fab-t": steps, "fab": steps, "square": f", {row['queries']} queries",
              "cw-l2": f", {row['searches']} searches of {row['steps']} steps"}
    return row["attack"] + budget.get(row["attack"], "")


def table(rows):
    lines = ["| attack | radius | images | Adamant | theirs | difference in points | whose |",
             "|---|---|---|---|---|---|---|"]
    for row in rows:
        n = row["images"]
        share = lambda count: f"{100 * count / n:.1f}%"  # noqa: E731
        lines.append(
            f"| {describe(row)} | {row['radius']} | {n} | {share(row['ours'])} | {share(row['theirs'])} "
            f"| {100 * (row['ours'] - row['theirs']) / n:+.1f} | {row['who']} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", help="folder with test_batch.bin")
    parser.add_argument("--adamant", default="target/release/adamant")
    parser.add_argument("--autoattack", help="a checkout of the official AutoAttack")
    parser.add_argument("--rows", type=Path, required=True, help="where results are kept")
    parser.add_argument("--mean", type=float, nargs=3, default=IMAGENET[0])
    parser.add_argument("--std", type=float, nargs=3, default=IMAGENET[1])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--l2", type=float, default=0.5, help="radius of CW-L2")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="of Adamant")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--queries", type=int, default=5000, help="of Square")
    parser.add_argument("--fab-steps", type=int, default=100)
    parser.add_argument("--cw-steps", type=int, default=100)
    parser.add_argument("--cw-searches", type=int, default=6)
    parser.add_argument("--attacks", nargs="*", default=GRADIENT + OFFICIAL + ["cw-l2"])
    options = parser.parse_args()
    radius, options.eps = options.eps, peer.fraction(options.eps)
    torch.set_num_threads(options.threads)
    if options.autoattack:
        sys.path.insert(0, options.autoattack)

    net = load(options.model, options.mean, options.std)
    x, y = peer.images(options.data, options.images)
    with torch.no_grad():
        clean = torch.cat([net(part) for part in x.split(options.batch)]).argmax(1) == y
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.exists() else []
    for name in options.attacks:
        norm, eps = ("l2", options.l2) if name == "cw-l2" else ("linf", options.eps)
        shown = f"l2 {eps:g}" if norm == "l2" else radius
        key = {"attack": name, "model": Path(options.model).name, "radius": shown, "images": len(x),
               "queries": options.queries, "fab_steps": options.fab_steps, "searches": options.cw_searches,
               "steps": options.cw_steps, "seed": options.seed}
        if any(all(row[k] == v for k, v in key.items()) for row in rows):
            continue
        torch.manual_seed(options.seed)
        our_clean, robust, our_seconds = ours(name, options)
        if our_clean != clean.sum().item():
            print(f"note: clean {our_clean} here, {clean.sum().item()} in PyTorch", file=sys.stderr)
        start, right = time.time(), torch.zeros_like(clean)
        # Like Adamant, others are not asked about images that are wrong already.
        kept = clean.nonzero()[:, 0]
        for part in kept.split(options.batch):
            found, who = theirs(name, net, x[part], y[part], options)
            right[part] = peer.withstand(net, x[part], found.detach(), y[part], norm, eps)
        row = key | {"ours": robust, "theirs": right.sum().item(), "our_seconds": our_seconds,
                     "their_seconds": time.time() - start, "who": who, "clean": our_clean}
        rows.append(row)
        with options.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    version = subprocess.run([options.adamant, "--version"], capture_output=True, text=True).stdout.strip()
    print(f"{version}, torch {torch.__version__}; clean {clean.sum().item()} of {len(x)}\n")
    mine = [row for row in rows if row["model"] == Path(options.model).name]
    print(table(mine))


if __name__ == "__main__":
    main()

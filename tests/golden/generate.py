"""Writes the reference values the runtime is tested against.

    python generate.py [output folder, default: this one]

Every input is a float32 tensor drawn from a seeded generator. Results are
computed by PyTorch on the CPU in float64 from those float32 inputs and rounded
to float32 once, at the end, so a comparison shows the error of the runtime
alone.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
# One key only: safetensors does not keep the order of several.
METADATA = {
    "generator": f"torch {torch.__version__.split('+')[0]}, onnx {onnx.__version__}, "
    f"safetensors {safetensors.__version__}"
}


def save(name, tensors):
    rounded = {}
    for key, value in tensors.items():
        value = value.detach()
        if value.dtype == torch.float64:
            value = value.float()
        rounded[key] = value.clone().contiguous()
    (OUT / name).write_bytes(safetensors.torch.save(rounded, metadata=METADATA))


def generator(seed):
    return torch.Generator().manual_seed(seed)


# --- the network ---------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.downsample = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + shortcut)


class TinyResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = Block(8, 8, 1)
        self.layer2 = Block(8, 16, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.pool(x), 1))


def tiny_resnet():
    """A fresh float32 copy, always with the same weights, in eval mode."""
    net = TinyResNet()
    g = generator(1)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2.0 / fan_in) ** 0.5, generator=g)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=g)
                module.bias.uniform_(-0.4, 0.4, generator=g)
                module.running_mean.uniform_(-0.5, 0.5, generator=g)
                module.running_var.uniform_(0.5, 2.0, generator=g)
            elif isinstance(module, nn.Linear):
                module.weight.normal_(0, 0.5, generator=g)
                module.bias.uniform_(-0.3, 0.3, generator=g)
    return net.eval()


def batch(seed):
    g = generator(seed)
    x = torch.rand(6, 3, 9, 11, generator=g)
    labels = torch.randint(0, 5, (6,), generator=g)
    return x, labels


def write_onnx():
    torch.onnx.export(
        tiny_resnet(),
        (batch(2)[0],),
        str(OUT / "tiny_resnet.onnx"),
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        keep_initializers_as_inputs=False,
        opset_version=17,
        input_names=["x"],
        output_names=["logits"],
        dynamic_axes={"x": {0: "batch"}, "logits": {0: "batch"}},
    )
    model = onnx.load(OUT / "tiny_resnet.onnx")
    onnx.checker.check_model(model, full_check=True)
    names = {i.name for i in model.graph.initializer}
    state = {k for k in tiny_resnet().state_dict() if "num_batches" not in k}
    assert names == state, names ^ state
    norms = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    assert len(norms) == 6
    assert all(len(n.output) == 1 for n in norms)


def write_tiny_resnet():
    x, labels = batch(2)
    out = {"x": x, "labels": labels}
    for mode in ("eval", "train"):
        net = tiny_resnet().double()
        net.train(mode == "train")
        inp = x.double().requires_grad_()
        logits = net(inp)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        out[f"{mode}.logits"] = logits
        out[f"{mode}.loss"] = loss.reshape(1)
        out[f"{mode}.grad_input"] = inp.grad
        for name, p in net.named_parameters():
            out[f"{mode}.grad.{name}"] = p.grad
        if mode == "train":
            for name, b in net.named_buffers():
                if "running" in name:
                    out[f"train.running.{name}"] = b
    save("tiny_resnet.safetensors", out)


# --- training ------------------------------------------------------------------


CLIP = 2.45


def write_training():
    batches = [batch(100 + i) for i in range(10)]
    out = {}
    for i, (x, labels) in enumerate(batches):
        out[f"batch.{i}.x"] = x
        out[f"batch.{i}.labels"] = labels
    sgd = dict(lr=0.05, momentum=0.9, weight_decay=5e-4)
    adam = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    runs = {
        "sgd": lambda p: torch.optim.SGD(p, **sgd),
        "sgd_nesterov": lambda p: torch.optim.SGD(p, nesterov=True, **sgd),
        "adam": lambda p: torch.optim.Adam(p, **adam),
        "adam_wd": lambda p: torch.optim.Adam(p, weight_decay=1e-2, **adam),
        # Some of its gradients are longer than the bound, some are not.
        "sgd_clip": lambda p: torch.optim.SGD(p, **sgd),
    }
    for run, make in runs.items():
        net = tiny_resnet().double().train()
        opt = make(net.parameters())
        losses, lengths = [], []
        for x, labels in batches:
            opt.zero_grad()
            loss = F.cross_entropy(net(x.double()), labels)
            loss.backward()
            if run == "sgd_clip":
                lengths.append(nn.utils.clip_grad_norm_(net.parameters(), CLIP))
            opt.step()
            losses.append(loss.detach())
        out[f"{run}.loss"] = torch.stack(losses)
        if run in ("sgd", "adam", "sgd_clip"):
            for name, value in net.state_dict().items():
                if "num_batches" not in name:
                    out[f"{run}.final.{name}"] = value
        if run == "sgd_clip":
            assert min(lengths) < CLIP < max(lengths), lengths
    save("training.safetensors", out)


# --- attacks -------------------------------------------------------------------


def norms(t):
    return t.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)


def write_attacks():
    x32, labels = batch(2)
    net = tiny_resnet().double()
    x = x32.double()
    eps = 8 / 255
    out = {"x": x32, "labels": labels}

    def loss_and_grad(adv):
        adv = adv.detach().requires_grad_()
        loss = F.cross_entropy(net(adv), labels, reduction="sum")
        (grad,) = torch.autograd.grad(loss, adv)
        return loss.detach(), grad

    def attack(name, start, steps, update):
        adv = (x + start.double()).clamp(0, 1)
        out[f"{name}.start"] = start
        out[f"{name}.step.0"] = adv
        losses = []
        for k in range(steps):
            loss, grad = loss_and_grad(adv)
            losses.append(loss)
            out[f"{name}.grad.{k}"] = grad
            adv = update(adv, grad)
            out[f"{name}.step.{k + 1}"] = adv
        losses.append(loss_and_grad(adv)[0])
        out[f"{name}.loss"] = torch.stack(losses)

    def linf(adv, grad):
        adv = adv + 2 / 255 * grad.sign()
        return torch.min(torch.max(adv, x - eps), x + eps).clamp(0, 1)

    def l2(adv, grad):
        delta = adv + 0.1 * grad / (norms(grad) + 1e-10) - x
        delta = delta * (0.5 / norms(delta)).clamp(max=1)
        return (x + delta).clamp(0, 1)

    g = generator(3)
    noise = (torch.rand(x.shape, generator=g) * 2 - 1) * eps
    attack("pgd_linf", noise, 5, linf)
    noise = torch.randn(x.shape, generator=g)
    radius = 0.25 + 0.2 * torch.rand(6, 1, 1, 1, generator=g)
    attack("pgd_l2", noise / norms(noise) * radius, 5, l2)

    loss, grad = loss_and_grad(x)
    adv = (x + eps * grad.sign()).clamp(0, 1)
    out["fgsm.grad"] = grad
    out["fgsm.x"] = adv
    out["fgsm.loss"] = torch.stack([loss, loss_and_grad(adv)[0]])
    save("attacks.safetensors", out)


# --- losses of training ---------------------------------------------------------


def kl(log_p, log_q):
    return (log_p.exp() * (log_p - log_q)).sum(1)


def mixed(z, z_adv, labels, beta=None):
    clean = F.cross_entropy(z, labels, reduction="none")
    adversarial = F.cross_entropy(z_adv, labels, reduction="none")
    return (clean + adversarial) / 2 if beta is None else clean + beta * adversarial


def trades(z, z_adv, labels, beta):
    natural = F.cross_entropy(z, labels, reduction="none")
    return natural + beta * kl(F.log_softmax(z, 1), F.log_softmax(z_adv, 1))


def mart(z, z_adv, labels, beta):
    """As the authors' code writes it."""
    p, q = F.softmax(z, 1), F.softmax(z_adv, 1)
    top = torch.argsort(q, dim=1)[:, -2:]
    rival = torch.where(top[:, -1] == labels, top[:, -2], top[:, -1])
    boosted = F.cross_entropy(z_adv, labels, reduction="none")
    boosted = boosted + F.nll_loss(torch.log(1.0001 - q + 1e-12), rival, reduction="none")
    true = torch.gather(p, 1, labels.unsqueeze(1)).squeeze(1)
    divergence = F.kl_div(torch.log(q + 1e-12), p, reduction="none").sum(1)
    return boosted + beta * divergence * (1.0000001 - true)


def alp(z, z_adv, labels, beta):
    return mixed(z, z_adv, labels) + beta * ((z - z_adv) ** 2).sum(1)


LOSSES = {
    "mixed": mixed,
    "rst": lambda *a: mixed(*a, beta=0.7),
    "trades": lambda *a: trades(*a, beta=6.0),
    "mart": lambda *a: mart(*a, beta=5.0),
    "alp": lambda *a: alp(*a, beta=0.5),
}


def angular(u, v):
    return 1 - (u * v).sum(1).abs() / (u.norm(dim=1) * v.norm(dim=1))


def mse(u, v):
    return ((u - v) ** 2).mean(1)


GUIDES = {
    "guide.representation": ("representation", angular, 50.0),
    "guide.features": ("features", angular, 50.0),
    "guide.mse": ("representation", mse, 2.0),
    "guide.logit": ("logit", mse, 0.5),
    "guide.attention": ("attention", angular, 50.0),
}


def features_and_logits(net, x):
    """The feature map before global pooling, and the logits."""
    kept = []
    hook = net.pool.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    logits = net(x)
    hook.remove()
    return kept[0], logits


def write_losses():
    """Losses of clean and adversarial images in train mode, clean first, with every gradient."""
    x, labels = batch(2)
    noise = torch.randn(x.shape, generator=generator(5))
    x_adv = (x + 8 / 255 * noise.sign()).clamp(0, 1)
    out = {"x": x, "x_adv": x_adv, "labels": labels}
    for name, loss in LOSSES.items():
        net = tiny_resnet().double().train()
        losses = loss(net(x.double()), net(x_adv.double()), labels)
        losses.mean().backward()
        out[f"{name}.losses"] = losses
        for parameter, p in net.named_parameters():
            out[f"{name}.grad.{parameter}"] = p.grad
    # The objective of the attack of TRADES, with the clean prediction fixed.
    net = tiny_resnet().double()
    adv = x_adv.double().requires_grad_()
    log_p = F.log_softmax(net(x.double()), 1).detach()
    kl(log_p, F.log_softmax(net(adv), 1)).sum().backward()
    out["kl_attack.grad"] = adv.grad
    # A frozen teacher, in eval mode on the clean images, guides the student on the adversarial ones.
    teacher, teacher_logits = features_and_logits(tiny_resnet().double(), x.double())
    for name, (kind, distance, weight) in GUIDES.items():
        net = tiny_resnet().double().train()
        student, logits = features_and_logits(net, x_adv.double())
        u, v = (logits, teacher_logits) if kind == "logit" else (student, teacher)
        if kind == "attention":
            u, v = u.sum(1), v.sum(1)
        if kind == "features":
            u, v = u.mean((2, 3)), v.mean((2, 3))
        apart = distance(u.flatten(1), v.flatten(1).detach())
        losses = F.cross_entropy(logits, labels, reduction="none") + weight * apart
        losses.mean().backward()
        out[f"{name}.losses"] = losses
        for parameter, p in net.named_parameters():
            out[f"{name}.grad.{parameter}"] = p.grad
    # The move of AWP by the cross-entropy of the adversarial images, gamma 0.01.
    net = tiny_resnet().double().train()
    F.cross_entropy(net(x_adv.double()), labels).backward()
    for parameter, p in net.named_parameters():
        if p.dim() > 1:
            d = 0.01 * p.grad
            out[f"awp.{parameter}"] = p + 0.01 * p.norm() / (d.norm() + 1e-20) * d
    save("losses.safetensors", out)
# --- attacks that adapt --------------------------------------------------------


def threefry(key, counter):
    """Threefry-2x32-20, on arrays of counters; the twin of runtime/src/random.rs."""
    mask = 0xFFFFFFFF
    keys = [key[0], key[1], 0x1BD11BDA ^ key[0] ^ key[1]]
    x, y = [(np.asarray(c, np.uint64) + np.uint64(k)) & mask for c, k in zip(counter, keys)]
    rotations = [13, 15, 26, 6, 17, 29, 16, 24]
    for i in range(20):
        x = (x + y) & mask
        r = np.uint64(rotations[i % 8])
        y = (((y << r) | (y >> (np.uint64(32) - r))) & mask) ^ x
        if i % 4 == 3:
            j = i // 4 + 1
            x = (x + np.uint64(keys[j % 3])) & mask
            y = (y + np.uint64(keys[(j + 1) % 3] + j)) & mask
    return x, y


def subkey(key, counter):
    return [int(word) for word in threefry(key, counter)]


def attack_key(restart):
    """Of seed 0 and attacks in evaluation."""
    return subkey(subkey([0, 0], [4, 0]), [0, restart])


def words(key, shape, first=0):
    """Two words for each element, counted from `first`, of each image, whose index is its place."""
    index, position = np.meshgrid(
        np.arange(shape[0]), first + np.arange(int(np.prod(shape[1:]))), indexing="ij"
    )
    a, b = threefry(key, [index, position])
    return a.reshape(shape), b.reshape(shape)


def unit(word):
    return torch.from_numpy((word >> np.uint64(8)).astype(np.float64) / 2**24)


def uniform(key, shape, first=0):
    return unit(words(key, shape, first)[0])


def normal(key, shape):
    a, b = map(unit, words(key, shape))
    return (-2 * torch.log1p(-a)).sqrt() * torch.cos(2 * np.pi * b)


def largest_other(z, y):
    return z.scatter(1, y[:, None], -np.inf).max(1).values


def margin(z, y, _):
    return largest_other(z, y) - z.gather(1, y[:, None])[:, 0]


def dlr(z, y, _):
    top = z.sort(1, descending=True).values
    return margin(z, y, None) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(z, y, t):
    top = z.sort(1, descending=True).values
    difference = z.gather(1, t[:, None])[:, 0] - z.gather(1, y[:, None])[:, 0]
    return difference / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def cross_entropy(z, y, _):
    return F.cross_entropy(z, y, reduction="none")


def evaluate(net, loss, x, y, t):
    x = x.detach().requires_grad_()
    z = net(x)
    losses = loss(z, y, t)
    (grad,) = torch.autograd.grad(losses.sum(), x)
    return losses.detach(), grad, z.argmax(1) == y


def per_image(values):
    return values.reshape(-1, 1, 1, 1)


def inside(norm, x, eps, moved):
    if norm == "linf":
        return torch.min(torch.max(moved, x - eps), x + eps).clamp(0, 1)
    delta = moved - x
    length = norms(delta)
    return (x + delta / (length + 1e-12) * length.clamp(max=eps)).clamp(0, 1)


def along(norm, grad):
    return grad.sign() if norm == "linf" else grad / (norms(grad) + 1e-12)


def apgd(net, loss, norm, eps, x, y, t, steps, key):
    """Algorithm 1 of Croce and Hein, 2020, image by image, with the authors' constants."""
    if norm == "linf":
        noise = 2 * uniform(key, x.shape) - 1
        start = noise / noise.abs().flatten(1).max(1).values.reshape(-1, 1, 1, 1)
    else:
        noise = normal(key, x.shape)
        start = noise / norms(noise)
    now = (x + eps * start).clamp(0, 1)
    losses, grad, right = evaluate(net, loss, now, y, t)
    found = torch.where(per_image(right), x, now)
    withstood = right.clone()
    before, best, best_grad, best_loss = now, now, grad, losses
    step = torch.full_like(losses, 2 * eps)
    history, halved, at_checkpoint = [], torch.ones_like(right), losses
    window, since = max(int(0.22 * steps), 1), 0
    for i in range(steps):
        a = 1.0 if i == 0 else 0.75
        candidate = inside(norm, x, eps, now + per_image(step) * along(norm, grad))
        mixed = now + a * (candidate - now) + (1 - a) * (now - before)
        before, now = now, inside(norm, x, eps, mixed)
        losses, grad, right = evaluate(net, loss, now, y, t)
        found = torch.where(per_image(~right & withstood), now, found)
        withstood &= right
        better = losses > best_loss
        best = torch.where(per_image(better), now, best)
        best_grad = torch.where(per_image(better), grad, best_grad)
        best_loss = torch.where(better, losses, best_loss)
        # The authors compare the first loss with a zero.
        history.append((losses > (last if history else 0)).double())
        last, since = losses, since + 1
        if since == window:
            rises = torch.stack(history[-window:]).sum(0)
            halve = (rises <= 0.75 * window) | (~halved & (best_loss <= at_checkpoint))
            step = torch.where(halve, step / 2, step)
            now = torch.where(per_image(halve), best, now)
            grad = torch.where(per_image(halve), best_grad, grad)
            halved, at_checkpoint = halve, best_loss
            window, since = max(window - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)), 0
    # Where all are misclassified, the search may end early.
    assert withstood.any(), "choose labels so that one image withstands"
    return found, losses, step, grad


def square(net, eps, x, y, queries, key):
    """The Square attack in the linf ball, every image with its own squares."""
    n, c, h, w = x.shape
    sign = lambda u: torch.where(u >= 0.5, 1.0, -1.0).double()
    stripes = sign(uniform(key, (n, c, 1, w)))
    best = (x + eps * stripes).clamp(0, 1)
    value = lambda x: (lambda z: (margin(z, y, None), z.argmax(1) == y))(net(x).detach())
    best_loss, best_right = value(best)
    found, withstood = best, best_right
    for q in range(queries):
        side = max(round((0.8 / (1 if q <= 10 else 2 if q <= 50 else 4) * h * w) ** 0.5), 1)
        side = min(side, h, w)
        draw = subkey(key, [q, 0xFFFFFFFD])
        numbers = uniform(draw, (n, 2 + c))
        trial = best.clone()
        for i in range(n):
            # As f32 products, which is what a kernel has.
            top = int(np.float32(h - side) * np.float32(numbers[i, 0]))
            left = int(np.float32(w - side) * np.float32(numbers[i, 1]))
            trial[i, :, top : top + side, left : left + side] += (
                2 * eps * sign(numbers[i, 2:])[:, None, None]
            )
        trial = torch.min(torch.max(trial, x - eps), x + eps).clamp(0, 1)
        loss, right = value(trial)
        better = (~right & best_right) | ((right == best_right) & (loss > best_loss))
        best = torch.where(per_image(better), trial, best)
        best_loss = torch.where(better, loss, best_loss)
        best_right = torch.where(better, right, best_right)
        found = torch.where(per_image(withstood), best, found)
        withstood = best_right
    assert best_right.any(), "choose labels so that one image withstands"
    return found, best_loss


def pyramid(x, y):
    """The reference's `eta_rectangles`."""
    delta = np.zeros((x, y))
    for k in range(max(x // 2, y // 2) + 1):
        rows = slice(max(x // 2 - k, 0), x // 2 + k + 1)
        delta[rows, max(y // 2 - k, 0) : y // 2 + k + 1] += 1 / (k + 1) ** 2
    return delta / max(np.sqrt((delta**2).sum()), 1e-30)


def square_pattern(s):
    both = np.concatenate([pyramid(s // 2, s), -pyramid(s - s // 2, s)])
    return torch.from_numpy(both / np.sqrt((both**2).sum()))


def square_l2(net, eps, x, y, queries, key):
    """The Square attack in the l2 ball, every image with its own squares."""
    n, c, h, w = x.shape
    sign = lambda u: torch.where(u >= 0.5, 1.0, -1.0).double()
    side = max(min(h, w) // 5, 1)
    margin_at, down, across = max(h - 5 * side, 0) // 2, h // side, w // side
    numbers = uniform(key, (n, down * across * (c + 1)))
    delta, pattern = torch.zeros_like(x), square_pattern(side)
    for i in range(n):
        for tile in range(down * across):
            draw = numbers[i, tile * (c + 1) : (tile + 1) * (c + 1)]
            turned = pattern.T if draw[0] >= 0.5 else pattern
            top, left = margin_at + tile // across * side, margin_at + tile % across * side
            part = delta[i, :, top : top + side, left : left + side]
            part += (sign(draw[1:])[:, None, None] * turned)[:, : part.shape[1], : part.shape[2]]
    value = lambda x: (lambda z: (margin(z, y, None), z.argmax(1) == y))(net(x).detach())
    best = (x + eps * delta / norms(delta)).clamp(0, 1)
    best_loss, best_right = value(best)
    found, withstood = best, best_right
    for q in range(queries):
        side = max(round((0.8 / (1 if q <= 10 else 2 if q <= 50 else 4) * h * w) ** 0.5), 3)
        side = min(side + 1 - side % 2, h, w)
        numbers = uniform(subkey(key, [q, 0xFFFFFFFD]), (n, 5 + c))
        pattern, delta = square_pattern(side), best - x
        for i in range(n):
            place = lambda free, k: int(np.float32(free) * np.float32(numbers[i, k]))
            window = lambda k: (slice(r := place(h - side, k), r + side), slice(s := place(w - side, k + 1), s + side))
            first, second = window(0), window(2)
            turned = pattern.T if numbers[i, 4] >= 0.5 else pattern
            left = max(eps**2 - delta[i].square().sum(), 0) / c
            for k in range(c):
                plane = delta[i, k]
                mask = torch.zeros(h, w, dtype=bool)
                mask[first] = mask[second] = True
                old = plane[first] / (plane[first].norm() + 1e-12)
                new = sign(numbers[i, 5 + k]) * turned + old
                new = new / (new.norm() + 1e-12) * (left + plane[mask].square().sum()) ** 0.5
                plane[second] = 0
                plane[first] = new
        trial = (x + eps * delta / norms(delta)).clamp(0, 1)
        loss, right = value(trial)
        better = (~right & best_right) | ((right == best_right) & (loss > best_loss))
        best = torch.where(per_image(better), trial, best)
        best_loss = torch.where(better, loss, best_loss)
        best_right = torch.where(better, right, best_right)
        found = torch.where(per_image(withstood), best, found)
        withstood = best_right
    assert best_right.any(), "choose labels so that one image withstands"
    return found, best_loss


def onto_boundary(norm, point, base, w, offset):
    """The smallest move onto <w, point + d - base> + offset = 0 within the box, by bisection."""
    away = offset + (w * (point - base)).sum((1, 2, 3))
    down = per_image(torch.where(away >= 0, 1.0, -1.0)) * w > 0
    room = torch.where(down, point, 1 - point) * (w != 0)
    speed = w.abs() if norm == "l2" else torch.ones_like(w)
    taken = lambda reach: (w.abs() * torch.minimum(per_image(reach) * speed, room)).sum((1, 2, 3))
    low, high = torch.zeros_like(offset), torch.full_like(offset, 1e6)
    for _ in range(200):
        middle = (low + high) / 2
        short = taken(middle) < away.abs()
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    move = torch.minimum(per_image(high) * speed, room)
    return torch.where(down, -move, move)


def fab(net, norm, eps, x, y, t, steps):
    """Algorithm 1 of Croce and Hein's FAB, for one target of each image."""
    length = lambda d: d.abs().amax((1, 2, 3)) if norm == "linf" else norms(d).flatten()
    target = lambda z, y, t: z.gather(1, t[:, None])[:, 0] - z.gather(1, y[:, None])[:, 0]
    now, nearest, distance = x, x, torch.full((len(x),), 1e10).double()
    for _ in range(steps):
        f, w, _ = evaluate(net, target, now, y, t)
        own = onto_boundary(norm, now, now, w, f)
        clean = onto_boundary(norm, x, now, w, f)
        a, b = length(own).clamp(min=1e-8), length(clean).clamp(min=1e-8)
        part = per_image((a / (a + b)).clamp(max=0.1))
        now = ((now + 1.05 * own) * (1 - part) + (x + 1.05 * clean) * part).clamp(0, 1)
        wrong = net(now).detach().argmax(1) != y
        better = wrong & (length(now - x) < distance)
        nearest = torch.where(per_image(better), now, nearest)
        distance = torch.where(better, length(now - x), distance)
        now = torch.where(per_image(wrong), x + 0.9 * (now - x), now)
    return torch.where(per_image(distance <= eps), nearest, x)


def deepfool(net, norm, eps, x, y, steps):
    """DeepFool, with steps that stay in the box."""
    length = lambda d: d.abs().amax((1, 2, 3)) if norm == "linf" else norms(d).flatten()
    target = lambda z, y, t: z.gather(1, t[:, None])[:, 0] - z.gather(1, y[:, None])[:, 0]
    z = net(x).detach()
    others = z.scatter(1, y[:, None], -np.inf).argsort(1, descending=True)[:, :-1]
    now = x
    for _ in range(steps):
        moves = []
        for k in range(others.shape[1]):
            f, w, right = evaluate(net, target, now, y, others[:, k])
            moves.append(onto_boundary(norm, now, now, w, f))
        shortest = torch.stack([length(d) for d in moves]).argmin(0)
        move = torch.stack(moves)[shortest, torch.arange(len(x))]
        now = torch.where(per_image(right), (now + 1.02 * move).clamp(0, 1), now)
    found = (net(now).argmax(1) != y) & (length(now - x) <= eps)
    return torch.where(per_image(found), now, x)


def fab_untargeted(net, norm, eps, x, y, steps, start):
    """Algorithm 1 of Croce and Hein's FAB: at each step, the class whose linearised boundary is nearest."""
    length = lambda d: d.abs().amax((1, 2, 3)) if norm == "linf" else norms(d).flatten()
    dual = lambda w: w.abs().sum((1, 2, 3)) if norm == "linf" else norms(w).flatten()
    target = lambda z, y, t: z.gather(1, t[:, None])[:, 0] - z.gather(1, y[:, None])[:, 0]
    classes = net(x).shape[1]
    each = torch.arange(len(x))
    now, nearest, distance = start, x, torch.full((len(x),), 1e10).double()
    for _ in range(steps):
        found = [evaluate(net, target, now, y, (y + 1 + k) % classes)[:2] for k in range(classes - 1)]
        f, w = torch.stack([f for f, _ in found]), torch.stack([w for _, w in found])
        first = torch.stack([f.abs() / (1e-12 + dual(w)) for f, w in found]).argmin(0)
        f, w = f[first, each], w[first, each]
        own = onto_boundary(norm, now, now, w, f)
        clean = onto_boundary(norm, x, now, w, f)
        a, b = length(own).clamp(min=1e-8), length(clean).clamp(min=1e-8)
        part = per_image((a / (a + b)).clamp(max=0.1))
        now = ((now + 1.05 * own) * (1 - part) + (x + 1.05 * clean) * part).clamp(0, 1)
        wrong = net(now).detach().argmax(1) != y
        better = wrong & (length(now - x) < distance)
        nearest = torch.where(per_image(better), now, nearest)
        distance = torch.where(better, length(now - x), distance)
        now = torch.where(per_image(wrong), x + 0.9 * (now - x), now)
    return torch.where(per_image(distance <= eps), nearest, x)


def cw_l2(net, eps, x, y, target, steps, searches, c, rate):
    """Carlini and Wagner's l2 attack, image by image; `target` is None for any class but y."""
    found = x.clone()
    tried = []
    for n in range(len(x)):
        clean, label = x[n : n + 1], int(y[n] if target is None else target[n])
        start = torch.atanh((2 * clean - 1) * 0.999999)
        weight, low, high, best = c, 0.0, np.inf, np.inf
        for _ in range(searches):
            w = start.clone().requires_grad_()
            adam = torch.optim.Adam([w], lr=rate)
            before, reached = np.inf, False
            for step in range(steps):
                now = (torch.tanh(w) + 1) / 2
                z = net(now)[0]
                other = torch.cat([z[:label], z[label + 1 :]]).max()
                gap = z[label] - other if target is None else other - z[label]
                total = (now - clean).square().sum() + weight * gap.clamp(min=0)
                if step % -(-steps // 10) == 0:
                    if not total.item() <= 0.9999 * before:
                        break
                    before = total.item()
                if gap.item() < 0:
                    reached = True
                    far = (now - clean).detach().norm().item()
                    if far < best:
                        best, nearest = far, now.detach()
                adam.zero_grad()
                total.backward()
                adam.step()
            tried.append((n, weight, reached))
            low, high = (low, min(high, weight)) if reached else (max(low, weight), high)
            weight = (low + high) / 2 if np.isfinite(high) else 10 * weight
        if best <= eps:
            found[n : n + 1] = nearest
    reached = [reached for *_, reached in tried]
    assert any(reached) and not all(reached), "the search over c should go both ways"
    return found


def write_searches():
    x32, labels = batch(2)
    net = tiny_resnet().double()
    x = x32.double()
    z = net(x).detach()
    # Two images that are right and stay so, others that are wrong from the start.
    confident = (z.sort(1).values[:, -1] - z.sort(1).values[:, -2]).sort().indices[-2:]
    labels[confident] = z.argmax(1)[confident]
    # Where the label is third, the ratio of DLR is 1 whatever the logits are: its gradient is rounding.
    order = z.argsort(1, descending=True)
    labels = torch.where(order[:, 2] == labels, order[:, 1], labels)
    eps = 8 / 255
    out = {"x": x32, "labels": labels}
    key = attack_key(0)

    def keep(name, x, loss):
        out[f"{name}.x"], out[f"{name}.loss"] = x, loss

    others = z.scatter(1, labels[:, None], -np.inf).sort(1, descending=True).indices
    for name, loss, target in [
        ("apgd_ce", cross_entropy, 0),
        ("apgd_dlr", dlr, 0),
        ("apgd_t0", dlr_targeted, 0),
        ("apgd_t1", dlr_targeted, 1),
    ]:
        for norm, radius in [("linf", eps), ("l2", 0.3)]:
            found, losses, step, grad = apgd(
                net, loss, norm, radius, x, labels, others[:, target], 20, key
            )
            keep(f"{name}_{norm}", found, losses)
            out[f"{name}_{norm}.last_step"] = step
            out[f"{name}_{norm}.grad"] = grad

    momentum, now = torch.zeros_like(x), x
    for _ in range(10):
        _, grad, _ = evaluate(net, cross_entropy, now, labels, None)
        momentum = momentum + grad / grad.abs().mean((1, 2, 3), keepdim=True)
        now = inside("linf", x, eps, now + eps / 4 * momentum.sign())
    keep("mi_fgsm", now, evaluate(net, cross_entropy, now, labels, None)[0])

    # -relu(z[y] - max z[other] + 50): Carlini and Wagner's f6 as PGD maximises it.
    kappa = lambda z, y, _: -(50 - margin(z, y, None)).clamp(min=0)
    now = (x + eps * (2 * uniform(key, x.shape) - 1)).clamp(0, 1)
    for _ in range(10):
        _, grad, _ = evaluate(net, kappa, now, labels, None)
        now = inside("linf", x, eps, now + eps / 4 * grad.sign())
    keep("cw", now, evaluate(net, margin, now, labels, None)[0])

    now = (x + eps * (2 * uniform(key, x.shape) - 1)).clamp(0, 1)
    towards = lambda z, y, t: -F.cross_entropy(z, t, reduction="none")
    for _ in range(10):
        _, grad, _ = evaluate(net, towards, now, labels, others[:, 0])
        now = inside("linf", x, eps, now + eps / 4 * grad.sign())
    keep("pgd_t", now, evaluate(net, towards, now, labels, others[:, 0])[0])

    # FAB starts from images that are classified correctly, and looks for near ones at any distance.
    right = z.argmax(1)
    nearest = z.argsort(1, descending=True)[:, 1]
    out["right"] = right
    for norm, radius in [("linf", 1.0), ("l2", 20.0)]:
        found = fab(net, norm, radius, x, right, nearest, 15)
        assert (found != x).flatten(1).any(1).sum() >= 4, "most images should be found"
        out[f"fab_{norm}.x"] = found
        found = deepfool(net, norm, radius, x, right, 10)
        assert (found != x).flatten(1).any(1).sum() >= 4, "most images should be found"
        out[f"deepfool_{norm}.x"] = found
        found = fab_untargeted(net, norm, radius, x, right, 15, x)
        assert (found != x).flatten(1).any(1).sum() >= 4, "most images should be found"
        out[f"fab_any_{norm}.x"] = found
        # The second restart: from the surface of a ball of half the radius.
        key1, half = attack_key(1), radius / 2
        noise = 2 * uniform(key1, x.shape) - 1 if norm == "linf" else normal(key1, x.shape)
        size = noise.abs().amax((1, 2, 3), keepdim=True) if norm == "linf" else norms(noise)
        restart = (x + half * noise / size).clamp(0, 1)
        out[f"fab_again_{norm}.x"] = fab_untargeted(net, norm, radius, x, right, 15, restart)
    for name, target in [("cw_l2", None), ("cw_l2_t", nearest)]:
        found = cw_l2(net, 20.0, x, right, target, 40, 5, 0.03, 0.05)
        assert (found != x).flatten(1).any(1).sum() >= 4, "most images should be found"
        out[f"{name}.x"] = found

    keep("square_l2", *square_l2(net, 0.5, x, labels, 120, key))
    keep("square", *square(net, eps, x, labels, 120, key))
    save("searches.safetensors", out)


# --- single operators ----------------------------------------------------------


class Ops:
    def __init__(self):
        self.tensors = {}
        self.cases = []
        self.g = generator(4)

    def randn(self, *shape):
        return torch.randn(*shape, generator=self.g)

    def case(self, name, kind, attrs, inputs, fn, extra=None):
        """`inputs` are float32 and differentiable; `fn` sees them in float64."""
        leaves = {k: v.double().requires_grad_() for k, v in inputs.items()}
        y = fn(**leaves)
        dy = self.randn(*y.shape)
        grads = torch.autograd.grad(y, list(leaves.values()), dy.double())
        for k, v in inputs.items():
            self.tensors[f"{name}.{k}"] = v
        for k, v in (extra or {}).items():
            self.tensors[f"{name}.{k}"] = v
        self.tensors[f"{name}.y"] = y
        self.tensors[f"{name}.dy"] = dy
        for k, v in zip(leaves, grads):
            self.tensors[f"{name}.d{k}"] = v
        self.cases.append({"name": name, "kind": kind, **attrs})

    def conv(self, name, n, cin, h, w, cout, kernel, stride=1, pads=(0, 0, 0, 0),
             dilation=1, groups=1, bias=True):
        kh, kw = kernel
        top, left, bottom, right = pads
        inputs = {
            "x": self.randn(n, cin, h, w),
            "w": self.randn(cout, cin // groups, kh, kw) / (cin // groups * kh * kw) ** 0.5,
        }
        if bias:
            inputs["b"] = self.randn(cout)

        def fn(x, w, b=None):
            x = F.pad(x, (left, right, top, bottom))
            return F.conv2d(x, w, b, stride=stride, dilation=dilation, groups=groups)

        attrs = dict(kernel=list(kernel), stride=[stride, stride], pads=list(pads),
                     dilation=[dilation, dilation], groups=groups, bias=bias)
        self.case(name, "conv", attrs, inputs, fn)

    def pool(self, name, kind, shape, kernel, stride, pad=0, ceil=False, include=None,
             integers=False):
        if integers:
            x = torch.randint(-2, 3, shape, generator=self.g).float()
        else:
            x = self.randn(*shape)
        attrs = dict(kernel=[kernel, kernel], stride=[stride, stride], pads=[pad] * 4,
                     dilation=[1, 1], ceil=ceil)
        if kind == "maxpool":
            fn = lambda x: F.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil)
        else:
            attrs["count_include_pad"] = include
            fn = lambda x: F.avg_pool2d(x, kernel, stride, pad, ceil, include)
        self.case(name, kind, attrs, {"x": x}, fn)

    def batch_norm(self, name, shape, train, eps=1e-5, momentum=0.1):
        c = shape[1]
        inputs = {
            "x": self.randn(*shape) * 1.5 + 0.7,
            "w": torch.empty(c).uniform_(0.5, 1.5, generator=self.g),
            "b": self.randn(c),
        }
        mean = self.randn(c) * 0.5
        var = torch.empty(c).uniform_(0.5, 2.0, generator=self.g)
        new_mean, new_var = mean.double(), var.double()

        def fn(x, w, b):
            return F.batch_norm(x, new_mean, new_var, w, b, train, momentum, eps)

        extra = {"mean": mean, "var": var}
        attrs = dict(training=train, eps=eps, momentum=momentum)
        self.case(name, "batch_norm", attrs, inputs, fn, extra)
        if train:
            self.tensors[f"{name}.new_mean"] = new_mean
            self.tensors[f"{name}.new_var"] = new_var

    def cross_entropy(self, name, logits, labels):
        self.case(
            name, "cross_entropy", dict(classes=logits.shape[1]), {"x": logits},
            lambda x: F.cross_entropy(x, labels, reduction="none"),
            {"labels": labels, "log_softmax": F.log_softmax(logits.double(), 1)},
        )

    def gemm(self, name, n, cin, cout, bias=True):
        inputs = {"x": self.randn(n, cin), "w": self.randn(cout, cin) / cin**0.5}
        if bias:
            inputs["b"] = self.randn(cout)
        fn = lambda x, w, b=None: F.linear(x, w, b)
        self.case(name, "gemm", dict(trans_b=True, bias=bias), inputs, fn)


def write_ops():
    o = Ops()
    one = (1, 1, 1, 1)
    o.conv("conv_3x3", 2, 4, 7, 5, 8, (3, 3), 1, one)
    o.conv("conv_3x3_no_bias", 2, 4, 4, 5, 4, (3, 3), 1, one, bias=False)
    o.conv("conv_3x3_no_pad", 2, 4, 5, 6, 4, (3, 3))
    o.conv("conv_stride2", 2, 4, 6, 4, 4, (3, 3), 2, one)
    o.conv("conv_stride2_odd", 2, 4, 7, 5, 4, (3, 3), 2, one)
    o.conv("conv_1x1", 2, 8, 5, 3, 4, (1, 1))
    o.conv("conv_1x1_stride2", 2, 6, 7, 5, 4, (1, 1), 2)
    o.conv("conv_1x1_stride2_even", 2, 4, 6, 4, 8, (1, 1), 2)
    o.conv("conv_7x7_stride2", 2, 3, 9, 7, 4, (7, 7), 2, (3, 3, 3, 3))
    o.conv("conv_groups2", 2, 8, 5, 4, 4, (3, 3), 1, one, groups=2)
    o.conv("conv_groups2_stride2", 2, 6, 5, 4, 10, (3, 3), 2, one, groups=2)
    o.conv("conv_depthwise", 2, 6, 5, 4, 6, (3, 3), 1, one, groups=6)
    o.conv("conv_depthwise_x2", 2, 3, 5, 6, 6, (3, 3), 1, one, groups=3)
    o.conv("conv_dilation2", 2, 3, 7, 6, 4, (3, 3), 1, (2, 2, 2, 2), dilation=2)
    o.conv("conv_dilation2_stride2", 2, 3, 8, 7, 4, (3, 3), 2, (2, 2, 2, 2), dilation=2)
    o.conv("conv_asymmetric_pads", 2, 4, 6, 5, 4, (3, 3), 1, (1, 0, 2, 1))
    o.conv("conv_asymmetric_pads_stride2", 2, 4, 6, 5, 4, (3, 3), 2, (1, 0, 2, 1))
    o.conv("conv_3_to_5", 2, 3, 5, 6, 5, (3, 3), 1, one)
    o.conv("conv_7_to_9", 1, 7, 3, 4, 9, (3, 3), 1, one)
    o.conv("conv_batch1", 1, 4, 5, 6, 4, (3, 3), 1, one)
    o.conv("conv_batch3_1x1_output", 3, 4, 3, 3, 4, (3, 3))
    o.conv("conv_5x3", 2, 3, 6, 5, 4, (5, 3), 1, (2, 1, 2, 1))
    o.conv("conv_skip_rows", 2, 4, 8, 6, 4, (2, 2), 3)

    shape = (2, 3, 9, 7)
    o.pool("maxpool_3x3_s2_p1", "maxpool", shape, 3, 2, 1)
    o.pool("maxpool_2x2_s2", "maxpool", (2, 5, 6, 5), 2, 2)
    o.pool("maxpool_3x3_s1", "maxpool", (2, 3, 5, 6), 3, 1, 1)
    o.pool("maxpool_ceil", "maxpool", (2, 3, 8, 6), 3, 2, ceil=True)
    o.pool("maxpool_ceil_p1", "maxpool", (2, 3, 6, 7), 2, 2, 1, ceil=True)
    o.pool("maxpool_ties", "maxpool", (2, 3, 9, 7), 3, 2, 1, integers=True)
    o.pool("avgpool_3x3_s2_p1_include", "avgpool", shape, 3, 2, 1, include=True)
    o.pool("avgpool_3x3_s2_p1_exclude", "avgpool", shape, 3, 2, 1, include=False)
    o.pool("avgpool_ceil_include", "avgpool", (2, 2, 8, 6), 3, 2, 1, ceil=True, include=True)
    o.pool("avgpool_ceil_exclude", "avgpool", (2, 2, 8, 6), 3, 2, 1, ceil=True, include=False)
    o.pool("avgpool_ceil_no_pad", "avgpool", (2, 2, 8, 6), 3, 2, ceil=True, include=True)
    o.pool("avgpool_2x2", "avgpool", (2, 5, 6, 4), 2, 2, include=True)
    o.case("global_avgpool", "global_avgpool", {}, {"x": o.randn(2, 7, 5, 6)},
           lambda x: x.mean((2, 3), keepdim=True))

    o.batch_norm("batch_norm_train", (3, 5, 4, 3), True)
    o.batch_norm("batch_norm_train_eps", (2, 5, 3, 3), True, eps=1e-3, momentum=0.3)
    o.batch_norm("batch_norm_eval", (3, 5, 4, 3), False)
    o.batch_norm("batch_norm_eval_eps", (2, 5, 3, 3), False, eps=1e-3)

    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    o.cross_entropy("cross_entropy", o.randn(6, 5) * 2, labels)
    large = torch.tensor([
        [80.0, -80.0, 0.0, 1.0, 2.0],
        [80.0, -80.0, 0.0, 1.0, -80.0],
        [80.0, 80.0, 80.0, -80.0, 0.0],
        [-80.0, -80.0, -80.0, -80.0, -80.0],
        [0.0, 80.0, 79.0, 78.0, 79.5],
        [-80.0, -79.0, -80.0, 80.0, 0.5],
    ])
    o.cross_entropy("cross_entropy_large", large, labels)
    o.cross_entropy("cross_entropy_260", o.randn(2, 260) * 4, torch.tensor([259, 17]))

    o.gemm("gemm", 6, 16, 5)
    o.gemm("gemm_no_bias", 3, 7, 10, bias=False)
    o.gemm("gemm_batch1", 1, 33, 17)

    x = o.randn(2, 4, 5, 3)
    x[0, 0] = 0.0
    o.case("relu", "relu", {}, {"x": x}, lambda x: F.relu(x))

    save("ops.safetensors", o.tensors)
    lines = ",\n".join("  " + json.dumps(c) for c in o.cases)
    (OUT / "ops.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    write_onnx()
    write_tiny_resnet()
    write_training()
    write_attacks()
    write_losses()
    write_searches()
    write_ops()

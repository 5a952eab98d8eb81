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


OUT.mkdir(parents=True, exist_ok=True)
write_onnx()
write_tiny_resnet()
write_training()
write_attacks()
write_losses()
write_ops()

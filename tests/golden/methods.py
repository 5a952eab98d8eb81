"""Writes the reference values of training methods: what `generate.py` does for the rest.

    python methods.py [output folder, default: this one]

Written from the papers. The adversaries start from the random numbers of `runtime/src/random.rs`.
"""

import torch
import torch.nn.functional as F

from generate import attack_key, batch, kl, norms, normal, per_image, save, tiny_resnet, uniform


def gradient(net, adv, loss):
    adv = adv.detach().requires_grad_()
    logits = net(adv)
    (grad,) = torch.autograd.grad(loss(logits).sum(), adv)
    return grad, logits.detach()


def dra(net, x, y, eps, steps, part):
    """Algorithm 1 with the mean norm; the mask and the clip come last."""
    cross_entropy = lambda z: F.cross_entropy(z, y, reduction="none")
    now = x
    for _ in range(steps):
        grad, _ = gradient(net, now, cross_entropy)
        now = now + eps / steps * grad / grad.abs().mean((1, 2, 3), keepdim=True)
    grad, _ = gradient(net, now, cross_entropy)
    size = grad.abs().flatten(1)
    keep = round(part * size.shape[1])
    order = size.argsort(dim=1, descending=True, stable=True)
    # Rounding must not decide which element is the last.
    last = size.gather(1, order[:, keep - 1 : keep + 1])
    assert (last[:, 0] > last[:, 1] * (1 + 1e-4)).all(), last
    mask = torch.zeros_like(size).scatter(1, order[:, :keep], 1).reshape(x.shape).bool()
    return torch.where(mask, now, x).clamp(0, 1)


def friendly(net, x, y, eps, step, steps, tau, omega, start, objective):
    """Algorithm 1: one image at a time, which stops when it is misclassified and its tau is spent."""
    found, taken = [], []
    for n in range(len(x)):
        clean, label = x[n : n + 1], y[n : n + 1]
        log_p = F.log_softmax(net(clean), 1).detach()
        if objective == "kl":
            loss = lambda z: kl(log_p, F.log_softmax(z, 1))
        else:
            loss = lambda z: F.cross_entropy(z, label, reduction="none")
        now, left, moves = start[n : n + 1], tau, 0
        for k in range(steps):
            grad, logits = gradient(net, now, loss)
            if logits.argmax(1) != label:
                if left == 0:
                    break
                left -= 1
            noise = normal(attack_key(1 + k), x.shape)[n : n + 1]
            now = now + step * grad.sign() + omega * noise
            now = torch.min(torch.max(now, clean - eps), clean + eps).clamp(0, 1)
            moves += 1
        found.append(now)
        taken.append(moves)
    return torch.cat(found), torch.tensor(taken)


def doubtful():
    """The network with a last bias that makes all classes equally likely on average."""
    net = tiny_resnet().double()
    with torch.no_grad():
        net.fc.bias -= net(batch(2)[0].double()).mean(0)
        # The runtime has the bias in float32.
        net.fc.bias.copy_(net.fc.bias.float().double())
    return net


def write_adversaries():
    x32, y = batch(2)
    x, net = x32.double(), tiny_resnet().double()
    out = {"x": x32, "labels": y}
    for steps in (1, 5):
        out[f"dra.{steps}"] = dra(net, x, y, 8 / 255, steps, 1 / 3)
    noise = 2 * uniform(attack_key(0), x.shape) - 1
    near = (x + 0.001 * normal(attack_key(0), x.shape)).clamp(0, 1)
    eps, step = 4 / 255, 0.5 / 255
    anywhere = (x + eps * noise).clamp(0, 1)
    # A network that is in doubt, with the labels that it gives: images have something to lose, and can.
    net = doubtful()
    right = net(x).argmax(1)
    out["right"], out["doubtful.bias"] = right, net.fc.bias
    for name, tau, omega, start, objective in [
        ("ce.0", 0, 0.0, anywhere, "ce"),
        ("ce.1", 1, 0.001, anywhere, "ce"),
        ("kl.2", 2, 0.0, near, "kl"),
    ]:
        found, taken = friendly(net, x, right, eps, step, 10, tau, omega, start, objective)
        assert 0 < taken.min() < taken.max(), taken
        out[f"friendly.{name}"] = found
        out[f"friendly.{name}.steps"] = taken
    wide = (x + 2 * eps * noise).clamp(0, 1)
    grad, _ = gradient(net, wide, lambda z: F.cross_entropy(z, right, reduction="none"))
    out["n_fgsm"] = (wide + eps * grad.sign()).clamp(0, 1)
    save("adversaries.safetensors", out)


if __name__ == "__main__":
    write_adversaries()

"""Writes what the attacks by plain steps find: from the runtime's own random numbers, in both norms.

    python plain_attacks.py [output folder, default: this one]
"""

import torch

from generate import (
    F,
    along,
    attack_key,
    batch,
    cross_entropy,
    evaluate,
    inside,
    margin,
    normal,
    norms,
    per_image,
    save,
    tiny_resnet,
    uniform,
    words,
)

STEPS = 5
RADII = {"linf": 8 / 255, "l2": 0.4}


def towards(z, y, t):
    return -F.cross_entropy(z, t, reduction="none")


def carlini_wagner(z, y, t):
    """-relu(z[y] - max z[other] + 50), f6 with kappa = 50."""
    return -(50 - margin(z, y, None)).clamp(min=0)


def random_start(norm, key, x, eps):
    if norm == "linf":
        return (x + eps * (2 * uniform(key, x.shape) - 1)).clamp(0, 1)
    noise = normal(key, x.shape)
    length = eps * uniform(key, (len(x), 1, 1, 1), first=0xFFFFFFFF)
    return (x + length * noise / (norms(noise) + 1e-10)).clamp(0, 1)


def random_targets(key, labels, classes):
    """One of the classes but the label for each image."""
    high, low = (w.reshape(-1) for w in words(key, (len(labels), 1), first=0xFFFFFFFE))
    drawn = [((int(a) << 32 | int(b)) * (classes - 1)) >> 64 for a, b in zip(high, low)]
    return torch.tensor([k + (k >= int(y)) for k, y in zip(drawn, labels)])


def main():
    x32, labels = batch(2)
    net = tiny_resnet().double()
    x = x32.double()
    z = net(x).detach()
    first = z.scatter(1, labels[:, None], -torch.inf).argmax(1)
    out = {"x": x32, "labels": labels}

    for norm, eps in RADII.items():

        def search(loss, start, target=None, steps=STEPS, step=eps / 4):
            now = start
            for _ in range(steps):
                grad = evaluate(net, loss, now, labels, target)[1]
                now = inside(norm, x, eps, now + step * along(norm, grad))
            return now

        def keep(name, found):
            out[f"{name}_{norm}"] = found

        start = random_start(norm, attack_key(0), x, eps)
        keep("fgsm", search(cross_entropy, x, steps=1, step=eps))
        keep("bim", search(cross_entropy, x))
        keep("pgd", search(cross_entropy, start))
        near = inside(norm, x, eps, x + 1e-3 * normal(attack_key(0), x.shape))
        keep("pgd_normal", search(cross_entropy, near))
        keep("pgd_t", search(towards, start, first))
        chosen = random_targets(attack_key(0), labels, z.shape[1])
        assert (chosen != labels).all() and (chosen != first).any()
        keep("pgd_random_target", search(towards, start, chosen))
        keep("cw", search(carlini_wagner, start))

        momentum, now = torch.zeros_like(x), x
        for _ in range(STEPS):
            grad = evaluate(net, cross_entropy, now, labels, None)[1]
            momentum = momentum + grad / grad.abs().mean((1, 2, 3), keepdim=True)
            now = inside(norm, x, eps, now + eps / 4 * along(norm, momentum))
        keep("mi_fgsm", now)

        # The worst of three restarts for each image: one that is misclassified, or else the one with the
        # highest loss.
        worst = None
        took = torch.zeros(len(x), dtype=torch.int64)
        for restart in range(3):
            found = search(cross_entropy, random_start(norm, attack_key(restart), x, eps), steps=2)
            loss, _, right = evaluate(net, cross_entropy, found, labels, None)
            if worst is None:
                worst = found, loss, right
                continue
            better = (~right & worst[2]) | ((right == worst[2]) & (loss > worst[1]))
            took = torch.where(better, restart, took)
            choose = lambda new, old: torch.where(better if new.dim() == 1 else per_image(better), new, old)
            worst = tuple(choose(new, old) for new, old in zip((found, loss, right), worst))
        assert len(set(took.tolist())) > 1, "restarts should differ in which is the worst"
        keep("pgd_restarts", worst[0])

    save("plain_attacks.safetensors", out)


if __name__ == "__main__":
    main()

"""Writes the reference values of training methods: what `generate.py` does for the rest.

    python methods.py [output folder, default: this one]

Written from the papers. The adversaries start from the random numbers of `runtime/src/random.rs`.
"""

import numpy as np
import torch
import torch.nn.functional as F

from generate import (
    attack_key,
    batch,
    kl,
    normal,
    per_image,
    save,
    subkey,
    threefry,
    tiny_resnet,
    uniform,
    unit,
)


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


def doubtful(part=1.0):
    """The network with a last bias that makes all classes equally likely on average, or nearly so."""
    net = tiny_resnet().double()
    with torch.no_grad():
        net.fc.bias -= part * net(batch(2)[0].double()).mean(0)
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
    eps, step = 4 / 255, 0.5 / 255
    anywhere = (x + eps * noise).clamp(0, 1)
    # A network that is in doubt, with the labels that it gives: images have something to lose, and can.
    net = doubtful()
    right = net(x).argmax(1)
    out["right"], out["doubtful.bias"] = right, net.fc.bias
    for name, tau, omega, start, objective in [
        ("ce.0", 0, 0.0, anywhere, "ce"),
        ("ce.1", 1, 0.001, anywhere, "ce"),
        ("kl.2", 2, 0.0, anywhere, "kl"),
    ]:
        found, taken = friendly(net, x, right, eps, step, 10, tau, omega, start, objective)
        assert 0 < taken.min() < taken.max(), taken
        out[f"friendly.{name}"] = found
        out[f"friendly.{name}.steps"] = taken
    wide = (x + 2 * eps * noise).clamp(0, 1)
    grad, _ = gradient(net, wide, lambda z: F.cross_entropy(z, right, reduction="none"))
    out["n_fgsm"] = (wide + eps * grad.sign()).clamp(0, 1)
    save("adversaries.safetensors", out)


# --- whole runs ------------------------------------------------------------------

SHUFFLE, TRAINING_ATTACK, MIXUP = 2, 5, 7
COUNT, BATCH, EPOCHS, RATE = 12, 6, 2, 0.05
EPS, STEP, STEPS = 8 / 255, 4 / 255, 2
PART = 0.2


def stream(purpose, major, minor):
    """The key of `Stream::new` with seed 0."""
    return subkey(subkey([0, 0], [purpose, 0]), [major, minor])


def below(key, index, position, bound):
    a, b = subkey(key, [index, position])
    return ((a << 32 | b) * bound) >> 64


def permutation(key, count):
    order = list(range(count))
    for i in range(count - 1, 0, -1):
        j = below(key, i, 0, i + 1)
        order[i], order[j] = order[j], order[i]
    return order


def numbers(key, indices, shape):
    """Two words for each element of the images with these indices."""
    length = int(np.prod(shape[1:]))
    index, position = np.meshgrid(np.asarray(indices), np.arange(length), indexing="ij")
    a, b = threefry(key, [index, position])
    return a.reshape(shape), b.reshape(shape)


def uniform_of(key, indices, shape):
    return 2 * unit(numbers(key, indices, shape)[0]) - 1


def normal_of(key, indices, shape):
    a, b = map(unit, numbers(key, indices, shape))
    return (-2 * torch.log1p(-a)).sqrt() * torch.cos(2 * np.pi * b)


def start():
    """What runs start from: in doubt, but with answers."""
    return doubtful(PART)


def data():
    g = torch.Generator().manual_seed(11)
    pixels = torch.randint(0, 256, (COUNT, 3, 9, 11), generator=g)
    # f32(byte) / 255, which is what the runtime has.
    x = (pixels.float() / 255).double()
    labels = torch.randint(0, 5, (COUNT,), generator=g)
    # Most images are classified correctly: they have a margin to lose.
    labels[:9] = start()(x[:9]).argmax(1)
    return pixels, x, labels


def epochs():
    """Number of the epoch, of the batch within it, and the indices of its images."""
    for epoch in range(EPOCHS):
        order = permutation(stream(SHUFFLE, epoch, 0), COUNT)
        for number, first in enumerate(range(0, COUNT, BATCH)):
            yield epoch, number, torch.tensor(order[first : first + BATCH])


def project(moved, x, eps):
    return torch.min(torch.max(moved, x - eps), x + eps).clamp(0, 1)


def pgd(net, x, start, loss, eps, step, steps):
    """In eval mode, by the sum of the losses; eps and step may be those of each image."""
    mode = net.training
    net.eval()
    now = start
    for _ in range(steps):
        grad, _ = gradient(net, now, loss)
        now = project(now + step * grad.sign(), x, eps)
    net.train(mode)
    return now


def random_start(x, eps, epoch, indices):
    noise = uniform_of(stream(TRAINING_ATTACK, epoch, 0), indices, x.shape)
    return (x + eps * noise).clamp(0, 1)


def losses_of(y):
    return lambda z: F.cross_entropy(z, y, reduction="none")


def training(method, *parts):
    """Runs `method` and returns the network and the optimiser's other networks."""
    net = start().train()
    opt = torch.optim.SGD([p for n in (net, *parts) for p in n.parameters()], lr=RATE, momentum=0.9)
    _, x, y = data()
    for epoch, number, indices in epochs():
        method(net, opt, x[indices], y[indices], epoch, number, indices)
    return net


def descend(opt, loss):
    opt.zero_grad()
    loss.backward()
    opt.step()


def free():
    """Algorithm 1 of Shafahi et al., 2019, with m = STEPS; delta within the box of its image."""
    delta = torch.zeros(BATCH, 3, 9, 11, dtype=torch.float64)

    def method(net, opt, x, y, epoch, number, indices):
        for _ in range(STEPS):
            adv = (x + delta).clamp(0, 1).requires_grad_()
            descend(opt, F.cross_entropy(net(adv), y))
            delta.copy_(project(adv.detach() + EPS * adv.grad.sign(), x, EPS) - x)

    return training(method)


def atta():
    """Zheng et al., 2020, without augmentation: one step an epoch from where the last one ended."""
    moves = torch.zeros(COUNT, 3, 9, 11, dtype=torch.float64)

    def method(net, opt, x, y, epoch, number, indices):
        if epoch == 0:
            key = stream(TRAINING_ATTACK, epoch, 0)
            moves[indices] = 1e-3 * normal_of(key, indices, x.shape)
        start = (x + moves[indices]).clamp(0, 1)
        adv = pgd(net, x, start, losses_of(y), EPS, STEP, 1)
        moves[indices] = adv - x
        descend(opt, F.cross_entropy(net(adv), y))

    return training(method)


def yopo():
    """YOPO-2-2 of Zhang et al., 2019: Algorithm 1, the weights of the first layer by the Hamiltonian alone."""

    def rest(net, x):
        x = net.layer2(net.layer1(F.relu(net.bn1(x))))
        return net.fc(torch.flatten(net.pool(x), 1))

    def method(net, opt, x, y, epoch, number, indices):
        adv = random_start(x, EPS, epoch, indices)
        opt.zero_grad()
        for _ in range(STEPS):
            out = net.conv1(adv).detach().requires_grad_()
            F.cross_entropy(rest(net, out), y).backward()
            hamiltonian = lambda images: (net.conv1(images) * out.grad).sum()
            for _ in range(2):
                adv.requires_grad_()
                (grad,) = torch.autograd.grad(hamiltonian(adv), adv)
                adv = project(adv.detach() + STEP * grad.sign(), x, EPS)
            hamiltonian(adv).backward()
        opt.step()

    return training(method)


def mixture(epoch, number, which):
    key = stream(MIXUP, epoch, 2 * number + which)
    share = (subkey(key, [0xFFFFFFFF, 0])[0] >> 8) / 2**24
    return share, permutation(key, BATCH)


def mixed_losses(share, y, others):
    return lambda z: share * losses_of(y)(z) + (1 - share) * losses_of(y[others])(z)


def mixup_at():
    """The mixtures are attacked, by the loss of both labels."""

    def method(net, opt, x, y, epoch, number, indices):
        share, others = mixture(epoch, number, 0)
        x = share * x + (1 - share) * x[others]
        loss = mixed_losses(share, y, others)
        adv = pgd(net, x, random_start(x, EPS, epoch, indices), loss, EPS, STEP, STEPS)
        descend(opt, loss(net(adv)).mean())

    return training(method)


def interpolated_at():
    """Algorithm 1 of Lamb et al., 2019: attacked first, then mixed apart."""

    def method(net, opt, x, y, epoch, number, indices):
        adv = pgd(net, x, random_start(x, EPS, epoch, indices), losses_of(y), EPS, STEP, STEPS)
        halves = []
        # The clean images pass first: they are the first to move the running statistics.
        for which, images in ((1, x), (0, adv)):
            share, others = mixture(epoch, number, which)
            images = share * images + (1 - share) * images[others]
            halves.append(mixed_losses(share, y, others)(net(images)).mean())
        descend(opt, (halves[0] + halves[1]) / 2)

    return training(method)


def soft_margin(z, y):
    others = z.scatter(1, y[:, None], -np.inf)
    return others.logsumexp(1) - z.gather(1, y[:, None])[:, 0]


def mma():
    """Ding et al., 2020, with the search of the authors' code; the margin of the clean image in eval mode."""
    smallest, largest = 0.005, 1.05 * EPS
    known = torch.full((COUNT,), smallest, dtype=torch.float64)

    def method(net, opt, x, y, epoch, number, indices):
        net.eval()
        margin = lambda images: soft_margin(net(images).detach(), y)
        right = margin(x) < 0
        start = known[indices].clamp(min(smallest, largest), largest)
        ball = per_image(torch.where(right, start, 0))
        step = 2.5 * ball / STEPS
        adv = pgd(net, x, random_start(x, ball, epoch, indices), losses_of(y), ball, step, STEPS)
        direction = adv - x
        low, high = torch.zeros_like(start), torch.full_like(start, largest)
        radius, now = start, margin(adv)
        for _ in range(10):
            low = torch.where(now < 0, torch.maximum(low, radius), low)
            high = torch.where(now >= 0, torch.minimum(high, radius), high)
            radius = (low + high) / 2
            adv = (x + per_image(radius / start) * direction).clamp(0, 1)
            now = margin(adv)
        known[indices] = torch.where(right, radius, 0)
        counts = (~right | (radius < EPS)).double()
        net.train()
        clean = losses_of(y)(net(x)).mean()
        descend(opt, clean / 3 + 2 / 3 * (counts * losses_of(y)(net(adv))).mean())

    net = training(method)
    # Images of each kind: wrong, near the boundary, far from it.
    assert (known == 0).any() and ((known > 0) & (known < EPS)).any(), known
    return net, known


def lbgat(beta):
    """Cui et al., 2021; the attack is PGD."""
    partner = start().train()

    def method(net, opt, x, y, epoch, number, indices):
        adv = pgd(net, x, random_start(x, EPS, epoch, indices), losses_of(y), EPS, STEP, STEPS)
        natural = partner(x)
        clean = net(x) if beta > 0 else None
        z = net(adv)
        loss = F.cross_entropy(natural, y) + F.mse_loss(z, natural)
        if beta > 0:
            loss = loss + beta * kl(F.log_softmax(clean, 1), F.log_softmax(z, 1)).mean()
        descend(opt, loss)

    return training(method, partner)


def guided():
    """Pooled features held near those of the start, by an attack that raises half of that term, too."""
    teacher, weight = start().eval(), 20.0

    def features(net, x):
        x = net.layer2(net.layer1(F.relu(net.bn1(net.conv1(x)))))
        return torch.flatten(net.pool(x), 1)

    def method(net, opt, x, y, epoch, number, indices):
        target = features(teacher, x).detach()

        def terms(images):
            found = features(net, images)
            return losses_of(y)(net.fc(found)), weight * (1 - F.cosine_similarity(found, target).abs())

        def attack(part):
            now = random_start(x, EPS, epoch, indices)
            for _ in range(STEPS):
                now.requires_grad_()
                loss, distance = terms(now)
                (grad,) = torch.autograd.grad((loss + part * distance).sum(), now)
                now = project(now.detach() + STEP * grad.sign(), x, EPS)
            return now

        net.eval()
        adv = attack(0.5)
        # Another one than without the guide.
        assert (adv - attack(0.0)).abs().max() > STEP / 2
        net.train()
        loss, distance = terms(adv)
        descend(opt, (loss + distance).mean())

    return training(method)


def statistics(net, x):
    """Sets the running statistics of BatchNorm to those of all images, which come in batches."""
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    found = {norm: [] for norm in norms}
    for norm in norms:
        norm.momentum = 1.0
    net.train()
    for part in x.split(BATCH):
        with torch.no_grad():
            net(part)
        for norm in norms:
            found[norm].append((norm.running_mean.clone(), norm.running_var.clone()))
    for norm in norms:
        mean = sum(m for m, _ in found[norm]) / len(found[norm])
        square = sum(v + m * m for m, v in found[norm]) / len(found[norm])
        norm.running_mean, norm.running_var = mean, square - mean * mean


def averaged():
    """SWA from the first epoch on: the mean of the weights after each, with statistics of its own."""
    kept = []

    def method(net, opt, x, y, epoch, number, indices):
        descend(opt, F.cross_entropy(net(x), y))
        if number == COUNT // BATCH - 1:
            kept.append({k: v.clone() for k, v in net.state_dict().items()})

    net = training(method)
    net.load_state_dict({k: sum(state[k] for state in kept) / len(kept) for k in kept[0]})
    statistics(net, data()[1])
    return net


def write_runs():
    pixels, _, y = data()
    out = {"pixels": pixels, "labels": y, "bias": start().fc.bias}
    net, margins = mma()
    out["mma.margins"] = margins
    for name, net in {
        "free": free(),
        "atta": atta(),
        "yopo": yopo(),
        "mixup-at": mixup_at(),
        "interpolated-at": interpolated_at(),
        "mma": net,
        "lbgat": lbgat(0.0),
        "lbgat-6": lbgat(6.0),
        "guided": guided(),
        "swa": averaged(),
    }.items():
        state = net if isinstance(net, dict) else net.state_dict()
        for key, value in state.items():
            if "num_batches" not in key:
                out[f"{name}.{key}"] = value
    save("runs.safetensors", out)


if __name__ == "__main__":
    write_runs()
    write_adversaries()

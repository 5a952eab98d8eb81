"""Values of the tests in projection.rs, by other ways through numpy: SVD for principal components, the eigenvectors of
inverse(within) between for discriminants.

    python projection.py
"""

import numpy as np


def features(images, size):
    return np.array([[((7 * i * i + 3 * i + 11 * k * k + 5 * i * k) % 17) / 4 + (i % 3) * (k % 4) / 2
                      for k in range(size)] for i in range(images)])


def upright(axes):
    largest = np.abs(axes).argmax(axis=0)
    return axes * np.sign(axes[largest, np.arange(axes.shape[1])])


def pca(rows, count):
    mean = rows.mean(axis=0)
    _, values, vectors = np.linalg.svd(rows - mean, full_matrices=False)
    kept = values**2 > values[0] ** 2 * 1e-10
    return mean, upright(vectors[kept][:count].T)


def lda(rows, labels, count):
    mean = rows.mean(axis=0)
    size = rows.shape[1]
    within, between = np.zeros((size, size)), np.zeros((size, size))
    for c in np.unique(labels):
        own = rows[labels == c]
        within += np.cov(own.T, bias=True) * len(own) / len(rows)
        away = own.mean(axis=0) - mean
        between += np.outer(away, away) * len(own) / len(rows)
    within = 0.9 * within + 0.1 * np.trace(within) / size * np.eye(size)
    values, vectors = np.linalg.eig(np.linalg.inv(within) @ between)
    vectors = np.real(vectors[:, np.argsort(-np.real(values))[:count]])
    # Of length one by the scatter within classes.
    vectors /= np.sqrt(np.diag(vectors.T @ within @ vectors))
    return mean, upright(vectors)


def view(rows, labels):
    for step in (lambda r: pca(r, min(64, len(r) - 1)), lambda r: lda(r, labels, len(np.unique(labels)) - 1),
                 lambda r: pca(r, 2)):
        mean, axes = step(rows)
        rows = (rows - mean) @ axes
    return rows


if __name__ == "__main__":
    np.set_printoptions(precision=8, suppress=True, linewidth=110, floatmode="fixed")
    for images, size in [(12, 5), (9, 14)]:
        labels = np.arange(images) % 3
        print(images, size)
        print("pca", ((features(images, size) - pca(features(images, size), 2)[0]) @ pca(features(images, size), 2)[1])[[0, 1, -1]].tolist())
        print("view", view(features(images, size), labels)[[0, 1, -1]].tolist())

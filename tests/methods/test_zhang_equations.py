"""Zhang et al. 2020, Eq. 2, 4 to 9 over a batch of triplets: values and gradients against plain loops from the text.

The loops share nothing with the package: they hold lists of floats, and their gradients are written out by hand.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cxrfast.methods import Zhang

TRIPLETS, CLASSES, FEATURES, SIZE = 5, 4, 6, 7
RELATIVE = 1e-9


class Features(nn.Module):
    """In place of DenseNet-121: the maps g themselves, so that the loss can be differentiated by them."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shape = (3 * TRIPLETS, FEATURES, SIZE, SIZE)
        self.g = nn.Parameter(torch.rand(shape, generator=generator, dtype=torch.float64) * 2)

    def forward_features(self, images):
        return self.g


def method(seed=0, **options):
    names = [f"class {c}" for c in range(CLASSES)]
    result = Zhang(names, 64, Zhang.Options(backbone="densenet_nano", **options))
    generator = torch.Generator().manual_seed(seed + 100)
    result.network.backbone = Features(seed)
    for name in ("network.classifier", "verifier"):
        layer = nn.Linear(FEATURES, CLASSES, bias=options.get("bias", True))
        for parameter in layer.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if name == "verifier":
            result.verifier = layer if options.get("verification", 1.0) else None
        else:
            result.network.classifier = layer
    return result.double()


def labels(seed=0):
    """An anchor without a finding, one with all, and others; positives and negatives that no cross-entropy may see."""
    y = np.random.default_rng(seed).integers(0, 2, (3 * TRIPLETS, CLASSES)).astype(float)
    y[0], y[1] = 0, 1
    return y


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def log_loss(z, y):
    p = sigmoid(z)
    return -(y * math.log(p) + (1 - y) * math.log(1 - p))


def rectangle(g, w, classes, level):
    """Eq. 6 and 7: rows and columns of the box around what is over `level` of the normalised map, ends included."""
    m = [[0.0] * SIZE for _ in range(SIZE)]
    for a in range(SIZE):
        for b in range(SIZE):
            for c in classes:
                for k in range(FEATURES):
                    m[a][b] += w[c][k] * g[k][a][b]
    flat = [value for row in m for value in row]
    low, high = min(flat), max(flat)
    over = [(a, b) for a in range(SIZE) for b in range(SIZE) if high > low and (m[a][b] - low) / (high - low) > level]
    if not over:
        return range(SIZE), range(SIZE)
    rows, columns = [a for a, _ in over], [b for _, b in over]
    return range(min(rows), max(rows) + 1), range(min(columns), max(columns) + 1)


class Loops:
    """Eq. 9 per anchor, and its gradients by g, W_G and V and their biases, term by term."""

    def __init__(self, g, w, w0, v, v0, y, *, anchors_only, triplet, verification, margin, level, top):
        self.g, self.y = g, y
        self.grad = {
            "g": np.zeros_like(g), "w": np.zeros_like(w), "w0": np.zeros(CLASSES),
            "v": np.zeros_like(w), "v0": np.zeros(CLASSES),
        }  # fmt: skip
        self.value = 0.0
        self.f = [[sum(g[n][k].ravel().tolist()) / SIZE**2 for k in range(FEATURES)] for n in range(3 * TRIPLETS)]
        seen = TRIPLETS if anchors_only and triplet else 3 * TRIPLETS
        for n in range(seen):
            everywhere = range(SIZE), range(SIZE)
            z = self.classify(n, w, w0, everywhere, "w", 1 / seen)  # Eq. 2
            if not verification:
                continue
            shown = [c for c in range(CLASSES) if y[n][c] == 1]
            if not shown and top:
                shown = [z.index(max(z))]
            self.classify(n, v, v0, rectangle(g[n], w, shown, level), "v", verification / seen)  # Eq. 8
        if triplet:
            for i in range(TRIPLETS):
                self.pull(i, TRIPLETS + i, 2 * TRIPLETS + i, margin, triplet / TRIPLETS)

    def classify(self, n, w, w0, region, name, weight):
        """A cross-entropy of one image, from its features inside a region, the others being zero."""
        rows, columns = region
        inside = [
            sum(self.g[n][k][a][b] for a in rows for b in columns) / SIZE**2 for k in range(FEATURES)
        ]  # f or f′  # fmt: skip
        logits = []
        for c in range(CLASSES):
            z = w0[c] + sum(w[c][k] * inside[k] for k in range(FEATURES))
            logits.append(z)
            self.value += weight * log_loss(z, self.y[n][c])
            slope = weight * (sigmoid(z) - self.y[n][c])  # of the loss by z
            self.grad[f"{name}0"][c] += slope
            for k in range(FEATURES):
                self.grad[name][c][k] += slope * inside[k]
                for a in rows:
                    for b in columns:
                        self.grad["g"][n][k][a][b] += slope * w[c][k] / SIZE**2
        return logits

    def pull(self, anchor, positive, negative, margin, weight):
        """Eq. 4 of one triplet."""
        near = math.dist(self.f[anchor], self.f[positive])
        far = math.dist(self.f[anchor], self.f[negative])
        if near - far + margin <= 0:
            return
        self.value += weight * (near - far + margin)
        for k in range(FEATURES):
            to_near = weight * (self.f[anchor][k] - self.f[positive][k]) / near / SIZE**2
            to_far = weight * (self.f[anchor][k] - self.f[negative][k]) / far / SIZE**2
            self.grad["g"][anchor, k] += to_near - to_far
            self.grad["g"][positive, k] -= to_near
            self.grad["g"][negative, k] += to_far


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"classified": "all"},
        {"bias": False},
        {"without_finding": "whole"},
        {"margin": 0.05, "triplet": 0.7, "verification": 1.3, "region_level": 0.5},
        {"verification": 0.0},
        {"triplet": 0.0},
        {"triplet": 0.0, "verification": 0.0},
    ],
    ids=str,
)
def test_equation_9_and_its_gradients(options, seed):
    network, y = method(seed, **options), labels(seed)
    classifiers = {"w": network.network.classifier, "v": network.verifier}
    arrays = {}
    for name, layer in classifiers.items():
        arrays[name] = layer.weight.detach().numpy() if layer is not None else np.zeros((CLASSES, FEATURES))
        has_bias = layer is not None and layer.bias is not None
        arrays[f"{name}0"] = layer.bias.detach().numpy() if has_bias else np.zeros(CLASSES)
    g = network.network.backbone.g
    expected = Loops(
        g.detach().numpy(),
        arrays["w"],
        arrays["w0"],
        arrays["v"],
        arrays["v0"],
        y,
        anchors_only=options.get("classified", "anchors") == "anchors",
        triplet=options.get("triplet", 1.0),
        verification=options.get("verification", 1.0),
        margin=options.get("margin", 0.5),
        level=options.get("region_level", 0.8),
        top=options.get("without_finding", "top") == "top",
    )
    loss = network.loss(network(torch.zeros(3 * TRIPLETS, 1, 64, 64), "classifiers"), {"labels": torch.from_numpy(y)})
    loss.backward()
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected.value, rel=RELATIVE)
    assert expected.value > 0.1
    found = {"g": g.grad}
    for name, layer in classifiers.items():
        if layer is not None:
            found[name] = layer.weight.grad
            if layer.bias is not None:
                found[f"{name}0"] = layer.bias.grad
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient.numpy(), expected.grad[name], rtol=RELATIVE, atol=1e-12, err_msg=name)
        assert np.abs(expected.grad[name]).max() > 1e-4


def test_positives_and_negatives_reach_the_triplet_loss_only():
    """With the hinge closed, two thirds of the batch have no gradient."""
    network, y = method(margin=0.0), labels()
    with torch.no_grad():  # positives are their anchors
        g = network.network.backbone.g
        g[TRIPLETS : 2 * TRIPLETS] = g[:TRIPLETS]
    network.loss(network(torch.zeros(1), "classifiers"), {"labels": torch.from_numpy(y)}).backward()
    reached = network.network.backbone.g.grad.abs().amax(dim=(1, 2, 3)) > 0
    assert reached.tolist() == [True] * TRIPLETS + [False] * 2 * TRIPLETS


def test_an_image_without_a_triplet_is_classified_and_adds_nothing_to_equation_5():
    network, y = method(margin=5.0), labels()
    output = network(torch.zeros(1), "classifiers")
    index = torch.arange(3 * TRIPLETS)
    whole = network.loss(output, {"labels": torch.from_numpy(y), "index": index})
    alone = index.clone()
    alone[[TRIPLETS + 2, 2 * TRIPLETS + 2]] = 2
    without = network.loss(output, {"labels": torch.from_numpy(y), "index": alone})
    f = output.features.detach().numpy()
    hinge = math.dist(f[2], f[TRIPLETS + 2]) - math.dist(f[2], f[2 * TRIPLETS + 2]) + 5.0
    assert hinge > 0
    assert (whole - without).item() == pytest.approx(hinge / TRIPLETS, rel=RELATIVE)
    none = network.loss(output, {"labels": torch.from_numpy(y), "index": torch.arange(TRIPLETS).repeat(3)})
    assert none.item() == pytest.approx(
        method(triplet=0.0)
        .loss(
            output._replace(**{n: None if x is None else x[:TRIPLETS] for n, x in output._asdict().items()}),
            {"labels": torch.from_numpy(y[:TRIPLETS])},
        )
        .item(),
        rel=RELATIVE,
    )


def test_the_regions_of_the_loops_differ():
    """Else Eq. 7 would not be tested."""
    g, w = Features(0).g.detach().numpy(), method().network.classifier.weight.detach().numpy()
    boxes = {tuple(map(tuple, rectangle(g[n], w, [c], 0.8))) for n in range(TRIPLETS) for c in range(CLASSES)}
    assert len(boxes) > 10
    assert any(len(rows) * len(columns) < SIZE**2 / 2 for rows, columns in boxes)

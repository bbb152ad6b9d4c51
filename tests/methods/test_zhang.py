"""Zhang et al. 2020: the whole loss and prediction against NumPy, the ablations, and which images make a batch."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from cxrfast.data import Augmentation, Record, read_chestxray14
from cxrfast.errors import UsageError
from cxrfast.methods import Zhang
from cxrfast.methods.zhang import one_at_least
from cxrfast.regions import AnnotatedMaps, fit_map_thresholds
from cxrfast.regions.rule import RegionRule
from cxrfast.training import build_config
from tests.tolerances import assert_close

NAMES = ("Mass", "Nodule", "Edema")


def zhang(**options):
    torch.manual_seed(0)
    small = {"backbone": "densenet_nano", "output_stride": 8, "upsample": 1}
    method = Zhang(NAMES, 64, Zhang.Options(**{**small, **options})).double()
    for layer in (method.network.classifier, method.verifier):
        if layer is not None:  # biases too, so that none can be forgotten
            torch.nn.init.normal_(layer.weight)
            if layer.bias is not None:
                torch.nn.init.normal_(layer.bias, std=0.3)
    with torch.no_grad():
        for _ in range(20):  # images differ in their features once these are normalised
            method(images(), "classifiers")
    return method.eval()


def images(n=6):
    return torch.randn(n, 1, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def features(method, x):
    """g [B, D, h, w] as NumPy, from the backbone alone."""
    with torch.no_grad():
        return method.network.backbone.forward_features(x).numpy()


def linear(layer):
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def region(cams, classes, level=0.8):  # [K, h, w], class numbers -> [h, w]
    summed = sum(cams[k] for k in classes)
    normal = (summed - summed.min()) / (summed.max() - summed.min())
    rows, columns = np.nonzero(normal > level)
    mask = np.zeros(normal.shape, dtype=bool)
    mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return mask


def cross_entropy(z, y):
    y = y[: len(z)]
    return np.mean((y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)).sum(axis=1))


LABELS = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=float)


@pytest.mark.parametrize(("triplet", "verification"), [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (0.3, 2.0)])
def test_the_loss_is_that_of_equation_9(triplet, verification):
    method, x = zhang(triplet=triplet, verification=verification, margin=5.0), images()
    g = features(method, x)
    f = g.mean(axis=(2, 3))
    w, w0 = linear(method.network.classifier)
    anchors = 2 if triplet else 6
    z = (f @ w.T + w0)[:anchors]
    expected = cross_entropy(z, LABELS)
    if triplet:
        near = np.linalg.norm(f[0:2] - f[2:4], axis=1)
        far = np.linalg.norm(f[0:2] - f[4:6], axis=1)
        expected += triplet * np.maximum(near - far + 5.0, 0).mean()
    if verification:
        v, v0 = linear(method.verifier)
        cams = np.einsum("kd,ndhw->nkhw", w, g)
        verified = np.empty_like(z)
        for n in range(anchors):
            shown = np.flatnonzero(LABELS[n]) if LABELS[n].any() else [z[n].argmax()]
            verified[n] = np.where(region(cams[n], shown), g[n], 0).mean(axis=(1, 2)) @ v.T + v0
        expected += verification * cross_entropy(verified, LABELS)
    loss = method.loss(method(x, "classifiers"), {"labels": torch.from_numpy(LABELS)})
    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("verified", ["predicted", "top", "each"])
def test_scores_and_maps_are_those_of_equations_10_and_11(verified):
    method, x = zhang(verified=verified), images()
    g = features(method, x)
    (w, w0), (v, v0) = linear(method.network.classifier), linear(method.verifier)
    z = g.mean(axis=(2, 3)) @ w.T + w0
    assert (z > 0).sum(axis=1).max() > 1  # several classes are predicted somewhere
    cams, verifier_cams = np.einsum("kd,ndhw->nkhw", w, g), np.einsum("kd,ndhw->nkhw", v, g)
    for n in range(6):
        predicted = np.flatnonzero(z[n] >= 0) if verified == "predicted" else []
        shown = predicted if len(predicted) else [z[n].argmax()]
        for k in range(3):
            place = region(cams[n], [k] if verified == "each" else shown)
            z[n, k] += v[k] @ np.where(place, g[n], 0).mean(axis=(1, 2)) + v0[k]
    average = (cams + verifier_cams) / 2
    low, high = average.min(axis=(2, 3), keepdims=True), average.max(axis=(2, 3), keepdims=True)
    with torch.no_grad():
        scores, maps = method.predict(x, "classifiers")
    assert_close(scores.float(), torch.from_numpy(1 / (1 + np.exp(-z))).float())
    assert_close(maps.float(), torch.from_numpy((average - low) / (high - low)).float())


def test_without_both_it_is_a_plain_classifier():
    method, x = zhang(triplet=0.0, verification=0.0), images()
    assert not any("verifier" in name for name in method.state_dict())
    with torch.no_grad():
        assert_close(method.predict(x, "classifiers").scores, method.network(x).logits.float().sigmoid())


def test_classifiers_without_a_bias():
    method = zhang(bias=False)
    assert not any(name.endswith(("classifier.bias", "verifier.bias")) for name in method.state_dict())
    with torch.no_grad():
        assert method.predict(images(), "classifiers").scores.isfinite().all()


def test_the_classes_of_a_region():
    logits = torch.tensor([[1.0, 2.0, -1.0], [-3.0, -2.0, -1.0]])
    assert one_at_least(logits > 0, logits).tolist() == [[True, True, False], [False, False, True]]


def test_regions_of_verification_are_no_way_for_the_gradient():
    method, x = zhang(triplet=0.0, verification=1.0), images()
    output = method(x, "classifiers")
    output = output._replace(logits=output.logits.detach())  # what is left is Eq. 8
    method.loss(output, {"labels": torch.from_numpy(LABELS)}).backward()
    assert method.network.classifier.weight.grad is None
    assert method.verifier.weight.grad.abs().sum() > 0
    assert (
        method.network.backbone.get_parameter(next(n for n, _ in method.network.backbone.named_parameters())).grad
        is not None
    )


def annotated(n=12):
    rng = np.random.default_rng(0)
    boxes = torch.tensor([[0.2, 0.2, 0.6, 0.7]]).expand(n, 1, 4)
    maps = torch.from_numpy(rng.random((n, 8, 8))).float() ** 3
    return AnnotatedMaps(torch.arange(n) % 3, maps, torch.rand(n), boxes, torch.ones(n, 1, dtype=torch.bool))


def test_thresholds_come_from_validation_and_are_kept_with_the_weights():
    method = zhang()
    assert method.region_rule == RegionRule(shape="rectangle")
    assert method.map_thresholds.tolist() == [0.5] * 3
    method.fit_map_thresholds(annotated())
    expected = fit_map_thresholds(RegionRule(shape="rectangle"), annotated(), torch.full((3,), 0.5), 64)
    assert_close(method.map_thresholds.float(), expected)
    assert "thresholds" in method.state_dict()
    assert "thresholds" not in dict(method.named_parameters())
    fixed = zhang(map_thresholds="fixed", region_threshold=0.3)
    fixed.fit_map_thresholds(annotated())
    assert fixed.map_thresholds.tolist() == pytest.approx([0.3] * 3)


def sampler(method, records, folder, batch_size=9, **arguments):
    settings = {"seed": 3, "rank": 0, "world_size": 1, **arguments}
    return method.batch_sampler(records, folder, batch_size=batch_size, **settings)


def test_batches_are_triplets_by_all_labels(phantoms, tmp_path, logged):
    folder = shutil.copytree(phantoms, tmp_path / "phantoms")
    records = read_chestxray14(folder).records
    batches = sampler(zhang(), records, folder)
    assert batches.miner.notes == tuple(logged.messages)
    assert (folder / "cxrfast_hashes.npz").is_file()
    epochs = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        epochs.append(list(batches))
        anchors = []
        for batch in epochs[-1]:
            assert len(batch) % 3 == 0
            assert len(batch) <= 9
            triplets = np.array(batch).reshape(3, -1).T
            anchors += triplets[:, 0].tolist()
            for anchor, positive, negative in (tuple(records[i].labels for i in row) for row in triplets):
                assert anchor & positive or anchor == positive == frozenset()
                assert not anchor & negative
                assert anchor or negative
        assert sorted(anchors) == batches.miner.anchors.tolist()
    assert epochs[0] != epochs[1]
    again = sampler(zhang(), records, folder)
    again.set_epoch(1)
    assert list(again) == epochs[1]
    shares = [sampler(zhang(), records, folder, rank=rank, world_size=2) for rank in (0, 1)]
    assert len(list(shares[0])) == len(list(shares[1]))


def test_no_hashes_without_the_triplet_loss(tmp_path):
    missing = [Record("a.png", tmp_path / "a.png", "p", frozenset())]
    assert sampler(zhang(triplet=0.0), missing, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_no_hashes_without_hardness(tmp_path, logged):
    labels = [frozenset(), frozenset(), frozenset({"Mass"}), frozenset({"Mass"}), frozenset({"Mass", "Edema"})]
    missing = [Record(f"{n}.png", tmp_path / f"{n}.png", str(n), of) for n, of in enumerate(labels)]
    batches = sampler(zhang(sampling="random"), missing, tmp_path)
    assert not list(tmp_path.iterdir())
    assert sorted(place for batch in batches for place in batch[: len(batch) // 3]) == [0, 1, 2, 3, 4]
    logged.clear()
    exact = sampler(zhang(sampling="random", partial=0), missing, tmp_path)
    assert exact.miner.anchors.tolist() == [0, 1, 2, 3]
    assert logged.messages == [
        "1 images share their set of labels with no other image and are not anchors of triplets, as partial matches "
        "are no positives"
    ]


@pytest.mark.parametrize(
    "options", [{}, {"sampling": "all"}, {"sampling": "random"}, {"partial": 0}, {"partial_of": "list"}]
)
def test_the_miner_gets_the_method_s_options(options, phantoms, tmp_path):
    folder = shutil.copytree(phantoms, tmp_path / "phantoms")
    miner = sampler(zhang(**options, hard_after=3), read_chestxray14(folder).records, folder).miner
    expected = {"sampling": "paper", "partial": 0.25, "partial_of": "picks", **options, "epochs": 3}
    assert {name: getattr(miner, name) for name in expected} == expected
    assert (miner.positives, miner.negatives) == (500, 1000)


def test_a_batch_has_room_for_a_triplet(phantoms):
    with pytest.raises(
        UsageError, match=r"batch-size: expected 3 or more images \(a triplet\), got 2; or set triplet=0"
    ):
        sampler(zhang(), read_chestxray14(phantoms).records, phantoms, batch_size=2)


def test_the_papers_settings():
    config = build_config({"method": "zhang", "data": "x"})
    assert (config.image_size, config.epochs, config.lr, config.lr_decay) == (224, 30, 1e-3, 0.1)
    options = config.options
    assert (options["backbone"], options["margin"], options["region_level"]) == ("densenet121", 0.5, 0.8)
    assert (options["negatives"], options["positives"], options["partial"]) == (1000, 500, 0.25)
    assert (options["sampling"], options["hard_after"], options["classified"]) == ("paper", 10, "anchors")
    assert (options["triplet"], options["verification"]) == (1, 1)  # Eq. 9: a sum
    still = Augmentation(rotation=0, translate=0, scale=(1, 1), brightness=0, contrast=0)
    assert Zhang.augmentation == dataclasses.replace(still, rotation=5, flip=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region_level": 1.0}, "region_level: expected a number less than 1"),
        ({"triplet": -1}, "triplet: expected a number greater than or equal to 0"),
        ({"verified": "all"}, "verified: expected 'predicted', 'top' or 'each'"),
        ({"sampling": "hard"}, "sampling: expected 'paper', 'all' or 'random', got 'hard'"),
        ({"classified": "positives"}, "classified: expected 'anchors' or 'all', got 'positives'"),
        ({"partial": -0.1}, "partial: expected a number greater than or equal to 0, got -0.1"),
        ({"partial_of": "all"}, "partial_of: expected 'picks' or 'list', got 'all'"),
        ({"without_finding": "none"}, "without_finding: expected 'top' or 'whole', got 'none'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UsageError, match=message):
        build_config({"method": "zhang", "data": "x", "options": options})

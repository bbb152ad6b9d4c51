"""A linear probe: logistic regression on the pooled features of a pretrained backbone, over the folds of a
cross-validation, so that each image is scored by a classifier that has not seen its patient."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from cxrfast.data import FoldSplits, Record, XrayDataset
from cxrfast.errors import UsageError
from cxrfast.experiments.folds_directory import FoldsDirectory, read_splits
from cxrfast.predictions.table import Predictions

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidates for C of scikit-learn's logistic regression; each fold chooses one."""

_INNER_FOLDS = 5


def linear_probe(folder: Path, *, image_size: int | None = None, batch_size: int = 16) -> Predictions:
    """Probabilities of all test images of the cross-validation in `folder`, with its backbone, weights and classes.

    Args:
        image_size: default: as in the cross-validation.

    Raises UsageError for a cross-validation without a backbone or without pretrained weights.
    """
    directory = FoldsDirectory(folder)
    config, _ = directory.load()
    splits, records = read_splits(directory, config)
    options: Any = config.method_options()
    if not getattr(options, "pretrained", False):
        raise UsageError(f"{folder}: expected a cross-validation with pretrained weights, got {config.method} without")
    tested = {image for fold in splits.folds for image in fold.test} | set(splits.unannotated)
    records = [record for record in records if record.image in tested]
    names = tuple(config.classes or ())
    features = pooled_features(options, records, image_size or config.image_size, batch_size=batch_size)
    labels = np.array([[record.label(name) for name in names] for record in records])
    prob = probe_folds(features, labels, records, splits)
    scored = np.flatnonzero(~np.isnan(prob).any(axis=1))
    kept = [records[n] for n in scored]
    shape = (len(kept), len(names))
    boxes = torch.tensor([[len(record.boxes.get(name, ())) for name in names] for record in kept])
    return Predictions(
        class_names=names,
        images=[record.image for record in kept],
        patients=[record.patient for record in kept],
        prob=torch.from_numpy(prob[scored]).float(),
        labels=torch.from_numpy(labels[scored]).float(),
        n_boxes=boxes,
        iou=torch.full(shape, torch.nan, dtype=torch.float64),
        ior=torch.full(shape, torch.nan, dtype=torch.float64),
    )


@torch.inference_mode()
def pooled_features(options: Any, records: Sequence[Record], image_size: int, *, batch_size: int = 16) -> np.ndarray:
    """Features [N, D] of the images: the backbone's feature maps, averaged over positions, without augmentation.

    Args:
        options: options of a method with a backbone.
    """
    backbone, scaling = options.build_backbone(image_size).eval(), options.build_scaling()
    loader = DataLoader(XrayDataset(records, ("",), image_size), batch_size=batch_size)
    found = [backbone(scaling(batch["image"])).mean(dim=(-2, -1)) for batch in tqdm(loader, "features", disable=None)]
    return torch.cat(found).double().numpy()


def probe_folds(
    features: np.ndarray,  # [N, D]
    labels: np.ndarray,  # [N, K] 1, 0, or NaN where unknown
    records: Sequence[Record],  # [N]
    splits: FoldSplits,
) -> np.ndarray:  # [N, K]
    """Probabilities of each fold's test images, from a classifier fitted to its training and validation images.

    Features are standardised. The regularisation C, equal for all classes, is the one of `STRENGTHS` with the highest
    mean AUROC in an inner cross-validation by patient. Images that are in no test part have NaN. A class with only
    positive or only negative training images has its share of positives as a constant probability. Images whose
    label of a class is unknown are not used for this class.
    """
    place = {record.image: n for n, record in enumerate(records)}
    patients = np.array([record.patient for record in records])
    prob = np.full(labels.shape, np.nan)
    for fold in tqdm(range(len(splits.folds)), "folds", disable=None):
        parts = splits.splits(fold, records)
        train, test = (np.array([place[image] for image in names]) for names in (parts.train + parts.val, parts.test))
        strength = _choose(features[train], labels[train], patients[train])
        prob[test] = _fit(features[train], labels[train], features[test], strength)
    return prob


def _choose(features: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> float:
    """The C with the highest mean AUROC in the inner cross-validation."""
    from sklearn.metrics import roc_auc_score

    known = ~np.isnan(labels)
    both = [k for k in range(labels.shape[1]) if len(set(labels[known[:, k], k])) == 2]
    means = []
    for strength in STRENGTHS:
        prob = np.zeros(labels.shape)
        for train, test in _inner(patients):
            prob[test] = _fit(features[train], labels[train], features[test], strength)
        areas = [roc_auc_score(labels[known[:, k], k], prob[known[:, k], k]) for k in both]
        means.append(np.mean(areas) if areas else 0.0)
    return STRENGTHS[int(np.argmax(means))]


def _inner(patients: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import GroupKFold

    folds = min(_INNER_FOLDS, len(set(patients)))
    return GroupKFold(folds).split(np.zeros(len(patients)), groups=patients)


def _fit(features: np.ndarray, labels: np.ndarray, others: np.ndarray, strength: float) -> np.ndarray:  # [n, K]
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    x, y = scaler.transform(features), scaler.transform(others)
    columns = []
    for k in range(labels.shape[1]):
        known = ~np.isnan(labels[:, k])
        values = labels[known, k]
        if len(set(values)) < 2:
            columns.append(np.full(len(y), values.mean() if len(values) else np.nan))
        else:
            fitted = LogisticRegression(C=strength, max_iter=1000).fit(x[known], values)
            columns.append(fitted.predict_proba(y)[:, 1])
    return np.stack(columns, axis=1)

"""Run a model over a split, and score it as Rozenberg et al. 2019 do, with the regions of the model's own method."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from cxrfast.data.dataset import XrayDataset
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation.localization_accuracy import best_overlap, localization_accuracy
from cxrfast.evaluation.map_thresholds import AnnotatedMaps, annotated_maps, cross_validated_overlap
from cxrfast.evaluation.metrics import auroc
from cxrfast.evaluation.predictions import Predictions, empty_overlaps
from cxrfast.evaluation.result import EvaluationResult
from cxrfast.prediction import Prediction, Predictor, predict
from cxrfast.regions import RegionRule


def evaluate(
    predictor: Predictor,
    dataset: XrayDataset,
    *,
    split: str,
    label_version: str,
    split_hash: str | None = None,
    iou_threshold: float = 0.1,
    threshold_folds: int | None = None,
    batch_size: int = 16,
    workers: int = 0,
) -> EvaluationResult:
    """Predict every image of ``dataset``, and score labels by AUROC and boxes by localisation accuracy.

    Args:
        dataset: the split, without augmentation, with the predictor's classes and image size.
        split, label_version, split_hash: what the split is called, the version of its labels, and ``Splits.hash``: for
            the record.
        iou_threshold: T in (0, 1], the overlap from which a box counts as found.
        threshold_folds: choose the maps' thresholds by cross-validation over the boxes that are scored, in so many
            folds of patients, as Zhang et al. 2020 do; None takes the model's. The result says so.
        workers: processes that read images.

    Images that cannot be read are left out and named in the result. Raises :class:`UsageError` where predictor, data
    set and options do not fit, :class:`CxrfastError` if no image can be read or the model's output is not a number.
    """
    if not 0 < iou_threshold <= 1:
        raise UsageError(f"T is {iou_threshold}; expected a value in (0, 1]")
    if threshold_folds is not None and threshold_folds < 2:
        raise UsageError(f"threshold folds are {threshold_folds}; expected at least 2")
    pairs: list[AnnotatedMaps] | None = None if threshold_folds is None else []
    predictions = collect_predictions(predictor, dataset, batch_size=batch_size, workers=workers, annotated=pairs)
    protocol, thresholds = _protocol(predictor), predictor.thresholds
    if threshold_folds is not None and pairs is not None:
        thresholds = _cross_validate(predictor, predictions, pairs, threshold_folds)
        protocol += f", thresholds by cross-validation over these boxes in {threshold_folds} folds of patients"
    boxed = predictions.n_boxes > 0
    class_index = boxed.nonzero()[:, 1]
    num_classes = len(predictions.class_names)
    iou = localization_accuracy(predictions.iou[boxed], class_index, num_classes, iou_threshold)
    ior = localization_accuracy(predictions.ior[boxed], class_index, num_classes, iou_threshold)
    return EvaluationResult(
        protocol=protocol,
        split=split,
        split_hash=split_hash,
        images_hash=images_hash(predictions.images),
        label_version=label_version,
        method=predictor.method,
        weights=str(predictor.weights),
        region_rule=str(predictor.region_rule),
        region_threshold=tuple(thresholds.tolist()),
        iou_threshold=iou_threshold,
        class_names=predictions.class_names,
        n_images=len(predictions.images),
        n_positive=tuple((predictions.labels == 1).sum(dim=0).tolist()),
        n_negative=tuple((predictions.labels == 0).sum(dim=0).tolist()),
        auroc=tuple(auroc(predictions.scores, predictions.labels).tolist()),
        n_boxed=tuple(iou.boxes.tolist()),
        iou_accuracy=tuple(iou.accuracy.tolist()),
        ior_accuracy=tuple(ior.accuracy.tolist()),
        predictions=predictions,
    )


def images_hash(images: Sequence[str]) -> str:
    """12 hexadecimal digits that are the same for the same set of image names, in any order."""
    return hashlib.sha256("\n".join(sorted(images)).encode()).hexdigest()[:12]


def _cross_validate(
    predictor: Predictor, predictions: Predictions, pairs: list[AnnotatedMaps], folds: int
) -> Tensor:  # [K]
    """Replace the overlaps by those at cross-validated thresholds; returns the medians of these over the folds."""
    annotated = AnnotatedMaps(*(torch.cat(column) for column in zip(*pairs, strict=True)))
    boxed = predictions.n_boxes > 0
    patients = [predictions.patients[i] for i in boxed.nonzero()[:, 0].tolist()]
    found = cross_validated_overlap(
        predictor.region_rule, annotated, patients, predictor.thresholds.cpu(), predictor.image_size, folds
    )
    predictions.iou[boxed], predictions.ior[boxed] = found.overlap.iou, found.overlap.ior
    return found.thresholds


def collect_predictions(
    predictor: Predictor,
    dataset: XrayDataset,
    *,
    batch_size: int = 16,
    workers: int = 0,
    annotated: list[AnnotatedMaps] | None = None,
) -> Predictions:
    """Scores, and overlaps of the method's regions with the boxes, of every image that can be read. Appends the maps of
    the boxed pairs, image by image, to `annotated`."""
    _check_fit(predictor, dataset)
    unreadable: dict[str, str] = {}
    indices, scores, labels, n_boxes, iou, ior = [], [], [], [], [], []
    pin_memory = torch.device(predictor.device).type == "cuda"
    for batch in _batches(dataset, batch_size, workers, pin_memory, unreadable):
        prediction = predict(predictor, batch["image"])
        overlaps = _overlaps(predictor, prediction, batch["boxes"] / dataset.image_size, batch["has_box"])
        if annotated is not None:
            annotated.append(annotated_maps(prediction, batch["boxes"] / dataset.image_size, batch["has_box"]))
        indices += batch["index"].tolist()
        scores.append(prediction.scores.float().cpu())
        labels.append(batch["labels"])
        n_boxes.append(batch["has_box"].sum(dim=2))
        iou.append(overlaps[0])
        ior.append(overlaps[1])
    if not indices:
        reason = next(iter(unreadable.values()), "it is empty")
        raise CxrfastError(f"no image of the split can be evaluated: {reason}")
    return Predictions(
        class_names=tuple(dataset.class_names),
        images=[dataset.records[i].image for i in indices],
        patients=[dataset.records[i].patient for i in indices],
        scores=torch.cat(scores),
        labels=torch.cat(labels),
        n_boxes=torch.cat(n_boxes),
        iou=torch.cat(iou),
        ior=torch.cat(ior),
        unreadable=unreadable,
    )


def _check_fit(predictor: Predictor, dataset: XrayDataset) -> None:
    if tuple(predictor.class_names) != tuple(dataset.class_names):
        raise UsageError(
            f"the model's classes ({', '.join(predictor.class_names)}) are not the data's "
            f"({', '.join(dataset.class_names)}); read the data with the model's classes, in its order"
        )
    if predictor.image_size != dataset.image_size:
        raise UsageError(
            f"the model takes images of {predictor.image_size} pixels, the data have {dataset.image_size}; "
            f"read them with image size {predictor.image_size}"
        )


def _protocol(predictor: Predictor) -> str:
    """The paper's region is the union of patches with z ≥ 0.5 (§4); the accuracy of another is another number."""
    published = predictor.region_rule == RegionRule() and bool((predictor.thresholds == 0.5).all())
    return "rozenberg2019" if published else f"rozenberg2019, regions of {predictor.method}"


def _overlaps(
    predictor: Predictor,
    prediction: Prediction,  # of B images
    boxes: Tensor,  # [B, K, M, 4] fractions
    has_box: Tensor,  # [B, K, M] bool
) -> tuple[Tensor, Tensor]:
    """IoU and IoR [B, K], NaN for pairs without a box."""
    boxed = has_box.any(dim=2)
    regions = predictor.region_rule.find(
        prediction.maps, predictor.thresholds, scores=prediction.scores, image_size=predictor.image_size
    )
    candidates = regions.candidates(*boxed.nonzero(as_tuple=True))
    overlap = best_overlap(candidates, boxes[boxed], has_box[boxed])
    iou, ior = empty_overlaps(*boxed.shape), empty_overlaps(*boxed.shape)
    iou[boxed], ior[boxed] = overlap.iou, overlap.ior
    return iou, ior


def _batches(
    dataset: XrayDataset, batch_size: int, workers: int, pin_memory: bool, unreadable: dict[str, str]
) -> Iterator[dict[str, Tensor]]:
    """Batches in order, less what cannot be read, which is written to ``unreadable``."""
    from tqdm import tqdm

    if batch_size < 1 or workers < 0:
        raise UsageError(f"batch size is {batch_size}, workers {workers}; expected 1 or more, and 0 or more")
    loader = DataLoader(
        _Forgiving(dataset),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_split_errors,
        pin_memory=pin_memory,
    )
    with tqdm(total=len(dataset), desc="evaluating", unit="image", disable=None) as bar:
        for batch, errors in loader:
            unreadable.update({dataset.records[index].image: message for index, message in errors})
            if batch is not None:
                yield batch
            bar.update(len(errors) + (0 if batch is None else len(batch["index"])))


class _Forgiving(Dataset):
    """The data set with errors in place of items that cannot be read, so that a worker process does not die of them."""

    def __init__(self, dataset: XrayDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any] | tuple[int, str]:
        try:
            return self.dataset[index]
        except CxrfastError as error:
            return index, str(error)


def _split_errors(items: list) -> tuple[dict[str, Tensor] | None, list[tuple[int, str]]]:
    """(collated items, [(index, message)] of those that could not be read)."""
    good = [item for item in items if isinstance(item, dict)]
    return default_collate(good) if good else None, [item for item in items if not isinstance(item, dict)]

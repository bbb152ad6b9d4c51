"""Runs a model on a split, and scores its predictions by a protocol."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from cxrfast.data.dataset import XrayDataset
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation.ground_truth import GroundTruth
from cxrfast.evaluation.protocols import Protocol, find_protocol
from cxrfast.evaluation.result import EvaluationResult
from cxrfast.evaluation.scoring import EvaluationMetadata, score_predictions
from cxrfast.evaluation.sources import MapSource
from cxrfast.regions.prediction import Predictor, predict
from cxrfast.regions.rule import MethodDefaults
from cxrfast.runs.provenance import Provenance


@dataclass(frozen=True)
class ModelOutputs:
    """Output of a model on the images that could be read."""

    ground_truth: GroundTruth
    scores: Tensor  # [N, K] float32
    maps: MapSource  # of the images with any annotation
    own: MethodDefaults
    unreadable: dict[str, str]  # image -> why it could not be read


def evaluate(
    predictor: Predictor,
    dataset: XrayDataset,
    *,
    split: str,
    label_version: str,
    protocol: str | Protocol = "strict",
    split_hash: str | None = None,
    training_patients: Collection[str] | None = None,
    temperature: Tensor | None = None,  # [K], from fit_temperature on validation images
    resamples: int = 1000,
    batch_size: int = 16,
    workers: int = 0,
) -> EvaluationResult:
    """Predict every image of ``dataset``, and score labels by AUROC and AP, and boxes by the protocol.

    Args:
        dataset: the split, without augmentation, with the predictor's classes and image size.
        split, label_version, split_hash: name of the split, version of its labels, and ``Splits.hash``; stored in the
            record.
        protocol: a name of :data:`cxrfast.evaluation.PROTOCOLS`, or your own :class:`Protocol`.
        training_patients: patients of all training and validation images; None if unknown.
        resamples: number of bootstrap resamples of patients, for the intervals.
        workers: data-loader workers.

    Images that cannot be read are left out and named in the result. Raises :class:`UsageError` if predictor, data
    set, protocol and options do not fit together, :class:`CxrfastError` if no image can be read or the model's output
    is not a number.
    """
    if isinstance(protocol, str):
        protocol = find_protocol(protocol)
    outputs = collect_outputs(predictor, dataset, batch_size=batch_size, workers=workers)
    provenance: Provenance | None = getattr(predictor, "provenance", None)
    facts = EvaluationMetadata(
        split=split,
        split_hash=split_hash,
        label_version=label_version,
        method=predictor.method,
        weights=str(predictor.weights),
        training_patients=training_patients,
        warnings=() if provenance is None else provenance.warnings,
        learnt_from=provenance,
    )
    return score_outputs(protocol, outputs, facts, temperature=temperature, resamples=resamples)


def score_outputs(
    protocol: Protocol,
    outputs: ModelOutputs,
    facts: EvaluationMetadata,
    *,
    temperature: Tensor | None = None,
    resamples: int = 1000,
) -> EvaluationResult:
    """Score outputs of :func:`collect_outputs`: the second half of :func:`evaluate`."""
    return score_predictions(
        protocol,
        outputs.ground_truth,
        outputs.scores,
        outputs.maps,
        outputs.own,
        replace(facts, unreadable=outputs.unreadable),
        temperature=temperature,
        resamples=resamples,
    )


def collect_outputs(
    predictor: Predictor, dataset: XrayDataset, *, batch_size: int = 16, workers: int = 0
) -> ModelOutputs:
    """Predict all images: scores of those that can be read, and maps of those with an annotation."""
    _check_fit(predictor, dataset)
    unreadable: dict[str, str] = {}
    indices: list[int] = []
    scores, maps, boxed_images = [], [], []
    pin_memory = torch.device(predictor.device).type == "cuda"
    for batch in _batches(dataset, batch_size, workers, pin_memory, unreadable):
        prediction = predict(predictor, batch["image"])
        boxed = batch["has_box"].flatten(1).any(dim=1)
        boxed_images.append(len(indices) + boxed.nonzero()[:, 0])
        maps.append(prediction.maps[boxed.to(prediction.maps.device)].float().cpu())
        scores.append(prediction.scores.float().cpu())
        indices += batch["index"].tolist()
    if not indices:
        reason = next(iter(unreadable.values()), "it is empty")
        raise CxrfastError(f"no image of the split can be evaluated: {reason}")
    return ModelOutputs(
        ground_truth=GroundTruth.from_records([dataset.records[i] for i in indices], dataset.class_names),
        scores=torch.cat(scores),
        maps=MapSource(torch.cat(boxed_images), torch.cat(maps), predictor.image_size),
        own=MethodDefaults(predictor.region_rule, predictor.thresholds.cpu(), predictor.operating_points.cpu()),
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


def _batches(
    dataset: XrayDataset, batch_size: int, workers: int, pin_memory: bool, unreadable: dict[str, str]
) -> Iterator[dict[str, Tensor]]:
    """Batches in order. Images that cannot be read are left out, and added to ``unreadable``."""
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
    """The data set, with (index, message) for an item that cannot be read, so that no worker fails."""

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

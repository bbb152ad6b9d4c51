"""A trained model, ready for `evaluate` and `localize`."""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from cxrfast._json import parse_json
from cxrfast._logging import get_logger
from cxrfast.devices import Device, resolve_device
from cxrfast.errors import UsageError
from cxrfast.methods import Method
from cxrfast.regions.prediction import Prediction
from cxrfast.runs.directory import RunDirectory, fold_name, latest_run
from cxrfast.runs.latest import latest_run_for, learnt_from
from cxrfast.runs.weights import load_weights

logger = get_logger(__name__)

WITHOUT_VALIDATION = (
    "trained without validation images: the weights are of the last epoch, the score threshold of every class is 0.5, "
    "and the map thresholds were not fitted"
)


class TrainedModel:
    """The :class:`cxrfast.regions.prediction.Predictor` of a weights file written by `cxrfast train`."""

    def __init__(
        self, network: Method, metadata: dict[str, str], weights: Path, device: Literal["cpu", "cuda"]
    ) -> None:
        self.network = network.to(device)
        self.class_names = network.class_names
        self.image_size = network.image_size
        self.method = network.name
        self.stage = metadata["stage"]
        self.label_version = metadata["label_version"]
        self.weights = str(weights)
        points = parse_json(metadata.get("operating_points", "null")) or [0.5] * len(network.class_names)
        self.operating_points = torch.tensor(points, dtype=torch.float64)
        self.provenance = learnt_from(weights, metadata)
        validated = parse_json(metadata.get("validated", "true"))
        self.notes: tuple[str, ...] = () if validated else (WITHOUT_VALIDATION,)
        self.thresholds = network.map_thresholds.to(device)
        self.region_rule = network.region_rule
        self.device = torch.device(device)

        self._outputs: list[int] | None = None

    def __call__(self, images: torch.Tensor) -> Prediction:  # [B, 1, S, S] in [-1, 1]
        found = self.network.predict(images, self.stage)
        return found if self._outputs is None else Prediction(*(part[:, self._outputs] for part in found))

    def with_outputs(self, names: Mapping[str, str]) -> "TrainedModel":
        """The same model with only the classes that are keys of ``names``, under the names that are its values."""
        places = [self.class_names.index(name) for name in names]
        chosen = copy.copy(self)
        chosen.class_names = tuple(names.values())
        chosen.operating_points, chosen.thresholds = self.operating_points[places], self.thresholds[places]
        chosen.provenance = self.provenance.of_classes(names)
        chosen._outputs = [place if self._outputs is None else self._outputs[place] for place in places]
        return chosen


def load_predictor(
    checkpoint: Path | None = None,
    *,
    device: Device = "auto",
    expected_method: str | None = None,
    images: Sequence[str | os.PathLike] | None = None,
) -> TrainedModel:
    """Load a weights file, or the best weights of a run's folder; None stands for the latest run under `runs/`.

    With `images`, which are to be read, None stands for the latest run that may read them unasked: see
    :func:`cxrfast.runs.latest.latest_run_for`.
    """
    if checkpoint is not None:
        path = Path(checkpoint)
    elif images is None:
        path = latest_run().best
    else:
        run, refused = latest_run_for(images)
        path = run.best
        if refused:
            logger.info(f"passed over, learnt from phantoms or unknown images: {', '.join(map(str, refused))}")
    run = RunDirectory(path)
    if run.is_cross_validation:
        raise UsageError(
            f"checkpoint: expected a run, got the cross-validation {path}; choose one of its runs, such as "
            f"{path / fold_name(0, 0)}"
        )
    if path.is_dir():
        path = run.best
    network, metadata = load_weights(path, expected_method=expected_method)
    return TrainedModel(network, metadata, path, resolve_device(device))

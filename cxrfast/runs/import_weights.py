"""Converts classifiers of other programs to weights of method `chexnet` with the same outputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from cxrfast.data import CLASSES
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.methods.chexnet import STAGE, CheXNet, CheXNetOptions
from cxrfast.runs.foreign_weights import ForeignClassifier, match_classifier, read_foreign
from cxrfast.runs.weights import save_weights

Choice = TypeVar("Choice")

TORCHXRAYVISION_CLASSES = (
    *("Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion"),
    *("Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture"),
    *("Lung Opacity", "Enlarged Cardiomediastinum"),
)
CHEXPERT_CLASSES = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)


class Preprocessing(NamedTuple):
    """The input of the network: (grey in [0, 1] − mean) / std, per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


PREPROCESSING: dict[str, Preprocessing] = {
    "imagenet": Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # grey as RGB
    "grey": Preprocessing((0.5,), (0.5,)),  # [-1, 1]
    "unit": Preprocessing((0.0,), (1.0,)),  # [0, 1]
    "torchxrayvision": Preprocessing((0.5,), (0.5 / 1024,)),  # [-1024, 1024]
}


class Preset(NamedTuple):
    """Properties of the checkpoints from one source."""

    classes: tuple[str, ...]
    preprocessing: str
    image_size: int


PRESETS: dict[str, Preset] = {
    # In the order of the data set's authors: most CheXNet reimplementations
    "chexnet": Preset(CLASSES, "imagenet", 224),
    "chexnet-alphabetical": Preset(tuple(sorted(CLASSES)), "imagenet", 224),
    "chexpert": Preset(CHEXPERT_CLASSES, "imagenet", 320),
    "torchxrayvision": Preset(TORCHXRAYVISION_CLASSES, "torchxrayvision", 224),
}


class Imported(NamedTuple):
    """A written weights file."""

    path: Path
    method: CheXNet
    notes: tuple[str, ...]


def import_weights(
    checkpoint: Path,
    out: Path,
    *,
    preset: str | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: str | None = None,
    image_size: int | None = None,
    ignore: Sequence[str] = (),
) -> Imported:
    """Write the classifier in `checkpoint` to `out` as weights of method `chexnet`.

    The same image, already of `image_size`, gives the same scores as the original network with a sigmoid (and, if it
    has torchxrayvision's `op_threshs`, calibrated by them).

    Args:
        preset: a key of `PRESETS`; other arguments take precedence over its values.
        classes: names of the outputs in order; an output with an empty name is left out.
        preprocessing: a key of `PREPROCESSING`. One channel is repeated for a network with three input channels.
        image_size: of the network's input.
        ignore: shell patterns of keys of the checkpoint that are left out.

    Raises:
        UsageError: an unknown name, or neither a preset nor an argument that gives classes and preprocessing.
        CxrfastError: a file that cannot be read without unpickling, keys that do not match, another number of classes.
    """
    known = _choose("preset", preset, PRESETS) if preset is not None else None
    classes = known.classes if classes is None and known is not None else classes
    preprocessing = known.preprocessing if preprocessing is None and known is not None else preprocessing
    if classes is None:
        raise UsageError(
            f"classes: expected the class of each output, got none; add --classes, or --preset {'|'.join(PRESETS)}"
        )
    if preprocessing is None:
        raise UsageError(
            f"preprocessing: expected one of {', '.join(PREPROCESSING)}, got none; add --preprocessing, or --preset "
            f"{'|'.join(PRESETS)}"
        )
    scaling = _choose("preprocessing", preprocessing, PREPROCESSING)
    size = image_size or (known.image_size if known is not None else 224)
    foreign = match_classifier(read_foreign(Path(checkpoint)), str(checkpoint), ignore)
    kept, notes = _outputs(foreign, classes, str(checkpoint))
    mean, std = _input(foreign, scaling, preprocessing, str(checkpoint))
    options = CheXNetOptions.model_validate({"backbone": foreign.backbone, "input_mean": mean, "input_std": std})
    method = CheXNet([classes[k] for k in kept], size, options)
    _fill(method, foreign, kept)
    save_weights(Path(out), method, stage=STAGE, label_version="unknown")
    return Imported(Path(out), method.eval(), tuple(notes))


def _choose(option: str, name: str, known: dict[str, Choice]) -> Choice:
    if name not in known:
        raise UsageError(f"{option}: expected one of {', '.join(known)}, got {name!r}")
    return known[name]


def _input(foreign: ForeignClassifier, scaling: Preprocessing, name: str, source: str) -> Preprocessing:
    mean, std = scaling
    if len(mean) == 1:
        mean, std = mean * foreign.in_chans, std * foreign.in_chans
    if len(mean) != foreign.in_chans:
        raise CxrfastError(
            f"preprocessing: expected one for {foreign.in_chans} channel, the input of {source}, got {name!r} for "
            f"{len(mean)}; choose another with --preprocessing"
        )
    return Preprocessing(mean, std)


def _outputs(foreign: ForeignClassifier, classes: Sequence[str], source: str) -> tuple[list[int], list[str]]:
    """Which outputs become classes, and notes on the others."""
    outputs = len(foreign.bias)
    if len(classes) != outputs:
        raise CxrfastError(f"classes: expected {outputs}, one for each output of {source}, got {len(classes)}")
    if foreign.midpoints is not None and len(foreign.midpoints) != outputs:
        raise CxrfastError(
            f"import: expected {outputs} op_threshs, one for each output of {source}, got {len(foreign.midpoints)}"
        )
    named = [k for k in range(outputs) if classes[k]]
    twice = sorted({classes[k] for k in named if list(classes).count(classes[k]) > 1})
    if twice or not named:
        raise UsageError(
            f"classes: expected each class once, got {', '.join(twice) or 'none'}{' twice' if twice else ''}"
        )
    notes = [f"{outputs - len(named)} outputs without a name are left out"] if len(named) < outputs else []
    # torchxrayvision marks outputs that a model was not trained for in this way.
    untrained = [k for k in named if foreign.midpoints is not None and bool(foreign.midpoints[k].isnan())]
    if untrained:
        notes.append(f"left out, the model was not trained for them: {', '.join(classes[k] for k in untrained)}")
    return [k for k in named if k not in untrained], notes


def _fill(method: CheXNet, foreign: ForeignClassifier, kept: list[int]) -> None:
    """Put the tensors in their places. That they fit has been seen by `match_classifier`."""
    method.network.backbone.load_state_dict(foreign.features, strict=False)  # without batch norms' counters
    with torch.no_grad():
        method.network.classifier.weight.copy_(foreign.weight[kept])
        method.network.classifier.bias.copy_(foreign.bias[kept])
        if foreign.midpoints is not None:
            method.midpoints.copy_(foreign.midpoints[kept])

"""The labelled images that bags are drawn from: torchvision data sets, or an array file."""

import gzip
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cxrfast._logging import get_logger
from cxrfast._npz import read_npz
from cxrfast.errors import CxrfastError, UsageError

logger = get_logger(__name__)

SIZE = 32  # side of all images in pixels: the input of LeNet-5, and the size of CIFAR-10's images
DATASETS = {"mnist": "9", "cifar10": "dog"}  # with the default positive class
_TEST_SHARE = 0.25  # of an array file without test images


class LabelledImages(NamedTuple):
    images: Tensor  # [N, C, 32, 32] uint8
    positive: Tensor  # [N] bool: whether the image is of the positive class

    def part(self, index: Tensor) -> "LabelledImages":  # [n] int64
        return LabelledImages(self.images[index], self.positive[index])


class BagSource(NamedTuple):
    name: str  # "mnist", "cifar10" or the file's name
    positive_class: str
    train: LabelledImages
    test: LabelledImages
    mean: Tensor  # [C] float32, of the training images, on the scale 0 to 255
    std: Tensor  # [C] float32


def read_source(
    dataset: str,
    root: Path | None = None,
    *,
    positive_class: str | None = None,
    download: bool = False,
    seed: int = 0,
    fetch: str = "give --download to fetch it",
) -> BagSource:
    """Read images, and determine which of them belong to the positive class.

    Args:
        dataset: "mnist" or "cifar10", which torchvision reads from `root`, or the path of a ``.npz`` file. The file
            has the arrays `train_images, train_labels, test_images, test_labels`, or `images, labels`, of which a
            random quarter (by `seed`) becomes test images; `class_names` is optional. Images are `[N, H, W]`,
            `[N, H, W, C]` or `[N, C, H, W]` with 1 or 3 channels; uint8, or floating-point in [0, 1]. Labels are
            integers or names, `[N]` or `[N, 1]`, or zeros and ones `[N, L]`, one column for each of L classes. The
            files of MedMNIST have this form; their `val_images` are not used.
        root: torchvision's folder of the data set. MNIST's files are in ``MNIST/raw`` (also as .gz), CIFAR-10's in
            ``cifar-10-batches-py``.
        positive_class: a name or number; default: 9 for MNIST, dog for CIFAR-10; required for files.
        download: let torchvision download missing files.
        fetch: how the user gets missing files, for the error message.

    Images of other sizes are resized to 32×32 (bilinear, antialiased), the input size of the paper's LeNet-5.

    Raises:
        UsageError: an unknown data set, a missing folder or file, a class that does not occur.
        CxrfastError: a file that cannot be read or lacks arrays.
    """
    if dataset in DATASETS:
        arrays = _torchvision(dataset, root, download, fetch)
        chosen = positive_class or DATASETS[dataset]
    elif dataset.endswith(".npz"):
        arrays = _array_file(Path(dataset), seed)
        if positive_class is None:
            raise UsageError(f"positive-class: expected a class of {dataset}, got none; {_classes(arrays)}")
        chosen = positive_class
    else:
        raise UsageError(f"dataset: expected {', '.join(DATASETS)} or an .npz file, got {dataset!r}")
    value = _label_value(arrays, chosen)
    parts = []
    for part in ("train", "test"):
        labels = arrays[f"{part}_labels"]
        positive = torch.from_numpy(np.asarray(labels == value if labels.ndim == 1 else labels[:, value] == 1))
        for kind, present in (("positive", positive.any()), ("negative", not positive.all())):
            if not present:
                raise UsageError(
                    f"positive-class: expected {kind} {part} images, got none for {chosen!r}; {_classes(arrays)}"
                )
        parts.append(LabelledImages(_to_uint8(arrays[f"{part}_images"], dataset), positive))
    train, test = parts
    if train.images.shape[1] != test.images.shape[1]:
        channels = train.images.shape[1], test.images.shape[1]
        raise CxrfastError(
            f"{dataset}: expected as many channels in training and test images, got {channels[0]} and {channels[1]}"
        )
    name = dataset if dataset in DATASETS else Path(dataset).stem
    return BagSource(name, chosen, train, test, *_statistics(train.images))


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:  # [N, C, H, W] uint8 -> [C], [C]
    """Mean and standard deviation per channel, from histograms, which avoids a floating-point copy."""
    counts = torch.stack([images[:, c].flatten().bincount(minlength=256) for c in range(images.shape[1])]).double()
    share = counts / counts.sum(1, keepdim=True)
    grey = torch.arange(256, dtype=torch.float64)
    mean = (share * grey).sum(1)
    variance = (share * (grey - mean[:, None]) ** 2).sum(1)
    return mean.float(), variance.sqrt().clamp(min=1).float()


def _torchvision(dataset: str, root: Path | None, download: bool, fetch: str) -> dict[str, Any]:
    from torchvision import datasets

    if root is None or not (download or root.is_dir()):
        raise UsageError(
            f"root: expected the folder of {dataset}, got {root}; give --root DIR, and --download to fetch"
        )
    kind = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[dataset]
    arrays: dict[str, Any] = {}
    with _plain_files(root) if dataset == "mnist" and not download else _as_it_is(root) as folder:
        for part in ("train", "test"):
            try:
                data = kind(str(folder), train=part == "train", download=download)
            except Exception as error:  # network errors, damaged archives, failed checksums
                reason = str(error).splitlines()[0].rstrip(".")
                raise CxrfastError(f"{root}: cannot read {dataset} ({reason}); {fetch}") from error
            arrays[f"{part}_images"] = np.asarray(data.data)
            arrays[f"{part}_labels"] = np.asarray(data.targets)
    names = [name.partition(" - ")[0] for name in data.classes]  # MNIST's are "9 - nine"
    return {**arrays, "class_names": np.array(names)}


@contextmanager
def _as_it_is(root: Path) -> Iterator[Path]:
    yield root


@contextmanager
def _plain_files(root: Path) -> Iterator[Path]:
    """A folder with MNIST's files uncompressed, as torchvision expects them; in `root` they may be gzipped."""
    raw = root / "MNIST" / "raw"
    packed = [path for path in raw.glob("*-ubyte.gz") if not path.with_suffix("").exists()]
    if not packed:
        yield root
        return
    with TemporaryDirectory() as folder:
        target = Path(folder) / "MNIST" / "raw"
        target.mkdir(parents=True)
        for path in packed:
            try:
                with gzip.open(path) as stream, open(target / path.stem, "wb") as plain:
                    shutil.copyfileobj(stream, plain)
            except (OSError, EOFError) as error:
                raise CxrfastError(f"{path} cannot be unpacked ({error})") from error
        yield Path(folder)


def _array_file(path: Path, seed: int) -> dict[str, Any]:
    """`train_images, train_labels, test_images, test_labels`, and `class_names` if the file has them."""
    if not path.is_file():
        raise UsageError(f"dataset: expected a file, got {path}, which does not exist")
    try:
        arrays: dict[str, Any] = dict(read_npz(path))
    except (OSError, ValueError) as error:
        raise CxrfastError(f"{path} cannot be read as an .npz file of plain arrays ({error})") from error
    for part in ("", "train_", "test_"):
        if {f"{part}images", f"{part}labels"} <= arrays.keys():
            arrays[f"{part}labels"] = _labels(arrays[f"{part}images"], arrays[f"{part}labels"], part, path)
    if "train_images" not in arrays and {"images", "labels"} <= arrays.keys():
        order = np.random.default_rng(seed).permutation(len(arrays["labels"]))
        n_test = round(_TEST_SHARE * len(order))
        for part, index in (("test", order[:n_test]), ("train", order[n_test:])):
            arrays |= {f"{part}_images": arrays["images"][index], f"{part}_labels": arrays["labels"][index]}
    if "val_images" in arrays:
        logger.info(f"{path.name}: val_images are not used; validation bags are drawn from a tenth of train_images")
    missing = {f"{part}_{kind}" for part in ("train", "test") for kind in ("images", "labels")} - arrays.keys()
    if missing:
        raise CxrfastError(
            f"{path}: expected arrays {', '.join(sorted(missing))}, got only {', '.join(sorted(arrays)) or 'nothing'}"
        )
    return arrays


def _labels(images: np.ndarray, labels: np.ndarray, part: str, path: Path) -> np.ndarray:
    """`[N]`, or `[N, L]` of 0 and 1 for L > 1 classes. MedMNIST writes `[N, 1]` for one label of an image."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2) or images.shape[:1] != labels.shape[:1]:
        raise CxrfastError(
            f"{path}: expected a label for each image of {part}images, got arrays {list(images.shape)} and "
            f"{list(labels.shape)}"
        )
    if labels.ndim == 2 and not np.isin(labels, (0, 1)).all():
        raise CxrfastError(f"{path}: {part}labels {list(labels.shape)} have several columns, expected only 0 and 1")
    return labels


def _label_value(arrays: dict[str, Any], chosen: str) -> Any:
    """The label of the class that the user names `chosen`: a value, or a column of `[N, L]`."""
    labels = arrays["train_labels"]
    names = [str(name) for name in arrays.get("class_names", [])]
    if labels.ndim == 2:
        columns = {name: place for place, name in enumerate(names or map(str, range(labels.shape[1])))}
        if arrays["test_labels"].shape[1:] != labels.shape[1:] or len(columns) != labels.shape[1]:
            counts = [labels.shape[1], *arrays["test_labels"].shape[1:], *([len(names)] if names else [])]
            raise CxrfastError(f"labels: expected one number of columns, got {', '.join(map(str, counts))}")
        if chosen in columns:
            return columns[chosen]
        raise UsageError(f"positive-class: there is no {chosen!r}; the classes are {', '.join(columns)}")
    if chosen in names and np.issubdtype(labels.dtype, np.integer):
        return names.index(chosen)
    if np.issubdtype(labels.dtype, np.integer) and chosen.lstrip("-").isdigit():
        return int(chosen)
    if np.issubdtype(labels.dtype, np.str_) and chosen in labels:
        return chosen
    raise UsageError(f"positive-class: unknown class {chosen!r}; {_classes(arrays)}")


def _classes(arrays: dict[str, Any]) -> str:
    labels = arrays["train_labels"]
    names = arrays.get("class_names", np.unique(labels) if labels.ndim == 1 else np.arange(labels.shape[1]))
    return "the classes are " + ", ".join(str(name) for name in names[:20]) + (", …" if len(names) > 20 else "")


def _to_uint8(array: Any, name: str) -> Tensor:  # -> [N, C, 32, 32] uint8
    images = torch.from_numpy(np.ascontiguousarray(array))
    if images.dim() == 3:
        images = images[:, None]
    elif images.dim() == 4 and images.shape[1] not in (1, 3):
        images = images.movedim(-1, 1)
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise CxrfastError(f"{name}: expected images with 1 or 3 channels, got an array {list(array.shape)}")
    if images.is_floating_point():
        if not ((images >= 0) & (images <= 1)).all():
            raise CxrfastError(f"{name}: expected floating-point images in [0, 1], got values outside")
        images = (images * 255).round().to(torch.uint8)
    elif images.dtype != torch.uint8:
        raise CxrfastError(f"{name}: expected uint8 or floating-point images, got {array.dtype}")
    if images.shape[-2:] != (SIZE, SIZE):
        images = F.interpolate(images, size=(SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)
    return images.contiguous()

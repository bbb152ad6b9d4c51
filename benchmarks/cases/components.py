"""component_boxes and connected_components compared with libraries that label one image at a time.

Those get all maps as one mosaic with a background line between them, which is faster than a call for each. Where only
labels or boxes are wanted of a peer, the mosaic is made beforehand: its time is that of its own call.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from cxrfast import ops, reference
from cxrfast.benchmarks.case import FORWARD, BenchmarkCase, Function, Goal, Peer, Problem, Work, random

THRESHOLD = 0.5


def score_maps(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype, noise: bool = False) -> torch.Tensor:
    """Smooth maps with a few components each, or white noise, half of it foreground."""
    if noise:
        return random(*shape, device=device, dtype=dtype, shift=THRESHOLD, grad=False)
    batch, labels, height, width = shape
    coarse = random(batch, labels, -(-height // 4), -(-width // 4), device=device, dtype=torch.float32, grad=False)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    return torch.sigmoid(3 * smooth - 1).to(dtype)


def mosaic(maps: torch.Tensor) -> np.ndarray:  # [B, K, H, W] -> [rows*(H+1), columns*(W+1)]
    """All maps in one image, separated and padded by zeros."""
    flat = F.pad(maps.detach().cpu().flatten(0, 1), (0, 1, 0, 1))
    columns = math.isqrt(len(flat) - 1) + 1
    rows = -(-len(flat) // columns)
    grid = F.pad(flat, (0, 0, 0, 0, 0, rows * columns - len(flat)))
    height, width = grid.shape[1:]
    joined = grid.view(rows, columns, height, width).transpose(1, 2).reshape(rows * height, columns * width)
    return joined.numpy()


def _foreground(problem: Problem) -> np.ndarray:
    maps = problem.inputs[0]
    mask = maps if maps.dtype == torch.bool else maps >= THRESHOLD
    return mosaic(mask.to(torch.uint8))


def _opencv() -> Any:
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    return cv2


def _opencv_labels(problem: Problem) -> Function:
    cv2 = _opencv()
    image = _foreground(problem)
    return lambda maps: cv2.connectedComponents(image, connectivity=8, ltype=cv2.CV_32S)[1]


def _opencv_areas(problem: Problem) -> Function:
    cv2 = _opencv()
    image = _foreground(problem)
    return lambda maps: cv2.connectedComponentsWithStats(image, connectivity=8, ltype=cv2.CV_32S)[1]


def _kornia_rs_labels(problem: Problem) -> Function:
    from kornia_rs import imgproc

    image = _foreground(problem)[..., None]
    return lambda maps: imgproc.connected_components(image, 8)[1][..., 0]


def _cc3d_labels(problem: Problem) -> Function:
    import cc3d

    image = _foreground(problem)
    return lambda maps: cc3d.connected_components(image, connectivity=8, binary_image=True)


def _scipy_labels(problem: Problem) -> Function:
    from scipy import ndimage

    image, neighbours = _foreground(problem), np.ones((3, 3))
    return lambda maps: ndimage.label(image, neighbours)[0]


def _scikit_image_labels(problem: Problem) -> Function:
    from skimage import measure

    image = _foreground(problem)
    return lambda maps: measure.label(image, connectivity=2)


def _kornia_labels(problem: Problem) -> Function:
    from kornia.contrib import connected_components_union_find

    def call(maps: torch.Tensor) -> torch.Tensor:
        mask = maps if maps.dtype == torch.bool else maps >= THRESHOLD
        return connected_components_union_find(mask.unsqueeze(-3))

    return call


def _opencv_boxes(problem: Problem) -> Function:
    """All results of component_boxes, computed with OpenCV and NumPy."""
    cv2 = _opencv()
    classes, height, width = problem.inputs[0].shape[1:]

    def call(scores: torch.Tensor) -> torch.Tensor:  # [N, 9]: image, channel, box, area, peak, mean
        image = mosaic(scores.float())
        foreground = image >= THRESHOLD
        count, labels, stats, _ = cv2.connectedComponentsWithStats(foreground.view(np.uint8), connectivity=8)
        inside, values = labels[foreground], image[foreground]
        peak = np.full(count, -np.inf, np.float32)
        np.maximum.at(peak, inside, values)
        mean = np.bincount(inside, values, count)[1:] / stats[1:, cv2.CC_STAT_AREA]
        x, y, box_width, box_height, area = stats[1:].T
        index = y // (height + 1) * (image.shape[1] // (width + 1)) + x // (width + 1)
        x, y = x % (width + 1), y % (height + 1)
        rows = np.stack(
            [index // classes, index % classes, x, y, x + box_width, y + box_height, area, peak[1:], mean], 1
        )
        return torch.from_numpy(rows)

    return call


def _compare_rows(ours: ops.ComponentBoxes, rows: torch.Tensor) -> float:
    places = torch.column_stack([ours.image, ours.channel, ours.boxes, ours.area])
    ours_rows = torch.column_stack([places, ours.peak, ours.mean]).cpu().double()
    if ours_rows.shape != rows.shape:
        return math.inf
    ordered = [t[np.lexsort(t.numpy()[:, :7].T)] for t in (ours_rows, rows)]
    return float((ordered[0] - ordered[1]).abs().max())


def _compare_filled_rows(ours: ops.StaticComponentBoxes, rows: torch.Tensor) -> float:
    *columns, total = ours
    return _compare_rows(ops.ComponentBoxes(*(column[: int(total)] for column in columns)), rows)


def _compare_count(ours: ops.ComponentBoxes, labels: Any) -> float:
    count = int(labels.max()) if isinstance(labels, np.ndarray) else len(labels[labels > 0].unique())
    return abs(count - len(ours.boxes))


def _compare_labels(ours: torch.Tensor, labels: Any) -> float:
    """The number of components whose pixels differ."""
    first = torch.arange(ours.numel() // ours[0, 0].numel(), device=ours.device).view(*ours.shape[:2], 1, 1) << 32
    mine = torch.where(ours > 0, first + ours, 0).cpu()
    theirs = torch.from_numpy(labels.astype(np.int64)) if isinstance(labels, np.ndarray) else labels.cpu().flatten()
    pairs = torch.stack([torch.from_numpy(mosaic(mine)) if theirs.dim() == 2 else mine.flatten(), theirs])
    together = pairs.flatten(1).unique(dim=1).shape[1]
    return float(max(together - len(pairs[0].unique()), together - len(pairs[1].unique())))


_LABELLERS = {
    "opencv": _opencv_labels,
    "kornia_rs": _kornia_rs_labels,
    "cc3d": _cc3d_labels,
    "scipy": _scipy_labels,
    "scikit-image": _scikit_image_labels,
}


def _peers(compare: Any) -> list[Peer]:
    on_host = [
        Peer(library, make, "labels alone", compare=compare, devices=("cpu",)) for library, make in _LABELLERS.items()
    ]
    return [*on_host, Peer("kornia", _kornia_labels, "labels alone", compare=compare)]


def _boxes_case(
    shape: tuple[int, ...], ratios: dict[str, float], noise: bool = False, devices: tuple[str, ...] = ("cpu", "cuda")
) -> BenchmarkCase:
    def make(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Problem:
        return Problem(
            (score_maps(shape, device, dtype, noise),),
            lambda scores: ops.component_boxes(scores, THRESHOLD),
            lambda scores: reference.component_boxes(scores, THRESHOLD),
        )

    opencv = (
        Peer("opencv", _opencv_boxes, "boxes, scores", compare=_compare_rows),
        Peer("opencv", _opencv_areas, "boxes alone", compare=_compare_count, devices=("cpu",)),
    )
    return BenchmarkCase(
        name=f"component_boxes/{'noise/' if noise else ''}{'x'.join(map(str, shape))}",
        operator="component_boxes",
        shape=shape,
        small_shape=(2, 3, 20, 20),
        make=make,
        work={FORWARD: Work(math.prod(shape))},
        limit="copy",
        peers=(*opencv, *_peers(_compare_count)),
        goals={FORWARD: Goal(ratios)} if ratios else {},
        devices=devices,
    )


def _static_case(shape: tuple[int, ...]) -> BenchmarkCase:
    """Compared with component_boxes itself: the cost of a fixed number of rows."""

    def make(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Problem:
        maps = score_maps(shape, device, dtype)
        capacity = len(ops.component_boxes(maps, THRESHOLD).area) + 8
        return Problem(
            (maps,),
            lambda scores: ops.component_boxes_static(scores, THRESHOLD, capacity=capacity),
            lambda scores: reference.component_boxes_static(scores, THRESHOLD, capacity=capacity),
        )

    return BenchmarkCase(
        name=f"component_boxes_static/{'x'.join(map(str, shape))}",
        operator="component_boxes_static",
        shape=shape,
        small_shape=(2, 3, 20, 20),
        make=make,
        work={FORWARD: Work(math.prod(shape))},
        limit="copy",
        peers=(Peer("opencv", _opencv_boxes, "boxes, scores", compare=_compare_filled_rows),),
    )


def _labels_problem(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Problem:
    mask = score_maps(shape, device, dtype) >= THRESHOLD
    return Problem((mask,), ops.connected_components, reference.connected_components)


def _labels_case(shape: tuple[int, ...]) -> BenchmarkCase:
    return BenchmarkCase(
        name=f"connected_components/{'x'.join(map(str, shape))}",
        operator="connected_components",
        shape=shape,
        small_shape=(2, 3, 20, 20),
        make=_labels_problem,
        work={FORWARD: Work(other_bytes=5 * math.prod(shape))},
        limit="copy",
        peers=tuple(_peers(_compare_labels)),
    )


_FASTER = {"opencv (labels alone)": 1.0, "opencv (boxes, scores)": 1.0}
_NEAR = {**_FASTER, "kornia_rs (labels alone)": 1 / 1.5}
CASES = [
    _boxes_case((64, 14, 20, 20), _FASTER),
    _boxes_case((16, 14, 128, 128), _NEAR),
    _boxes_case((8, 1, 1024, 1024), _NEAR),
    _boxes_case((16, 14, 128, 128), {}, noise=True),
    _boxes_case((64, 14, 128, 128), {"kornia (labels alone)": 20.0, "opencv (boxes, scores)": 5.0}, devices=("cuda",)),
    _static_case((16, 14, 128, 128)),
    _labels_case((16, 14, 128, 128)),
    _labels_case((8, 1, 1024, 1024)),
]

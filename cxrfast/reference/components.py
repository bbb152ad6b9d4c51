"""Connected components by flood fill, pixel by pixel."""

from collections import deque

import torch

from cxrfast._operator_results import ComponentBoxes, StaticComponentBoxes


def connected_components(
    mask: torch.Tensor,  # [*, H, W]
    *,
    connectivity: int = 8,
) -> torch.Tensor:  # [*, H, W]
    """The specification of :func:`cxrfast.ops.connected_components`."""
    if mask.numel() == 0:
        return torch.zeros(mask.shape, dtype=torch.int32, device=mask.device)
    images = mask.reshape(-1, *mask.shape[-2:]).ne(0).tolist()
    labels = [_flood_fill(image, connectivity) for image in images]
    return torch.tensor(labels, dtype=torch.int32, device=mask.device).reshape(mask.shape)


def _flood_fill(image: list[list[bool]], connectivity: int) -> list[list[int]]:
    height, width = len(image), len(image[0])
    steps = [(-1, 0), (0, -1), (0, 1), (1, 0)]
    if connectivity == 8:
        steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    labels = [[0] * width for _ in range(height)]
    count = 0
    for start_y in range(height):
        for start_x in range(width):
            if not image[start_y][start_x] or labels[start_y][start_x]:
                continue
            count += 1
            labels[start_y][start_x] = count
            queue = deque([(start_y, start_x)])
            while queue:
                y, x = queue.popleft()
                for dy, dx in steps:
                    v, u = y + dy, x + dx
                    if 0 <= v < height and 0 <= u < width and image[v][u] and not labels[v][u]:
                        labels[v][u] = count
                        queue.append((v, u))
    return labels


def component_boxes(
    scores: torch.Tensor,  # [B, K, H, W]
    threshold: float | torch.Tensor,  # scalar or [K]
    *,
    connectivity: int = 8,
    select: str = "all",
    min_area: int = 1,
) -> ComponentBoxes:
    """The specification of :func:`cxrfast.ops.component_boxes`."""
    scores = scores.detach()
    channels = scores.shape[1]
    thresholds = torch.as_tensor(threshold, dtype=torch.float64).to(scores.dtype).expand(channels)
    labels = connected_components(scores >= thresholds.to(scores.device)[:, None, None], connectivity=connectivity)
    rows = []
    for image in range(scores.shape[0]):
        for channel in range(channels):
            score_map, label_map = scores[image, channel], labels[image, channel]
            regions = [label_map == label for label in range(1, int(label_map.max()) + 1)] if label_map.numel() else []
            regions = _selected([region for region in regions if region.sum() >= min_area], score_map, select)
            rows += [(region, score_map[region], image, channel) for region in regions]
    columns = {
        "boxes": ([_box(region) for region, _, _, _ in rows], torch.float32),
        "peak": ([values.max().item() for _, values, _, _ in rows], scores.dtype),
        "mean": ([values.double().mean().item() for _, values, _, _ in rows], scores.dtype),
        "area": ([values.numel() for _, values, _, _ in rows], torch.int64),
        "image": ([image for _, _, image, _ in rows], torch.int64),
        "channel": ([channel for _, _, _, channel in rows], torch.int64),
    }
    tensors = {name: torch.tensor(column, dtype=dtype) for name, (column, dtype) in columns.items()}
    tensors["boxes"] = tensors["boxes"].reshape(-1, 4)
    return ComponentBoxes(**{name: column.to(scores.device) for name, column in tensors.items()})


def component_boxes_static(
    scores: torch.Tensor,  # [B, K, H, W]
    threshold: float | torch.Tensor,  # scalar or [K]
    *,
    capacity: int,
    connectivity: int = 8,
    select: str = "all",
    min_area: int = 1,
) -> StaticComponentBoxes:
    """The specification of :func:`cxrfast.ops.component_boxes_static`."""
    found = component_boxes(scores, threshold, connectivity=connectivity, select=select, min_area=min_area)
    padded = ComponentBoxes(*(column.new_zeros(capacity, *column.shape[1:]) for column in found))
    padded.image.fill_(-1)
    padded.channel.fill_(-1)
    count = found.area.numel()
    for into, column in zip(padded, found, strict=True):
        into[:count] = column[:capacity]
    return StaticComponentBoxes(*padded, torch.tensor(count, device=scores.device))


def _selected(regions: list[torch.Tensor], score_map: torch.Tensor, select: str) -> list[torch.Tensor]:
    if select == "all" or not regions:
        return regions
    if select == "largest":
        return [max(regions, key=lambda region: int(region.sum()))]  # max returns the first of equal ones
    highest = max(score_map[region].max().item() for region in regions)
    at_highest = torch.stack(regions).any(0) & (score_map == highest)
    first = at_highest.flatten().nonzero()[0]
    return [region for region in regions if region.flatten()[first]]


def _box(region: torch.Tensor) -> list[int]:
    """x0, y0, x1, y1, half-open."""
    ys, xs = region.nonzero().unbind(1)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]

"""Lesions of the eight boxed classes of ChestX-ray14, each with its place, size and texture.

A lesion is a change of density and the region that a radiologist would put a box around. Cardiomegaly is no lesion
here but an enlarged heart (see :class:`cxrfast.data.phantoms.anatomy.Chest`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cxrfast.data.phantoms.anatomy import MIDLINE, SIDES, Chest, bell, ramp, smooth_noise


@dataclass(frozen=True)
class Lesion:
    density: np.ndarray  # [S, S], added to the chest's
    region: np.ndarray  # [S, S] bool
    vessels: np.ndarray | float = 1.0  # [S, S], what is left of the vessels' markings


def draw_lesion(name: str, chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> Lesion | None:
    """A lesion of class ``name`` beside the regions ``taken`` [S, S] bool; None if no try finds room."""
    for _ in range(12):
        lesion = DRAW[name](chest, rng, int(rng.choice(SIDES)))
        area = lesion.region.sum()
        if area < 2e-3 * lesion.region.size:
            continue
        seen = chest.visible_lung[lesion.region].mean()
        if seen > 0.75 and (lesion.region & taken).sum() < 0.05 * area:
            return lesion
    return None


def region_box(region: np.ndarray) -> tuple[int, int, int, int]:
    """Tight half-open xyxy box of a bool mask, in pixels."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _local(chest: Chest, side: int, d: float, v: float, angle: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates about a point of one lung, turned by ``angle``."""
    x, y = chest.u - (MIDLINE + side * d), chest.v - v
    c, s = math.cos(angle), math.sin(angle)
    return c * x + s * y, -s * x + c * y


def _atelectasis(chest: Chest, rng: np.random.Generator, side: int) -> Lesion:
    """Two or three parallel plates in the lower lung."""
    x, y = _local(chest, side, rng.uniform(0.17, 0.25), rng.uniform(0.56, 0.68), rng.uniform(-0.25, 0.25))
    half_length, step = rng.uniform(0.08, 0.12), rng.uniform(0.036, 0.046)
    count = rng.integers(2, 4)
    density = np.zeros_like(x)
    for number in range(count):
        centre = (number - (count - 1) / 2) * step
        length = half_length * rng.uniform(0.8, 1.0)
        plate = ramp(length - np.abs(x - rng.normal(0, 0.01)), 0.03) * bell(y - centre - 1.2 * x * x, 0.011)
        density = np.maximum(density, plate)
    density *= chest.lungs
    return Lesion(0.30 * density, density > 0.35)


def _effusion(chest: Chest, rng: np.random.Generator, side: int) -> Lesion:
    """Fluid over the diaphragm, its level rising to the chest wall."""
    depth = rng.uniform(0.04, 0.15)
    level = chest.base + 0.02 - depth - rng.uniform(1.6, 2.6) * np.square(np.maximum(chest.d - 0.13, 0))
    mask = ramp(chest.v - level, 0.02) * chest.lungs * chest.side(side)
    return Lesion(0.36 * mask * (1 - 0.7 * chest.heart), mask * chest.visible_lung > 0.5, 1 - mask)


def _infiltration(chest: Chest, rng: np.random.Generator, side: int) -> Lesion:
    """A cloud of soft patches in the middle of a lung, without a border."""
    x, y = _local(chest, side, rng.uniform(0.17, 0.25), rng.uniform(0.36, 0.58), rng.uniform(-0.5, 0.5))
    radius = np.hypot(x / rng.uniform(0.085, 0.12), y / rng.uniform(0.10, 0.15))
    cloud = np.exp(-np.square(np.square(radius))) * chest.lungs
    patches = ramp(smooth_noise(rng, chest.size, 26) + 0.1, 1.6)
    return Lesion(0.27 * cloud * patches, cloud > 0.4)


def _round_shadow(chest: Chest, rng: np.random.Generator, side: int, radius: float, amount: float) -> Lesion:
    x, y = _local(chest, side, rng.uniform(0.12, 0.30), rng.uniform(0.20, 0.66))
    direction = np.arctan2(y, x)
    lobes = 1 + 0.05 * np.cos(2 * direction + rng.uniform(0, 6)) + 0.04 * np.cos(3 * direction + rng.uniform(0, 6))
    inside = radius * lobes - np.hypot(x, y)
    mask = ramp(inside, 0.018) * chest.lungs
    # A ball is thickest in its middle
    thickness = 0.65 + 0.35 * np.sqrt(np.clip(inside / radius, 0, 1))
    return Lesion(amount * mask * thickness, mask > 0.5)


def _mass(chest: Chest, rng: np.random.Generator, side: int) -> Lesion:
    return _round_shadow(chest, rng, side, rng.uniform(0.075, 0.105), 0.36)


def _nodule(chest: Chest, rng: np.random.Generator, side: int) -> Lesion:
    return _round_shadow(chest, rng, side, rng.uniform(0.037, 0.049), 0.38)


def _pneumonia(chest: Chest, rng: np.random.Generator, side: int) -> Lesion:
    """A lobe turned dense, sharp at a fissure and fading at its other end, with air-filled bronchi in it."""
    if rng.random() < 0.5:  # upper lobe, fissure below
        fissure = rng.uniform(0.40, 0.47) + 0.15 * (chest.d - 0.2)
        lobe = ramp(fissure - chest.v, 0.012) * ramp(chest.v - fissure + rng.uniform(0.17, 0.24), 0.06)
        hilum = 0.44
    else:  # lower lobe, fissure above
        fissure = rng.uniform(0.48, 0.54) - 0.15 * (chest.d - 0.2)
        lobe = ramp(chest.v - fissure, 0.012) * ramp(fissure + rng.uniform(0.16, 0.22) - chest.v, 0.06)
        hilum = 0.46
    lobe = lobe * chest.visible_lung * chest.side(side) * ramp(chest.d - 0.075, 0.02)
    bearing = np.arctan2(chest.v - hilum, chest.d - 0.06) + 0.06 * smooth_noise(rng, chest.size, 8)
    bronchi = ramp(np.cos(17 * bearing + rng.uniform(0, 6)) - 0.8, 0.3) * bell(chest.d - 0.17, 0.08)
    texture = 0.29 + 0.03 * smooth_noise(rng, chest.size, 40) - 0.17 * bronchi
    return Lesion(lobe * texture, lobe * chest.visible_lung > 0.5, 1 - 0.9 * lobe)


def _pneumothorax(chest: Chest, rng: np.random.Generator, side: int) -> Lesion:
    """Air between chest wall and lung, at the apex and beside it: black, without markings, behind a thin line."""
    reach = rng.uniform(0.35, 0.55)  # of the lung's height
    depth = rng.uniform(0.06, 0.10) * np.sqrt(np.clip(1 - chest.height / reach, 0, 1))
    wall, apex = np.maximum(chest.wall, 1e-3), np.maximum(0.9 * (chest.v - chest.build.lung_top), 1e-3)
    from_wall = wall * apex / np.hypot(wall, apex) - depth  # a minimum without a kink
    lung = chest.lungs * chest.side(side)
    air = ramp(-from_wall, 0.008) * (depth > 0) * lung
    line = bell(from_wall, 0.005) * (depth > 0.008) * lung
    collapsed = lung * ramp(from_wall, 0.01)
    return Lesion(0.17 * line - 0.17 * air + 0.05 * collapsed, air > 0.5, 1 - air)


DRAW: dict[str, Callable[[Chest, np.random.Generator, int], Lesion]] = {
    "Atelectasis": _atelectasis,
    "Effusion": _effusion,
    "Infiltration": _infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Pneumonia": _pneumonia,
    "Pneumothorax": _pneumothorax,
}

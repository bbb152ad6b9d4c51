"""A crude frontal chest X-ray: soft tissue, lungs, mediastinum, heart, bones and vessels as densities that add up.

Lengths are fractions of the image side. ``u`` runs from the left of the image to its right and ``v`` downwards; as in
any frontal radiograph, the patient's right lung is on the left of the image. ``d`` is the distance from the midline.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MIDLINE = 0.5
SIDES = (-1, 1)  # of the image: the patient's right lung, the patient's left lung


def ramp(x: np.ndarray, width: float) -> np.ndarray:
    """0 below -width/2, 1 above width/2, linear between: an edge that is not aliased."""
    return np.clip(x / width + 0.5, 0.0, 1.0)


def bell(x: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-np.square(x / width))


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """[size, size] of unit variance at its nodes, with features of 1/cells of the side."""
    import cv2

    coarse = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


@dataclass(frozen=True)
class Build:
    """What stays the same in all images of a patient."""

    sex: str
    age: int
    lung_width: float  # from the midline to the chest wall
    lung_top: float
    lung_base: float  # of the higher point of the right dome
    heart: float  # half the width
    rib_spacing: float
    fat: float  # veils contrast
    breasts: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Build":
        sex = "F" if rng.random() < 0.45 else "M"
        return cls(
            sex=sex,
            age=int(np.clip(rng.normal(52, 17), 18, 92)),
            lung_width=rng.uniform(0.345, 0.385),
            lung_top=rng.uniform(0.09, 0.13),
            lung_base=rng.uniform(0.70, 0.76),
            heart=rng.uniform(0.135, 0.155),
            rib_spacing=rng.uniform(0.074, 0.086),
            fat=rng.uniform(0.0, 0.12),
            breasts=rng.uniform(0.04, 0.12) if sex == "F" else 0.0,
        )


@dataclass(frozen=True)
class Pose:
    """How the patient stood: a similarity transform of the picture about its centre."""

    angle: float  # radians
    scale: float
    shift: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Pose":
        shift = (rng.uniform(-0.025, 0.025), rng.uniform(-0.025, 0.025))
        return cls(math.radians(rng.uniform(-3, 3)), rng.uniform(0.95, 1.05), shift)

    def grid(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """u, v of every pixel centre, float32 [size, size] each."""
        line = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) / self.scale
        x, y = np.meshgrid(line - self.shift[0], line - self.shift[1])
        c, s = math.cos(self.angle), math.sin(self.angle)
        return c * x + s * y + 0.5, -s * x + c * y + 0.5

    def pixels(self, points: np.ndarray, size: int) -> np.ndarray:
        """u, v [N, 2] -> x, y in pixels [N, 2]: the inverse of :meth:`grid`."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        u, v = (points - 0.5).T
        x, y = c * u - s * v + self.shift[0], s * u + c * v + self.shift[1]
        return (np.stack([x, y], axis=1) * self.scale + 0.5) * size - 0.5


class Chest:
    """The fields from which an image is composed, each float32 ``[size, size]``.

    ``heart_scale`` above 1 enlarges the heart.
    """

    def __init__(self, build: Build, pose: Pose, size: int, rng: np.random.Generator, heart_scale: float = 1.0):
        self.build, self.pose, self.size = build, pose, size
        self.u, self.v = pose.grid(size)
        self.d = np.abs(self.u - MIDLINE)
        self.is_right_of_image = self.u > MIDLINE
        self.edge = max(1.5 / size, 0.006)
        self.breath = rng.uniform(-0.02, 0.03)  # how much deeper than usual
        self.heart_scale = heart_scale
        self.heart_tilt = rng.uniform(0.45, 0.65)
        # Height in the lung: 0 at the apex, 1 at the diaphragm's mean level. Left dome a little lower.
        self.base = build.lung_base + self.breath + np.where(self.is_right_of_image, 0.025, 0.0).astype(np.float32)
        self.height = (self.v - build.lung_top) / (self.base - build.lung_top)

    @cached_property
    def wall(self) -> np.ndarray:
        """Distance to the chest wall beside the lung, positive inside."""
        h = np.clip(self.height, 0, 1)
        return 0.14 + (self.build.lung_width - 0.14) * np.sqrt(1 - np.square(1 - h)) - self.d

    @cached_property
    def lung_margin(self) -> np.ndarray:
        """About the distance to the nearest border of the lung, positive inside."""
        h = np.clip(self.height, 0, 1)
        medial = self.d - (0.05 + 0.06 * np.square(1 - np.minimum(2.5 * h, 1)))
        apex = self.v - self.build.lung_top - 0.9 * np.square(np.maximum(0.14 - self.d, 0))
        return np.minimum(np.minimum(self.wall, medial), np.minimum(self._dome - self.v, apex))

    @cached_property
    def belly(self) -> np.ndarray:
        """1 below the domes of the diaphragm."""
        return ramp(self.v - self._dome, 2 * self.edge)

    @cached_property
    def _dome(self) -> np.ndarray:
        """The height v of the diaphragm: domes that fall off towards the chest wall."""
        return self.base + 0.10 * np.square((self.d - 0.17) / 0.19)

    @cached_property
    def lungs(self) -> np.ndarray:
        return ramp(self.lung_margin, 2 * self.edge)

    @cached_property
    def heart_radius(self) -> np.ndarray:
        """Below 1 in the heart: an ellipse that lies towards the patient's left and points down."""
        width = self.build.heart * self.heart_scale
        x = self.u - (MIDLINE + 0.045 + 0.25 * (width - 0.14))
        y = self.v - (self.build.lung_base + self.breath - 0.085)
        c, s = math.cos(self.heart_tilt), math.sin(self.heart_tilt)
        along, across = c * x + s * y, -s * x + c * y
        return np.sqrt(np.square(along / (1.08 * width)) + np.square(across / (0.82 * width)))

    @cached_property
    def heart(self) -> np.ndarray:
        return ramp((1 - self.heart_radius) * self.build.heart, 3 * self.edge)

    @cached_property
    def visible_lung(self) -> np.ndarray:
        """Lung that the heart does not cover."""
        return self.lungs * (1 - self.heart)

    def side(self, side: int) -> np.ndarray:
        return self.is_right_of_image if side > 0 else ~self.is_right_of_image

    def density(self, rng: np.random.Generator) -> np.ndarray:
        """Everything but lesions and vessels."""
        body = self._body()
        soft = 0.60 + 0.05 * smooth_noise(rng, self.size, 4) * (1 - self.lungs)
        soft += 0.10 * ramp(self.v - self.base, 0.15) * (1 - self.lungs)
        soft -= (0.36 - self.build.fat) * self.lungs
        soft += self._mediastinum(rng) + self._bones() + self._breasts()
        soft -= 0.22 * self._gas(rng)
        return soft * body + 0.02

    def _body(self) -> np.ndarray:
        x = np.maximum(self.d - 0.09, 0)
        shoulder = self.v - 0.10 * np.minimum(x / 0.10, 1) - 0.65 * np.square(x) + 0.06
        flank = 0.45 + 0.6 * np.square(np.maximum(0.45 - self.v, 0)) - self.d
        return ramp(shoulder, 0.02) * ramp(flank, 0.02)

    def _mediastinum(self, rng: np.random.Generator) -> np.ndarray:
        v, d = self.v, self.d
        band = ramp(0.05 + 0.025 * np.square(v) - d, 0.05) * ramp(v - 0.04, 0.2)
        knob = ramp(0.045 - np.hypot(self.u - MIDLINE - 0.055, v - 0.335), 0.02)
        descending = bell(self.u - MIDLINE - 0.05, 0.03) * ramp(v - 0.36, 0.05)
        hila = bell(np.hypot((d - 0.10) * 1.3, v - 0.44 - 0.02 * self.is_right_of_image), 0.045) * rng.uniform(0.8, 1.2)
        # Heart and liver lie side by side in the beam, not one behind the other: no sum below the diaphragm.
        great = np.maximum(np.maximum(0.22 * band, 0.22 * knob), 0.40 * self.heart * (1 - 0.8 * self.belly))
        great = great * (0.3 + 0.7 * self.lungs)  # between the lungs there is no air for it to replace
        vertebrae = 0.5 + 0.5 * np.cos(2 * np.pi * v / 0.062)
        spine = bell(d, 0.04) * (0.02 + 0.05 * vertebrae * (1 - 0.6 * self.heart))
        trachea = bell(d, 0.018) * ramp(0.36 - v, 0.1)
        return great + 0.05 * descending + 0.11 * hila * (1 - band) + spine - 0.13 * trachea

    def _bones(self) -> np.ndarray:
        d, v, spacing = self.d, self.v, self.build.rib_spacing
        cage = ramp(self.build.lung_width + 0.035 - d, 0.03) * ramp(0.93 - v, 0.25)
        x = d / 0.38
        back = _ribs(v - self.build.lung_top - 0.17 * x * x + 0.06 * np.sin(np.pi * np.minimum(x, 1)), spacing, 0.017)
        front = _ribs(v - self.build.lung_top - 0.09 - 0.24 * np.power(np.maximum(1 - x, 0), 1.3), 1.2 * spacing, 0.014)
        front *= ramp(d - 0.13, 0.06) * (v > 0.2)
        clavicle = (
            bell(v - (0.165 - 0.16 * d + 0.10 * np.sin(9 * d)), 0.013) * ramp(d - 0.04, 0.02) * ramp(0.38 - d, 0.05)
        )
        scapula = 0.05 * ramp(d - self.build.lung_width - 0.01, 0.03) * ramp(v - 0.14, 0.08) * ramp(0.48 - v, 0.15)
        return cage * (0.075 * back + 0.04 * front) + 0.11 * clavicle + scapula

    def _breasts(self) -> np.ndarray | float:
        if not self.build.breasts:
            return 0.0
        radius = np.hypot((self.d - 0.23) / 0.17, (self.v - 0.62) / 0.15)
        return self.build.breasts * ramp(1 - radius, 0.25)

    def _gas(self, rng: np.random.Generator) -> np.ndarray | float:
        """The stomach's bubble under the patient's left dome, in some."""
        if rng.random() < 0.5:
            return 0.0
        x, y = self.u - rng.uniform(0.64, 0.74), self.v - (self.base + rng.uniform(0.07, 0.10))
        return ramp(1 - np.hypot(x / rng.uniform(0.05, 0.09), y / 0.035), 0.5)

    def vessels(self, rng: np.random.Generator) -> np.ndarray:
        """Branches from the hila, thinner outwards, [0, 1]."""
        import cv2

        canvas = np.zeros((self.size, self.size), np.uint8)
        width = self.size / 256
        for side in SIDES:
            for angle in np.linspace(-1.25, 1.35, 13) + rng.normal(0, 0.08, 13):
                length, bend = rng.uniform(0.16, 0.30), rng.normal(0, 0.5)
                self._branch(canvas, side, (0.085, 0.45), angle, bend, length, 2.6 * width)
                middle = 0.5 * length
                start = (0.085 + middle * np.cos(angle), 0.45 + middle * np.sin(angle))
                self._branch(canvas, side, start, angle + rng.choice((-0.6, 0.6)), -bend, 0.5 * length, 1.4 * width)
        return cv2.GaussianBlur(canvas, (0, 0), 0.7 * width).astype(np.float32) / 255

    def _branch(self, canvas, side, start, angle, bend, length, thickness):
        import cv2

        t = np.linspace(0, 1, 7)
        turn = angle + bend * t
        d = start[0] + length * np.cumsum(np.cos(turn)) / 7
        v = start[1] + length * np.cumsum(np.sin(turn)) / 7
        points = self.pose.pixels(np.stack([MIDLINE + side * d, v], axis=1), self.size)
        fixed = np.round(points * 16).astype(np.int32)  # four fractional bits
        for begin, end, share, grey in ((0, 4, 1.0, 255), (3, 7, 0.6, 190)):
            size = max(1, round(thickness * share))
            cv2.polylines(canvas, [fixed[begin:end]], False, grey, size, cv2.LINE_AA, 4)


def _ribs(v: np.ndarray, spacing: float, half_width: float) -> np.ndarray:
    """Ten parallel bands below v = 0 with brighter rims, as a cut through a tube looks."""
    phase = v / spacing
    number = np.round(phase)
    off = np.abs(phase - number) * spacing
    band = ramp(half_width - off, 0.008) * (0.65 + 0.5 * np.square(off / half_width))
    return band * ((number >= 0) & (number <= 9))

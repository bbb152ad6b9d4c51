"""Writes the maps of an evaluation to a file."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from cxrfast._files import atomic_path
from cxrfast.evaluation.sources import MapSource
from cxrfast.regions.rule import MethodDefaults


def write_maps(
    path: str | os.PathLike, source: MapSource, images: Sequence[str], class_names: Sequence[str], own: MethodDefaults
) -> None:
    """Write compressed maps with the method's defaults, in the format that `evaluate --predictions` reads."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            images=np.array([images[n] for n in source.images.tolist()], dtype=np.str_),
            classes=np.array(class_names, dtype=np.str_),
            maps=source.maps.numpy(),
            thresholds=own.thresholds.double().cpu().numpy(),
            operating_points=own.operating_points.double().cpu().numpy(),
            region_rule=np.array(json.dumps(asdict(own.rule))),
            image_size=np.array(source.image_size or 0),
        )

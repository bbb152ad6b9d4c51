"""From maps to regions, and the thresholds of maps."""

from cxrfast.regions.map_thresholds import AnnotatedMaps, annotated_maps, fit_map_thresholds
from cxrfast.regions.rule import RegionRule, Regions

__all__ = [
    "AnnotatedMaps",
    "RegionRule",
    "Regions",
    "annotated_maps",
    "fit_map_thresholds",
]

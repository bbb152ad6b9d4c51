"""Bag experiments: which images of a bag are positive, learnt from one label per bag."""

from cxrfast.bags.drawing import Bags, draw_bags, parse_positives
from cxrfast.bags.experiment import Outcome, Settings, train_bags
from cxrfast.bags.grid import finished, make_grid, run_grid
from cxrfast.bags.images import LabelledImages, Source, read_source
from cxrfast.bags.methods import METHODS
from cxrfast.bags.metrics import bag_iou
from cxrfast.bags.networks import default_network
from cxrfast.bags.parsing import parse_fields
from cxrfast.bags.presets import PRESETS, Plan, Preset, find_preset
from cxrfast.bags.results import markdown, summarize

__all__ = [
    "METHODS",
    "PRESETS",
    "Bags",
    "LabelledImages",
    "Outcome",
    "Plan",
    "Preset",
    "Settings",
    "Source",
    "bag_iou",
    "default_network",
    "draw_bags",
    "find_preset",
    "finished",
    "make_grid",
    "markdown",
    "parse_fields",
    "parse_positives",
    "read_source",
    "run_grid",
    "summarize",
    "train_bags",
]

"""Bag experiments: methods learn from one label per bag which images of the bag are positive."""

from cxrfast.experiments.bags.drawing import Bags, draw_bags, parse_positives
from cxrfast.experiments.bags.experiment import BagOutcome, BagSettings, train_bags
from cxrfast.experiments.bags.grid import finished, make_grid, run_grid
from cxrfast.experiments.bags.images import BagSource, LabelledImages, read_source
from cxrfast.experiments.bags.methods import METHODS
from cxrfast.experiments.bags.metrics import bag_iou
from cxrfast.experiments.bags.networks import default_network
from cxrfast.experiments.bags.parsing import parse_fields
from cxrfast.experiments.bags.presets import PRESETS, BagPlan, BagPreset, find_preset
from cxrfast.experiments.bags.results import markdown, summarize

__all__ = [
    "METHODS",
    "PRESETS",
    "BagOutcome",
    "BagPlan",
    "BagPreset",
    "BagSettings",
    "BagSource",
    "Bags",
    "LabelledImages",
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

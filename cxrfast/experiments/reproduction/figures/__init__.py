"""The figures of Seibold et al. 2020: a grid of bag experiments each, and what the text says of it."""

from cxrfast.experiments.reproduction.figures.claims import CLAIMS
from cxrfast.experiments.reproduction.figures.plans import FIGURES

__all__ = ["CLAIMS", "FIGURES"]

"""The figures of Seibold et al. 2020: one grid of bag experiments per figure, and the claims of the text about it."""

from cxrfast.experiments.reproduction.figures.claims import CLAIMS
from cxrfast.experiments.reproduction.figures.plans import FIGURES

__all__ = ["CLAIMS", "FIGURES"]

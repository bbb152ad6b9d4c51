"""What a data set contains: counts of images, labels and boxes, image files, duplicates and leakage between splits."""

from cxrfast.data.summary.build import summarize
from cxrfast.data.summary.record import DataSummary

__all__ = ["DataSummary", "summarize"]

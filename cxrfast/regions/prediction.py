"""The interface of trained models: images in, scores and maps out."""

from typing import NamedTuple, Protocol

import torch

from cxrfast.errors import CxrfastError
from cxrfast.regions.rule import RegionRule


class Prediction(NamedTuple):
    """Output for B images and K classes, on a grid of P×P patches."""

    scores: torch.Tensor  # [B, K] in (0, 1): probability that the class is on the image
    maps: torch.Tensor  # [B, K, P, P] in [0, 1]: evidence in each patch


class Predictor(Protocol):
    """A trained model. Attributes are read-only."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K classes, in the order of the predictions."""

    @property
    def image_size(self) -> int:
        """S: input images have S×S pixels."""

    @property
    def method(self) -> str:
        """Name of its method, for example "rozenberg"."""

    @property
    def label_version(self) -> str:
        """Version of its training labels."""

    @property
    def weights(self) -> str:
        """Path of its weights file."""

    @property
    def thresholds(self) -> torch.Tensor:
        """float [K]: a patch of class k is positive if its value in the map is at least ``thresholds[k]``."""

    @property
    def region_rule(self) -> RegionRule:
        """How positive patches become the regions of a class."""

    @property
    def operating_points(self) -> torch.Tensor:
        """float [K]: class k is called present if its score is at least ``operating_points[k]``."""

    @property
    def device(self) -> torch.device:
        """Device of the model; images must be there before the call."""

    def __call__(
        self,
        images: torch.Tensor,  # [B, 1, S, S] float32 in [-1, 1]
    ) -> Prediction: ...


def predict(predictor: Predictor, images: torch.Tensor) -> Prediction:
    """``predictor(images)`` on its device, without gradients. CxrfastError if the output is NaN or infinite."""
    with torch.inference_mode():
        prediction = predictor(images.to(predictor.device, non_blocking=True))
    # One sum shows whether any value is NaN or infinite, with a single copy from the device.
    if not torch.isfinite(prediction.scores.double().sum() + prediction.maps.double().sum()):
        raise CxrfastError(
            f"{predictor.weights}: the model's output is not a number; its training diverged, train it again with a "
            f"smaller learning rate"
        )
    return prediction

"""What a trained model is to everything that uses one: images in, scores and maps out."""

from typing import NamedTuple, Protocol

import torch

from cxrfast.errors import CxrfastError
from cxrfast.regions.rule import RegionRule


class Prediction(NamedTuple):
    """Of B images, K classes, on a grid of P×P patches."""

    scores: torch.Tensor  # [B, K] in (0, 1): is the class on the image
    maps: torch.Tensor  # [B, K, P, P] in [0, 1]: is it in the patch


class Predictor(Protocol):
    """A trained model with what is needed to use it. Attributes are read, never written."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K classes, in the order of the predictions."""

    @property
    def image_size(self) -> int:
        """S: the images it takes have S×S pixels."""

    @property
    def method(self) -> str:
        """Name of the method that it was trained with, for example "rozenberg"."""

    @property
    def label_version(self) -> str:
        """Version of the labels that it was trained on."""

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
        """Where it computes; images are moved there before the call."""

    def __call__(
        self,
        images: torch.Tensor,  # [B, 1, S, S] float32 in [-1, 1]
    ) -> Prediction: ...


def predict(predictor: Predictor, images: torch.Tensor) -> Prediction:
    """``predictor(images)`` on its device, without gradients; output that is NaN or infinite is an error."""
    with torch.inference_mode():
        prediction = predictor(images.to(predictor.device, non_blocking=True))
    # One sum of everything tells whether anything is NaN or infinite, in one copy from the device.
    if not torch.isfinite(prediction.scores.double().sum() + prediction.maps.double().sum()):
        raise CxrfastError(
            f"{predictor.weights}: the model's output is not a number; its training diverged, train it again with a "
            f"smaller learning rate"
        )
    return prediction

"""A predictor whose answers are known, for tests of what is done with them."""

from collections.abc import Callable

import torch

from cxrfast.regions.prediction import Prediction
from cxrfast.regions.rule import RegionRule

Answer = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class FakePredictor:
    """Says what ``answer(image [S, S]) -> (scores [K], map [K, P, P])`` says of each image."""

    method = "fake"
    label_version = "v2020"
    weights = "runs/fake/weights/best.safetensors"
    device = torch.device("cpu")

    def __init__(self, class_names: tuple[str, ...], image_size: int, answer: Answer, threshold: float = 0.5):
        self.class_names = class_names
        self.image_size = image_size
        self.answer = answer
        self.thresholds = torch.full((len(class_names),), threshold)
        self.region_rule = RegionRule()
        self.operating_points = torch.full((len(class_names),), 0.5)

    def __call__(self, images: torch.Tensor) -> Prediction:
        assert images.shape[1:] == (1, self.image_size, self.image_size)
        assert images.dtype == torch.float32
        assert images.min() >= -1
        assert images.max() <= 1
        scores, maps = zip(*(self.answer(image[0]) for image in images), strict=True)
        return Prediction(torch.stack(scores), torch.stack(maps))


def constant_answer(scores: list[float], maps: torch.Tensor) -> Answer:
    """The same answer for every image."""
    return lambda image: (torch.tensor(scores), maps)

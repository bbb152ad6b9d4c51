"""Li's method: Eq. 1 to 3 from the batch to the loss and the scores, in plain probabilities."""

import pytest
import torch

from tests.methods.test_methods import batch, build
from tests.tolerances import assert_close


@pytest.mark.parametrize("lambda_box", [0.0, 5.0])
def test_the_loss_is_eq_3_of_the_batch(lambda_box):
    data = batch()
    logits = torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(1)) - 3
    p = logits.double().sigmoid()
    # The box, from 10 to 40 of 64 pixels, covers patches 1 to 3 of 6 by at least half.
    inside = torch.zeros(6, 6, dtype=torch.bool)
    inside[1:4, 1:4] = True
    total = torch.zeros((), dtype=torch.float64)
    for image in range(6):
        for k in range(2):
            patches = p[image, k]
            if data["has_box"][image, k].any():
                total -= lambda_box * (patches[inside].log().sum() + (1 - patches[~inside]).log().sum())  # Eq. 1
            else:
                finding = 1 - (1 - patches).prod()  # Eq. 2
                total -= finding.log() if data["labels"][image, k] else (1 - finding).log()
    assert_close(build("li", lambda_box=lambda_box).loss(logits, data), (total / 6).float())


def test_the_score_is_the_noisy_or_of_the_map():
    method = build("li").eval()
    scores, maps = method.predict(torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(2)), "patches")
    assert_close(scores, (1 - (1 - maps.double()).prod(dim=-1).prod(dim=-1)).float())


def test_patches_from_the_region_threshold_on_are_positive():
    assert build("li", region_threshold=0.3).map_thresholds.tolist() == pytest.approx([0.3, 0.3])

"""IoU per bag against sets."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.experiments.bags import bag_iou


@given(st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=6), min_size=1, max_size=8))
@settings(deadline=None)
def test_against_sets(bags):
    offsets = torch.tensor([0, *(len(bag) for bag in bags)]).cumsum(0)
    instances = torch.tensor([pair for bag in bags for pair in bag], dtype=torch.bool).view(-1, 2)
    result = bag_iou(instances[:, 0], instances[:, 1], offsets)
    assert result.dtype == torch.float64
    for bag, value in zip(bags, result.tolist(), strict=True):
        predicted, true = ({i for i, pair in enumerate(bag) if pair[kind]} for kind in (0, 1))
        if predicted | true:
            assert value == pytest.approx(len(predicted & true) / len(predicted | true))
        else:
            assert math.isnan(value)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="offsets up to 4"):
        bag_iou(torch.ones(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool), torch.tensor([0, 4]))

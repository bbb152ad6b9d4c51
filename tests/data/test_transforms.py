"""Resizing, normalisation, and boxes that stay on what they mark."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.data.transforms import Augmentation, resize, to_input
from cxrfast.errors import UsageError

SIZE = 128


def test_shrinking_averages():
    fine = np.indices((64, 64)).sum(axis=0).astype(np.float32) % 2  # a checkerboard aliases under point sampling
    np.testing.assert_allclose(resize(fine, 16), 0.5, atol=1e-6)
    assert resize(np.zeros((30, 50), np.float32), 40).shape == (40, 40)
    assert resize(fine, 64) is fine


def test_to_input_range_and_shape():
    ramp = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    tensor = to_input(ramp, 10)
    assert tensor.shape == (1, 10, 10)
    assert tensor.dtype == torch.float32
    assert (tensor.min(), tensor.max()) == (-1, 1)


def ellipse(box):
    """[1, S, S]: 1 inside the ellipse of the box."""
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    u = (x - (box[0] + box[2]) / 2) / ((box[2] - box[0]) / 2)
    v = (y - (box[1] + box[3]) / 2) / ((box[3] - box[1]) / 2)
    return (u * u + v * v <= 1).float()[None]


coordinate = st.integers(30, 60)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), left=coordinate, top=coordinate, width=st.integers(16, 40), flip=st.booleans())
def test_boxes_move_with_the_image(seed, left, top, width, flip):
    box = torch.tensor([[left, top, left + width, top + 24.0]])
    augment = Augmentation(rotation=20, scale=(0.8, 1.2), brightness=0, contrast=0, flip=float(flip))
    torch.manual_seed(seed)
    image, moved = augment(ellipse(box[0]), box)
    rows, columns = (image[0] > 0.5).nonzero().unbind(1)
    tight = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
    assert (moved[0] - tight).abs().max() < 2


def test_identity_draw_keeps_boxes():
    augment = Augmentation(rotation=0, translate=0, scale=(1, 1), brightness=0, contrast=0)
    image, boxes = torch.rand(1, SIZE, SIZE), torch.tensor([[3.0, 5.0, 20.0, 50.0], [0.0, 0.0, 128.0, 128.0]])
    moved, moved_boxes = augment(image, boxes)
    torch.testing.assert_close(moved, image)
    torch.testing.assert_close(moved_boxes, boxes)


def test_a_seed_reproduces_a_draw():
    image, boxes = torch.rand(1, SIZE, SIZE), torch.tensor([[30.0, 30.0, 60.0, 70.0]])
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(Augmentation()(image, boxes))
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][0], draws[2][0])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_boxes_stay_visible_and_inside(seed):
    corner_box = torch.tensor([[0.0, 0.0, 10.0, 10.0], [100.0, 110.0, 128.0, 128.0]])
    torch.manual_seed(seed)
    image, boxes = Augmentation(translate=0.3, scale=(0.5, 2.0))(torch.rand(1, SIZE, SIZE), corner_box)
    assert boxes.min() >= 0
    assert boxes.max() <= SIZE
    assert ((boxes[:, 2:] - boxes[:, :2]) > 1).all()
    assert image.min() >= 0
    assert image.max() <= 1


def test_geometry_is_kept_where_every_draw_loses_a_box():
    augment = Augmentation(rotation=0, scale=(4, 4), brightness=0, contrast=0)
    image, boxes = torch.rand(1, SIZE, SIZE), torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    moved, moved_boxes = augment(image, boxes)
    assert torch.equal(moved, image)
    assert torch.equal(moved_boxes, boxes)


def test_works_without_boxes():
    image, boxes = Augmentation()(torch.rand(1, SIZE, SIZE), torch.zeros(0, 4))
    assert image.shape == (1, SIZE, SIZE)
    assert boxes.shape == (0, 4)


@pytest.mark.parametrize("options", [{"rotation": -1}, {"flip": 2}, {"scale": (1.2, 0.8)}, {"min_visible": -0.1}])
def test_wrong_options_are_named(options):
    with pytest.raises(UsageError, match=f"augmentation {next(iter(options))}"):
        Augmentation(**options)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), left=coordinate, top=coordinate, width=st.integers(16, 40))
def test_boxes_move_with_the_crop(seed, left, top, width):
    box = torch.tensor([[left, top, left + width, top + 24.0]])
    augment = Augmentation(rotation=0, translate=0, scale=(1, 1), brightness=0, contrast=0, crop=7 / 8)
    torch.manual_seed(seed)
    image, moved = augment(ellipse(box[0]), box)
    assert image.shape == (1, SIZE * 7 // 8, SIZE * 7 // 8)
    rows, columns = (image[0] > 0.5).nonzero().unbind(1)
    tight = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
    assert (moved[0] - tight).abs().max() < 2


def test_a_crop_that_would_lose_a_box_is_taken_around_it():
    box = torch.tensor([[100.0, 0.0, 128.0, 20.0]])
    augment = Augmentation(rotation=0, translate=0, scale=(1, 1), brightness=0, contrast=0, crop=0.25, attempts=1)
    for seed in range(10):
        torch.manual_seed(seed)
        image, moved = augment(ellipse(box[0]), box)
        assert image.shape == (1, 32, 32)
        assert (moved[0, 2:] - moved[0, :2]).prod() >= 0.5 * 28 * 20


def test_every_crop_is_drawn():
    augment = Augmentation(rotation=0, translate=0, scale=(1, 1), brightness=0, contrast=0, crop=0.5)
    torch.manual_seed(0)
    image = torch.arange(4.0).expand(1, 4, 4)
    starts = {augment(image, torch.empty(0, 4))[0][0, 0, 0].item() for _ in range(60)}
    assert starts == {0, 1, 2}

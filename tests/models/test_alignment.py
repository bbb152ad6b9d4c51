"""Frames: transformations and their inverses, the distance that teaches them, and that they are learnt."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.models import AlignmentNetwork, FeatureDistance, align, maps_in_original, shrunk
from cxrfast.models.alignment import inverse, standardized
from tests.tolerances import assert_close

IDENTITY = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])


def theta_of(angle=0.0, wide=1.0, high=1.0, right=0.0, down=0.0, dtype=torch.float64):
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return torch.tensor([[[c * wide, -s * high, right], [s * wide, c * high, down]]], dtype=dtype)


transformations = st.builds(
    theta_of, st.floats(-15, 15), st.floats(0.8, 1.3), st.floats(0.8, 1.3), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)
)


def chest(size=64):
    """A picture with a left, a right, a top and a bottom."""
    line = torch.linspace(-1, 1, size, dtype=torch.float64)
    y, x = line[:, None], line[None, :]
    left = torch.exp(-((x + 0.4) ** 2 / 0.05 + y**2 / 0.2))
    right = 0.6 * torch.exp(-((x - 0.4) ** 2 / 0.04 + (y - 0.1) ** 2 / 0.3))
    return (2 * (left + right).clamp(0, 1) - 1)[None, None]


@settings(max_examples=50, deadline=None)
@given(theta=transformations, place=st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
def test_the_inverse_leads_back(theta, place):
    u = torch.tensor(place, dtype=torch.float64)
    x = theta[0, :, :2] @ u + theta[0, :, 2]
    back = inverse(theta)[0]
    assert_close(back[:, :2] @ x + back[:, 2], u)


def test_aligned_places_are_those_that_theta_names():
    image = torch.full((1, 1, 8, 8), -1.0, dtype=torch.float64)
    image[0, 0, 2, 5] = 1.0  # the pixel with its centre at x = 0.375, y = −0.375
    moved = align(image, theta_of(right=0.25, down=0.5))  # aligned(u) = image(u + t)
    assert (moved[0, 0] > 0).nonzero().tolist() == [[0, 4]]  # two rows up, one column to the left
    assert_close(align(image, IDENTITY.double()), image)
    outside = align(torch.ones(1, 1, 8, 8), theta_of(right=1.0, dtype=torch.float32))
    assert (outside[0, 0, :, :4] == 1).all()
    assert (outside[0, 0, :, 5:] == -1).all()  # black, not grey


@settings(max_examples=25, deadline=None)
@given(theta=transformations)
def test_maps_come_back_to_where_the_image_is(theta):
    """A smooth picture as its own map: aligned and brought back it is what it was, wherever the frame reached."""
    picture = (chest(96) + 1) / 2
    back = maps_in_original(align(2 * picture - 1, theta) / 2 + 0.5, theta)
    reached = maps_in_original(torch.ones_like(picture), theta) > 0
    assert reached.double().mean() > 0.4
    assert (back - picture).abs()[reached].max() < 0.05
    assert (back[~reached] == 0).all()


def test_maps_keep_their_edge_cells():
    ones = torch.ones(2, 3, 4, 4)
    assert torch.equal(maps_in_original(ones, IDENTITY.expand(2, 2, 3)), ones)
    smaller = maps_in_original(ones, theta_of(wide=0.5, high=0.5, dtype=torch.float32).expand(2, 2, 3))
    expected = torch.zeros(4, 4)
    expected[1:3, 1:3] = 1  # the frame covers the middle; nothing fades towards its edge, and nothing is known outside
    assert torch.equal(smaller, expected.expand(2, 3, 4, 4))


def test_starts_at_the_identity_whatever_the_exposure():
    torch.manual_seed(0)
    network = AlignmentNetwork().eval()
    images = torch.rand(3, 1, 100, 100) * 2 - 1
    assert torch.equal(network(images), IDENTITY.expand(3, 2, 3))
    torch.nn.init.normal_(network.last.weight)
    assert_close(network(0.3 * images - 0.2), network(images))


def test_transformations_are_bounded_and_have_no_shear():
    torch.manual_seed(0)
    network = AlignmentNetwork(32, angle=10, scale=1.25, shift=0.1).eval()
    torch.nn.init.normal_(network.last.weight, std=100.0)
    theta = network(torch.randn(64, 1, 32, 32))
    first, second = theta[:, :, 0], theta[:, :, 1]
    assert_close((first * second).sum(1), torch.zeros(64))  # columns stay perpendicular
    for column in (first, second):
        assert (column.norm(dim=1) <= 1.25 + 1e-5).all()
        assert (column.norm(dim=1) >= 0.8 - 1e-5).all()
    assert (torch.atan2(first[:, 1], first[:, 0]).rad2deg().abs() <= 10 + 1e-3).all()
    assert (theta[:, :, 2].abs() <= 0.2 + 1e-6).all()
    assert theta[:, :, 2].abs().max() > 0.19
    assert "bounds" not in network.state_dict()


def test_distance_of_equal_pictures_is_zero_and_grows_with_the_shift():
    distance = FeatureDistance().double()
    picture = chest()
    brighter = 0.5 * picture + 0.2
    assert_close(distance(picture, brighter), torch.zeros(1, dtype=torch.float64))
    shifts = [distance(align(picture, theta_of(right=shift)), picture).item() for shift in (0.0, 0.05, 0.1, 0.2, 0.4)]
    assert shifts == sorted(shifts)
    assert 0.01 < shifts[-1] <= 1
    assert not distance.state_dict()
    assert torch.equal(distance.filters1, FeatureDistance().double().filters1)  # made by a seed, not drawn
    assert not torch.equal(distance.filters1, FeatureDistance(seed=1).double().filters1)
    constant = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    assert distance(constant, picture).isfinite().all()


def test_the_alignment_is_learnt_from_the_distance():
    """Copies of one picture, moved at random: afterwards they lie together."""
    torch.manual_seed(0)
    canonical, distance, network = chest(32).float(), FeatureDistance(levels=2), AlignmentNetwork(32)
    generator = torch.Generator().manual_seed(0)

    def moved(n):
        r = torch.rand(n, 5, generator=generator) * 2 - 1
        rows = [
            theta_of(8 * a, 1 + 0.1 * w, 1 + 0.1 * h, 0.12 * x, 0.12 * y, torch.float32) for a, w, h, x, y in r.tolist()
        ]
        thetas = torch.cat(rows)
        return align(canonical.expand(n, 1, 32, 32), thetas), thetas

    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(120):
        images, _ = moved(12)
        loss = distance(align(images, network(images)), canonical).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    images, thetas = moved(64)
    with torch.no_grad():
        found = network(images)
        after = distance(align(images, found), canonical).mean()
    before = distance(images, canonical).mean()
    assert after < 0.5 * before
    # Where corners of the aligned frame end in the picture before it was moved: what was done, undone
    corners = torch.tensor([[-0.5, 0.5, -0.5, 0.5], [-0.5, -0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0]])
    through = torch.cat([found @ corners, torch.ones(64, 1, 4)], dim=1)
    undone = (thetas @ through - corners[:2]).norm(dim=1).mean()
    not_undone = (thetas @ corners - corners[:2]).norm(dim=1).mean()
    assert undone < 0.5 * not_undone


def test_small_copies():
    images = torch.rand(2, 1, 128, 128)
    assert_close(shrunk(images, 64), torch.nn.functional.avg_pool2d(images, 2))
    assert shrunk(images[..., :32, :32], 64).shape == (2, 1, 64, 64)
    flat = standardized(torch.full((1, 1, 4, 4), 0.7))
    assert flat.abs().max() < 1e-2
    scaled = standardized(images)
    assert_close(scaled.mean(dim=(2, 3)), torch.zeros(2, 1))
    assert_close(scaled.square().mean(dim=(2, 3)), torch.ones(2, 1))


@pytest.mark.parametrize("size", [0, 8, 40])
def test_wrong_size(size):
    with pytest.raises(ValueError, match=f"size: expected a multiple of 16, got {size}"):
        AlignmentNetwork(size)

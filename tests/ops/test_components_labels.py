"""connected_components against its reference, scipy, and patterns that are hard to label."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast import reference
from cxrfast.ops import connected_components
from tests.ops.inputs import LAYOUTS, laid_out, random_mask
from tests.tolerances import assert_close

MASK_DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64)


def spiral(size):
    """One corridor that winds inwards: its two ends are joined only after many rows."""
    mask = torch.zeros(size, size, dtype=torch.bool)
    y, x, dy, dx = 0, 0, 0, 1
    mask[0, 0] = True
    while True:
        for _ in range(2):  # turn right when the way ahead is blocked
            ahead, after = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
            inside = 0 <= ahead[0] < size and 0 <= ahead[1] < size
            beyond = 0 <= after[0] < size and 0 <= after[1] < size and bool(mask[after])
            if inside and not beyond and not mask[ahead]:
                break
            dy, dx = dx, -dy
        else:
            return mask
        y, x = y + dy, x + dx
        mask[y, x] = True


def comb(height, width, teeth_up):
    """Teeth that are separate until a last row, or from a first row on."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[:, ::2] = True
    mask[-1 if teeth_up else 0] = True
    return mask


def nested_vees(size):
    """Each V joins its arms one row below the one inside it: the longest chains of unions."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((x - size // 2).abs() + y) % 4 < 2


@pytest.mark.parametrize("dtype", MASK_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("connectivity", [4, 8])
def test_labels_equal_reference(dtype, layout, connectivity):
    mask = random_mask((2, 3, 11, 13))
    mask = laid_out(mask if dtype == torch.bool else mask.to(dtype) * -3, layout)
    labels = connected_components(mask, connectivity=connectivity)
    assert labels.is_contiguous()
    assert_close(labels, reference.connected_components(mask, connectivity=connectivity))


@settings(max_examples=150, deadline=None)
@given(
    lead=st.lists(st.integers(0, 3), max_size=2),
    height=st.integers(0, 12),
    width=st.integers(0, 12),
    density=st.sampled_from([0.2, 0.4, 0.6, 0.8]),
    connectivity=st.sampled_from([4, 8]),
    seed=st.integers(0, 1000),
)
def test_labels_equal_reference_for_any_shape(lead, height, width, density, connectivity, seed):
    mask = random_mask((*lead, height, width), density, seed)
    expected = reference.connected_components(mask, connectivity=connectivity)
    assert_close(connected_components(mask, connectivity=connectivity), expected)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize(
    "mask",
    [
        spiral(41),
        spiral(40).flip(0),
        comb(30, 31, True),
        comb(30, 31, False),
        comb(31, 30, True).T,
        nested_vees(40),
        nested_vees(40).flip(0),
        torch.eye(20).bool(),
        torch.eye(20).bool().flip(1),
        (torch.arange(20)[:, None] + torch.arange(20)) % 2 == 0,
        torch.ones(17, 9).bool(),
        torch.zeros(17, 9).bool(),
        torch.ones(1, 30).bool(),
        torch.ones(30, 1).bool(),
        torch.ones(1, 1).bool(),
        torch.zeros(1, 1).bool(),
        # Larger than a tile of the CUDA kernels, which is 64 x 64.
        spiral(141),
        comb(130, 131, True),
        comb(130, 131, False),
        comb(131, 130, True).T,
        nested_vees(140),
        nested_vees(140).flip(0),
        nested_vees(140).T,
        torch.eye(129).bool(),
        torch.eye(129).bool().flip(1),
        torch.ones(65, 193).bool(),
    ],
)
def test_hard_patterns(mask, connectivity):
    expected = reference.connected_components(mask, connectivity=connectivity)
    assert_close(connected_components(mask, connectivity=connectivity), expected)


def test_the_patterns_are_what_they_seem():
    assert connected_components(spiral(41), connectivity=4).max() == 1
    assert spiral(41).sum() > 800
    assert connected_components(comb(30, 31, True)).max() == 1
    assert connected_components(torch.eye(20).bool(), connectivity=4).max() == 20
    assert connected_components(torch.eye(20).bool(), connectivity=8).max() == 1


def test_bytes_other_than_one_in_a_bool_tensor():
    mask = torch.tensor([[2, 0, 255], [0, 0, 4]], dtype=torch.uint8).view(torch.bool)
    assert connected_components(mask).tolist() == [[1, 0, 2], [0, 0, 2]]


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("density", [0.1, 0.45, 0.6, 0.9])
def test_labels_equal_scipy(connectivity, density):
    ndimage = pytest.importorskip("scipy.ndimage")
    structure = ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1)
    mask = random_mask((2048, 2048), density)
    labels, count = ndimage.label(mask.numpy(), structure)
    ours = connected_components(mask, connectivity=connectivity)
    assert ours.max() == count
    # A one-to-one relation of the labels, whatever order scipy numbers them in.
    theirs = torch.full((count + 1,), -1)
    theirs[ours.long()] = torch.from_numpy(labels).long()
    assert torch.equal(theirs[ours.long()], torch.from_numpy(labels).long())
    assert torch.equal(theirs.sort().values, torch.arange(count + 1))


def test_labels_are_numbered_in_raster_order():
    labels = connected_components(random_mask((300, 300), 0.3))
    flat = labels.flatten()
    first = torch.full((int(flat.max()) + 1,), flat.numel()).scatter_reduce_(
        0, flat.long(), torch.arange(flat.numel()), "amin"
    )
    assert (first[1:].diff() > 0).all()


@pytest.mark.parametrize("shape", [(0, 4, 4), (2, 0, 4), (2, 4, 0), (0, 0)])
def test_empty_masks(shape):
    labels = connected_components(torch.zeros(shape, dtype=torch.bool))
    assert labels.shape == shape
    assert labels.dtype == torch.int32


@pytest.mark.parametrize(
    ("error", "message", "mask", "options"),
    [
        (TypeError, "mask: expected a tensor, got list", [[True]], {}),
        (TypeError, "expected a bool or integer tensor, got torch.float32", torch.zeros(2, 2), {}),
        (ValueError, r"expected \[\*, H, W\], got shape \(4,\)", torch.zeros(4).bool(), {}),
        (ValueError, "connectivity: expected 4 or 8, got 6", torch.zeros(4, 4).bool(), {"connectivity": 6}),
        (ValueError, r"fewer than 2\*\*31 pixels", torch.zeros(1).bool().expand(65536, 32768), {}),
    ],
)
def test_wrong_mask(error, message, mask, options):
    with pytest.raises(error, match=message):
        connected_components(mask, **options)

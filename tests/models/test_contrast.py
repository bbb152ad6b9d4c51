"""The library of negatives against NumPy, and attention from differences."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.models import ContrastNetwork, NegativeLibrary, average_hash, contrast_attention, create_backbone
from tests.ops.inputs import tensor
from tests.tolerances import assert_close


def pictures(n, size=32, seed=0):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_hash_compares_averages_with_their_mean():
    images = pictures(3, 48)
    small = images.numpy().reshape(3, 16, 3, 16, 3).mean(axis=(2, 4)).reshape(3, 256)
    assert torch.equal(average_hash(images), torch.from_numpy(small > small.mean(axis=1, keepdims=True)))
    assert torch.equal(average_hash(0.5 * images + 0.3), average_hash(images))  # exposure makes no difference
    assert average_hash(torch.zeros(1, 1, 8, 8)).shape == (1, 256)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 9), queries=st.integers(1, 5), seed=st.integers(0, 99))
def test_nearest_is_the_first_at_the_smallest_hamming_distance(count, queries, seed):
    library = NegativeLibrary(count, 16)
    # Few different pictures, so that several are equally near
    library.fill(pictures(count, 16, seed)[torch.arange(count) // 2])
    images = pictures(queries, 16, seed + 1)
    bits = library.hashes.numpy()
    for found, own in zip(library.nearest(images).tolist(), average_hash(images).numpy(), strict=True):
        assert found == int(np.argmin((bits != own).sum(axis=1)))


def test_an_image_of_the_library_finds_itself():
    library, images = NegativeLibrary(6, 32), pictures(6)
    library.fill(images)
    assert library.nearest(images).tolist() == list(range(6))
    assert (library(images) - images).abs().max() <= 1 / 255 + 1e-6  # kept in 8 bits
    half = library(images.half())
    assert half.dtype == torch.float16
    with torch.autocast("cpu", torch.bfloat16):
        assert library.nearest(images).tolist() == list(range(6))


def test_fewer_images_are_repeated():
    library, images = NegativeLibrary(5, 16), pictures(2, 16)
    library.fill(images)
    assert torch.equal(library.images[[0, 1, 0, 1, 0]], library.images)
    assert library.nearest(images).tolist() == [0, 1]


def test_replacing_changes_images_and_hashes():
    library, images = NegativeLibrary(4, 32), pictures(4)
    library.fill(images)
    library.replace(lambda image: image.flip(-1))
    assert torch.equal(library.hashes, average_hash(library.images.float()))
    assert library.nearest(images.flip(-1)).tolist() == [0, 1, 2, 3]
    assert list(library.state_dict()) == ["images", "hashes"]
    assert not list(library.parameters())


def test_attention_is_where_the_pair_differs():
    positive, negative = tensor((2, 5, 4, 4), dtype=torch.float64), tensor((2, 5, 4, 4), dtype=torch.float64, seed=1)
    attention = contrast_attention(positive, negative)
    difference = np.abs((positive - negative).numpy()).mean(axis=1, keepdims=True)
    expected = difference / difference.mean(axis=(2, 3), keepdims=True)
    assert attention.shape == (2, 1, 4, 4)
    torch.testing.assert_close(attention, torch.from_numpy(expected), rtol=1e-4, atol=1e-4)  # 1e-6 is added to each
    assert_close(attention.mean(dim=(2, 3)), torch.ones(2, 1, dtype=torch.float64))
    assert torch.equal(contrast_attention(positive, positive), torch.ones(2, 1, 4, 4, dtype=torch.float64))


def test_the_network_weighs_features_and_scores_them():
    torch.manual_seed(0)
    network = ContrastNetwork(create_backbone("resnet_nano", output_stride=16), 3, 6, hidden=8).eval()
    images, negatives = torch.randn(2, 1, 64, 64), torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    plain = network.attended(images, None)
    assert plain.shape == (2, 128, 6, 6)
    weights = contrast_attention(plain, network.attended(negatives, None))
    assert_close(network.attended(images, negatives), plain * weights)
    assert_close(network(images, negatives), network.head(plain * weights))
    assert network(images, None).shape == (2, 3, 6, 6)


def test_a_finer_grid_finds_things_where_the_coarse_one_does():
    """Centres of mass of the maps agree; with the 3×3 window on fine cells they would not."""
    torch.manual_seed(0)
    network = ContrastNetwork(create_backbone("resnet_nano", output_stride=16), 1, 8, hidden=1).eval()
    convolution, last = network.head[0], network.head[-1]
    with torch.no_grad():
        convolution.weight.zero_()[0, 0, 1, 2] = 1.0  # the cell to the right, as where features stand left of theirs
        last.weight.fill_(1.0)
        last.bias.zero_()
    features = torch.zeros(1, 128, 8, 8)
    features[0, 0, 3, 5] = 1.0
    assert_close(network.fine_logits(features, 8), network.head(features))

    def centre(maps):  # as fractions of the side
        cells = maps.shape[-1]
        line = (torch.arange(cells) + 0.5) / cells
        return torch.stack([(maps.sum(-1) * line).sum(), (maps.sum(-2) * line).sum()]) / maps.sum()

    with torch.no_grad():
        coarse, fine = network.head(features)[0, 0], network.fine_logits(features, 32)[0, 0]
        early = network.head(torch.nn.functional.interpolate(features, size=(32, 32), mode="bilinear"))[0, 0]
    assert_close(centre(coarse), torch.tensor([3.5, 4.5]) / 8)
    assert_close(centre(fine), centre(coarse))
    assert centre(early)[1] > centre(coarse)[1] + 0.05


def test_gradients_reach_the_backbone_through_both_images():
    torch.manual_seed(0)
    network = ContrastNetwork(create_backbone("resnet_nano", output_stride=16), 3, 6, hidden=8)
    images, negatives = torch.randn(4, 1, 64, 64, requires_grad=True), torch.randn(4, 1, 64, 64, requires_grad=True)
    network(images, negatives).square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert negatives.grad.abs().sum() > 0
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name

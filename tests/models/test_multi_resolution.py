"""The encoder–decoder: what reduces the resolution, what keeps it, and that every level has its part in the maps."""

import pytest
import torch
import torch.nn.functional as F

from cxrfast.models import MultiResolutionNetwork
from cxrfast.models.multi_resolution import DenseBlock, ResidualDown
from tests.tolerances import assert_close

SMALL = {"width": 8, "growth": 4, "dense_layers": 2, "levels": 3}


def network(**options):
    torch.manual_seed(0)
    return MultiResolutionNetwork(3, **{**SMALL, **options})


@pytest.mark.parametrize(("size", "half"), [((8, 8), (4, 4)), ((7, 5), (4, 3)), ((1, 2), (1, 1))])
def test_residual_blocks_halve_the_resolution(size, half):
    block = ResidualDown(3, 6).eval()
    assert block(torch.randn(2, 3, *size)).shape == (2, 6, *half)


def test_a_residual_block_adds_to_its_shortcut():
    block = ResidualDown(3, 6).eval()
    torch.nn.init.zeros_(block.residual[4].weight)  # the last batch norm: no residual
    x = torch.randn(2, 3, 8, 8)
    assert_close(block(x), F.relu(block.shortcut(x)))


def test_dense_blocks_keep_the_resolution_and_what_they_are_given():
    block = DenseBlock(3, growth=4, layers=2).eval()
    x = torch.randn(2, 3, 5, 7)
    out = block(x)
    assert block.channels == 11
    assert out.shape == (2, 11, 5, 7)
    assert torch.equal(out[:, :3], x)
    assert torch.equal(out[:, 3:7], block.layers[0](x))
    assert torch.equal(out[:, 7:], block.layers[1](out[:, :7]))  # a layer sees all maps before it


@pytest.mark.parametrize(("stride", "size", "cells"), [(4, 64, 16), (2, 64, 32), (4, 50, 13), (2, 33, 17), (4, 32, 8)])
def test_maps_have_the_finest_resolution(stride, size, cells):
    out = network(map_stride=stride).eval()(torch.randn(2, 1, size, size))
    assert out.shape == (2, 3, cells, cells)


def test_the_decoder_enlarges_by_nearest_neighbours_and_concatenates():
    """Level by level as the decoder does it, with the features that the encoder's modules give."""
    model = network().eval()
    images = torch.randn(2, 1, 32, 32)
    hidden = []
    model.classifier.register_forward_pre_hook(lambda module, inputs: hidden.append(inputs[0]))
    model(images)
    x = model.stem(images)
    levels = []
    for down, dense in zip(model.down, model.dense, strict=True):
        x = dense(down(x))
        levels.append(x)
    assert [level.shape[-1] for level in levels] == [8, 4, 2]
    for finer, refine in zip((levels[1], levels[0]), model.refine, strict=True):
        x = refine(torch.cat([x.repeat_interleave(2, -1).repeat_interleave(2, -2), finer], dim=1))
    assert_close(hidden[0], x)


def test_every_parameter_gets_a_gradient():
    model = network().train()
    model(torch.randn(4, 1, 64, 64)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_an_untrained_network_finds_hardly_anything():
    out = network().eval()(torch.randn(2, 1, 64, 64)).sigmoid()
    assert 0.01 < out.mean() < 0.04


@pytest.mark.parametrize(("name", "value"), [("map_stride", 8), ("levels", 1)])
def test_wrong_options(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected .* got {value}"):
        network(**{name: value})

"""From image to patch logits."""

import pytest
import torch

from cxrfast.models import CRFNetwork, GuideBranch, PatchHead, PatchNetwork, create_backbone, resize_to_grid
from cxrfast.nn import PacCRF


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    unary = PatchNetwork(create_backbone("resnetv2_nano"), num_classes=3, grid=6, hidden=16)
    return CRFNetwork(unary, GuideBranch(8, 6), PacCRF(3, 5)).eval()


def test_logits_have_one_map_per_class(network):
    images = torch.randn(2, 1, 64, 64)
    assert network(images).shape == (2, 3, 6, 6)
    assert network(images, with_crf=False).shape == (2, 3, 6, 6)


def test_the_crf_changes_the_unary_by_the_order_of_one(network):
    images = torch.randn(4, 1, 64, 64)
    change = (network(images) - network(images, with_crf=False)).abs()
    assert 1e-3 < change.mean() < 10


def test_every_parameter_gets_a_gradient(network):
    network.zero_grad()
    network(torch.randn(2, 1, 64, 64)).square().sum().backward()
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_an_untrained_head_finds_few_patches_positive():
    logits = PatchHead(32, 5, hidden=16).eval()(torch.randn(2, 32, 10, 10))
    assert 0.01 < logits.sigmoid().mean() < 0.04


def test_resizing():
    grown = resize_to_grid(torch.arange(4.0).reshape(1, 1, 2, 2), 4)
    assert grown.shape == (1, 1, 4, 4)
    assert grown[0, 0, 0, 0] == 0
    assert grown[0, 0, -1, -1] == 3
    shrunk = resize_to_grid(torch.arange(16.0).reshape(1, 1, 4, 4), 2)
    assert shrunk.flatten().tolist() == [5, 7, 13, 15]
    same = torch.randn(1, 1, 3, 3)
    assert resize_to_grid(same, 3) is same

"""What the method `yao` does by default, where no option says it: a check for each statement of the register."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from cxrfast.data import CLASSES
from cxrfast.methods.yao import Yao, YaoOptions
from cxrfast.models.multi_resolution import DenseBlock, ResidualDown

CLASS_NAMES = ("A", "B", "C")


@cache
def method() -> Yao:
    """The defaults, on three classes."""
    torch.manual_seed(0)
    return Yao(CLASS_NAMES, 512, YaoOptions()).eval()


def logits() -> torch.Tensor:
    return 3 * torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def pooled() -> torch.Tensor:
    """The formula, over probabilities."""
    r = 5 + method().pooling.beta.detach().double().exp()[None, :, None, None]
    return torch.log((r * logits().sigmoid()).exp().sum(dim=(2, 3)) / 36) / r[..., 0, 0]


def lse_lba() -> None:
    assert torch.allclose(method().pooling(logits()).sigmoid().detach(), pooled())


def beta() -> None:
    parameters, buffers = dict(method().named_parameters()), dict(method().named_buffers())
    assert parameters["pooling.beta"].shape == (3,)
    assert not any("r0" in name for name in (*parameters, *buffers))
    (stage,) = method().stages(1)
    assert "pooling.beta".startswith(stage.trains)


def probabilities() -> None:
    assert ((pooled() > 0) & (pooled() < 1)).all()
    lse_lba()


def loss() -> None:
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    expected = F.binary_cross_entropy(pooled(), labels)
    assert torch.allclose(method().loss(logits(), {"labels": labels}).detach(), expected)


def image_labels() -> None:
    """The loss asks a batch for nothing but labels."""
    assert method().loss(logits(), {"labels": torch.ones(2, 3, dtype=torch.float64)}).isfinite()


def encoder() -> None:
    network = method().network
    assert all(isinstance(block, ResidualDown) for block in network.down)
    assert all(isinstance(block, DenseBlock) for block in network.dense)
    x = network.stem(torch.zeros(1, 1, 64, 64))
    for down, dense in zip(network.down, network.dense, strict=True):
        halved = down(x)
        assert 2 * halved.shape[-1] == x.shape[-1]
        x = dense(halved)
        assert x.shape[-2:] == halved.shape[-2:]


def decoder() -> None:
    """Each refinement sees what the level below gave it, enlarged, and what the encoder has of its resolution."""
    network, seen = method().network, []
    hooks = [layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])) for layer in network.refine]
    with torch.no_grad():
        network(torch.randn(1, 1, 64, 64))
    for hook in hooks:
        hook.remove()
    assert [x.shape[-1] for x in seen] == [4, 8, 16]
    for x, dense in zip(seen, [network.dense[i] for i in (2, 1, 0)], strict=True):
        enlarged = x[:, : x.shape[1] - dense.channels]
        assert torch.equal(enlarged, enlarged[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2))


def map_per_class() -> None:
    with torch.no_grad():
        assert method().predict(torch.zeros(1, 1, 512, 512), "saliency").maps.shape == (1, 3, 128, 128)


def prior_bias() -> None:
    assert torch.allclose(torch.sigmoid(method().network.classifier.bias), torch.tensor(0.02))


def random_weights() -> None:
    assert "pretrained" not in YaoOptions.model_fields
    torch.manual_seed(1)
    other = Yao(CLASS_NAMES, 512, YaoOptions())
    first = next(layer for layer in other.network.modules() if isinstance(layer, nn.Conv2d))
    assert not torch.equal(first.weight, method().network.stem[0].weight)


def dataset() -> None:
    assert len(CLASSES) == 14


PROBES = {
    "lse-lba": lse_lba,
    "beta": beta,
    "probabilities": probabilities,
    "loss": loss,
    "image-labels": image_labels,
    "encoder": encoder,
    "decoder": decoder,
    "map-per-class": map_per_class,
    "prior-bias": prior_bias,
    "random-weights": random_weights,
    "dataset": dataset,
}

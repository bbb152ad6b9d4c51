"""What is asked of every operator, whatever it computes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.ops.inputs import random
from tests.tolerances import assert_close


def check_against_reference(
    operator: Callable[..., Any], reference: Callable[..., Any], *tensors: torch.Tensor
) -> None:
    """Values and gradients (of a random projection of the output) equal the reference's, for floating-point inputs."""
    results = []
    for function in (operator, reference):
        inputs = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in tensors]
        output = function(*inputs)
        weight = random(torch.randn, output.shape, seed=1, dtype=torch.float64)
        (output * weight.to(output.dtype)).sum().backward()
        results.append((output.detach(), [x.grad for x in inputs]))
    (actual, actual_grads), (expected, expected_grads) = results
    assert_close(actual, expected)
    for actual_grad, expected_grad in zip(actual_grads, expected_grads, strict=True):
        assert_close(actual_grad, expected_grad)


def check_compiles(function: Callable[..., Any], *inputs: torch.Tensor) -> None:
    """`torch.compile(fullgraph=True)` gives the eager values and gradients."""
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    check_against_reference(compiled, function, *inputs)


def check_no_double_backward(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> None:
    """A second derivative is refused by name, not silently zero."""
    inputs = tuple(x.detach().clone().requires_grad_() for x in inputs)
    (grad,) = torch.autograd.grad(function(*inputs).square().sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="double backward is not supported"):
        grad.sum().backward()

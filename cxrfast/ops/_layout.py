"""Memory formats: outputs and gradients have the format of the input, so that a network in channels_last stays so."""

import torch


def image_memory_format(x: torch.Tensor) -> torch.memory_format:
    """The output's memory format: channels_last if x is channels_last and not also contiguous."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def dense_image(x: torch.Tensor) -> torch.Tensor:  # [B, C, H, W]
    """x, or a channels_last copy of a part of a channels_last image. The kernels would copy it to contiguous memory."""
    if torch.compiler.is_compiling() or x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous(memory_format=torch.channels_last) if x.stride(1) == 1 and x.shape[1] > 1 else x


def in_format_of(image: torch.Tensor, result: torch.Tensor) -> torch.Tensor:  # [B, *, H, W] -> [B, *, H, W]
    """The result in the memory format of the image. Compiled code chooses its own formats."""
    if torch.compiler.is_compiling():
        return result
    return result.contiguous(memory_format=image_memory_format(image))


def in_layout_of(
    rows: torch.Tensor,  # [B, K, N]
    grad: torch.Tensor,  # [B, K, N]
) -> torch.Tensor:  # [B, K, N]
    """The gradient with classes contiguous if they are so in the rows, which are then a channels_last map."""
    if torch.compiler.is_compiling() or rows.is_contiguous() or not rows.mT.is_contiguous():
        return grad
    return grad.mT.contiguous().mT

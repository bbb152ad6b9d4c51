"""How far a kernel may be from its reference, for every test. An exception stands beside its test with its reason."""

import torch

# (rtol, atol). The reference accumulates in the same dtype in another order; half types round once at the end.
TOLERANCES = {
    torch.float64: (1e-10, 1e-11),
    torch.float32: (1e-4, 1e-5),
    torch.float16: (2e-3, 2e-3),
    torch.bfloat16: (1.6e-2, 1.6e-2),
}


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Same shape and dtype, and equal within the table; NaN equals NaN."""
    rtol, atol = TOLERANCES[actual.dtype] if actual.is_floating_point() else (0, 0)
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=True)

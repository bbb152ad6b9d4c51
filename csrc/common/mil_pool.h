// mil_pool as other operators of the same library call it: each of the two libraries, CPU and CUDA, defines its own.
#pragma once

#include <cstdint>
#include <optional>
#include <tuple>

#include "common/tensor.h"

namespace cxrfast {

Tensor mil_pool(const Tensor& logits,                    // [B, K, N]
                const std::optional<Tensor>& mask,       // [B or 1, K or 1, N] bool
                const std::optional<Tensor>& sharpness,  // [K], accumulation dtype
                int64_t mode);

// The gradients of logits and, where it is wanted, of every bag's sharpness.
std::tuple<Tensor, Tensor> mil_pool_backward(const Tensor& grad,    // [B, K]
                                             const Tensor& logits,  // [B, K, N]
                                             const std::optional<Tensor>& mask,
                                             const std::optional<Tensor>& sharpness,
                                             int64_t mode,
                                             bool sharpness_gradient);

}  // namespace cxrfast

// mil_pool as called by other operators of the same library. The CPU and the CUDA library define it separately.
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

// The gradients of logits and, if requested, of the sharpness of every bag.
std::tuple<Tensor, Tensor> mil_pool_backward(const Tensor& grad,    // [B, K]
                                             const Tensor& logits,  // [B, K, N]
                                             const std::optional<Tensor>& mask,
                                             const std::optional<Tensor>& sharpness,
                                             int64_t mode,
                                             bool sharpness_gradient);

}  // namespace cxrfast

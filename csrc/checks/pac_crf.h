// Invariants of pac_conv2d and pac_crf that memory safety depends on, for all back ends.
#pragma once

#include <optional>

#include "common/check.h"
#include "common/tensor.h"

namespace cxrfast {

// A weight of shape [1, 1, k, k] applies to every channel.
inline bool is_shared(const Tensor& weight) {
    return weight.size(0) == 1 && weight.size(1) == 1;
}

inline void check_pac_inputs(const Tensor& x,       // [B, C, H, W]
                             const Tensor& guide,   // [B, G, H, W]
                             const Tensor& weight,  // [O, C, k, k] or [1, 1, k, k]
                             int64_t dilation) {
    CXRFAST_CHECK(x.dim() == 4 && guide.dim() == 4 && weight.dim() == 4, "x, guide and weight must have 4 dimensions");
    CXRFAST_CHECK(guide.size(0) == x.size(0) && guide.size(2) == x.size(2) && guide.size(3) == x.size(3),
                  "guide must be [B, G, H, W] with x's B, H, W");
    CXRFAST_CHECK(weight.size(2) == weight.size(3) && weight.size(2) % 2 == 1, "weight must be [O, C, k, k], k odd");
    CXRFAST_CHECK(is_shared(weight) || weight.size(1) == x.size(1), "weight must have x's channels");
    CXRFAST_CHECK(guide.scalar_type() == x.scalar_type() && weight.scalar_type() == x.scalar_type(),
                  "guide and weight must have x's dtype");
    CXRFAST_CHECK(dilation >= 1, "dilation must be positive, got ", dilation);
}

inline void check_pac_crf(const Tensor& unary,                         // [B, K, H, W]
                          const Tensor& weight,                        // [K, K, k, k] or [1, 1, k, k]
                          const std::optional<Tensor>& compatibility,  // [K, K]
                          const Tensor& unary_weight,                  // []
                          int64_t steps,
                          int64_t activation) {
    const int64_t labels = unary.size(1);
    CXRFAST_CHECK(is_shared(weight) || weight.size(0) == labels, "weight must be [K, K, k, k] or [1, 1, k, k]");
    CXRFAST_CHECK(!compatibility || (compatibility->dim() == 2 && compatibility->size(0) == labels &&
                                     compatibility->size(1) == labels),
                  "compatibility must be [K, K]");
    CXRFAST_CHECK(!compatibility || compatibility->scalar_type() == unary.scalar_type(),
                  "compatibility must have unary's dtype");
    const ScalarType wide = unary.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
    CXRFAST_CHECK(unary_weight.numel() == 1 && unary_weight.scalar_type() == wide, "unary_weight must be one number");
    CXRFAST_CHECK(steps >= 0, "steps must not be negative, got ", steps);
    CXRFAST_CHECK(activation == 0 || activation == 1, "unknown activation ", activation);
}

}  // namespace cxrfast

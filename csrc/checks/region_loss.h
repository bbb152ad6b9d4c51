// Invariants of region_sums and box_log_likelihood, for all back ends.
#pragma once

#include "common/check.h"
#include "common/dispatch.h"
#include "common/mask.h"
#include "common/tensor.h"

namespace cxrfast {

inline Tensor empty_sums(const Tensor& logits) {  // [B, K]
    return torch::stable::empty({logits.size(0), logits.size(1)}, accumulate_type(logits.scalar_type()),
                                logits.layout(), logits.device());
}

inline RowMask checked_mask(const Tensor& logits, const Tensor& mask) {
    CXRFAST_CHECK(logits.dim() == 3, "logits must be [B, K, N]");
    return row_mask(mask, logits);
}

inline Tensor checked_grad(const Tensor& grad, const Tensor& logits) {
    CXRFAST_CHECK(grad.dim() == 2 && grad.size(0) == logits.size(0) && grad.size(1) == logits.size(1),
                  "grad must be [B, K]");
    CXRFAST_CHECK(grad.scalar_type() == accumulate_type(logits.scalar_type()), "grad must have the accumulation dtype");
    return dense(grad);
}

inline void check_floor(double floor) {
    CXRFAST_CHECK(floor >= 0.0 && floor < 1.0, "floor must be in [0, 1), got ", floor);
}

}  // namespace cxrfast

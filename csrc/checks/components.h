// Invariants of component_boxes and component_boxes_static, for all back ends.
#pragma once

#include <tuple>

#include "common/check.h"
#include "common/tensor.h"

namespace cxrfast {

// boxes [N, 4], peak, mean, area, image, channel [N]
using Boxes = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
// and the total number of components
using StaticBoxes = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

inline Boxes empty_boxes(const Tensor& scores, int64_t rows) {
    const auto column = [&](ScalarType type) { return torch::stable::new_empty(scores, {rows}, type); };
    return {torch::stable::new_empty(scores, {rows, 4}, ScalarType::Float),
            column(scores.scalar_type()),
            column(scores.scalar_type()),
            column(ScalarType::Long),
            column(ScalarType::Long),
            column(ScalarType::Long)};
}

inline void check_scores(const Tensor& scores,     // [B, K, H, W]
                         const Tensor& threshold,  // [K]
                         int64_t select) {
    CXRFAST_CHECK(scores.dim() == 4, "scores must be [B, K, H, W]");
    CXRFAST_CHECK(
        threshold.dim() == 1 && threshold.size(0) == scores.size(1) && threshold.scalar_type() == scores.scalar_type(),
        "threshold must be [K] and have scores' dtype");
    CXRFAST_CHECK(select >= 0 && select <= 2, "unknown select ", select);
}

}  // namespace cxrfast

// Invariants of mil_pool and mil_pool_ragged, for all back ends.
#pragma once

#include <optional>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/tensor.h"
#include "math/mil_pool.h"

namespace cxrfast {

// A contiguous copy of sharpness, which keeps its memory alive; undefined for modes without sharpness.
inline std::optional<Tensor> checked_sharpness(const std::optional<Tensor>& sharpness,
                                               const Tensor& logits,
                                               int64_t mode) {
    CXRFAST_CHECK(mode >= 0 && mode < kMilPools, "unknown mode ", mode);
    CXRFAST_CHECK(sharpness.has_value() == has_sharpness(static_cast<MilPool>(mode)),
                  "sharpness must be given exactly where the mode has one");
    if (!sharpness.has_value()) return std::nullopt;
    CXRFAST_CHECK(sharpness->dim() == 1 && sharpness->size(0) == logits.size(1), "sharpness must be [K]");
    CXRFAST_CHECK(sharpness->scalar_type() == accumulate_type(logits.scalar_type()),
                  "sharpness must have the dtype that sums are accumulated in");
    return dense(*sharpness);
}

}  // namespace cxrfast

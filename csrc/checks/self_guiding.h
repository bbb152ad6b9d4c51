// Invariants of self_guided_sums and self_guided_sums_ragged, for all back ends.
#pragma once

#include "common/check.h"
#include "common/dispatch.h"
#include "common/tensor.h"
#include "math/self_guiding.h"

namespace cxrfast {

struct GuideOptions {
    double delta;
    bool rescale;
    bool mean_of_middle;  // median of an even number of values: mean of the middle two, or the lower one
};

inline GuideOptions checked_options(double delta, bool rescale, int64_t median) {
    CXRFAST_CHECK(delta >= 0.0 && delta <= 0.5, "delta must be in [0, 0.5], got ", delta);
    CXRFAST_CHECK(median == 0 || median == 1, "unknown median ", median);
    return {delta, rescale, median == 1};
}

// A contiguous copy of `positive`. Values other than 0 and 1 occur in a bool tensor that is a view of other bytes.
inline Tensor checked_positive(const Tensor& positive, int64_t images, int64_t classes) {
    CXRFAST_CHECK(positive.dim() == 2 && positive.size(0) == images && positive.size(1) == classes,
                  "positive must be [B, K]");
    CXRFAST_CHECK(positive.scalar_type() == ScalarType::Bool, "positive must be boolean");
    return dense(positive);
}

inline const uint8_t* boolean_bytes(const Tensor& boolean) {
    return reinterpret_cast<const uint8_t*>(boolean.const_data_ptr<bool>());
}

// A contiguous copy of [rows, B, K] in the accumulation dtype of the logits.
inline Tensor checked_rows(const Tensor& x, const Tensor& logits, int64_t rows, int64_t images) {
    CXRFAST_CHECK(x.dim() == 3 && x.size(0) == rows && x.size(1) == images && x.size(2) == logits.size(1), "expected [",
                  rows, ", B, K]");
    CXRFAST_CHECK(x.scalar_type() == accumulate_type(logits.scalar_type()), "expected the accumulation dtype");
    return dense(x);
}

inline Tensor empty_rows(const Tensor& logits, int64_t rows, int64_t images) {
    return torch::stable::empty({rows, images, logits.size(1)}, accumulate_type(logits.scalar_type()), logits.layout(),
                                logits.device());
}

}  // namespace cxrfast

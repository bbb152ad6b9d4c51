// A boolean mask over [B, K, N]; a size of 1 broadcasts over images or classes.
#pragma once

#include "common/check.h"
#include "common/tensor.h"

namespace cxrfast {

struct RowMask {
    Tensor holder;        // keeps the memory of `data` alive
    const uint8_t* data;  // nullptr: all are selected. Any nonzero byte is true
    int64_t image_stride, class_stride;

    const uint8_t* row(int64_t image, int64_t channel) const {
        return data == nullptr ? nullptr : data + image * image_stride + channel * class_stride;
    }
};

inline RowMask row_mask(const Tensor& mask,      // [B or 1, K or 1, N] bool
                        const Tensor& logits) {  // [B, K, N]
    CXRFAST_CHECK(mask.scalar_type() == ScalarType::Bool, "mask must be boolean");
    CXRFAST_CHECK(mask.dim() == 3 && mask.size(2) == logits.size(2), "mask must be [B or 1, K or 1, N]");
    CXRFAST_CHECK(mask.size(0) == logits.size(0) || mask.size(0) == 1, "mask does not fit the logits' images");
    CXRFAST_CHECK(mask.size(1) == logits.size(1) || mask.size(1) == 1, "mask does not fit the logits' classes");
    const Tensor dense_mask = dense(mask);
    const int64_t n = mask.size(2), classes = mask.size(1);
    return {dense_mask, reinterpret_cast<const uint8_t*>(dense_mask.const_data_ptr<bool>()),
            mask.size(0) == 1 ? 0 : classes * n, classes == 1 ? 0 : n};
}

}  // namespace cxrfast

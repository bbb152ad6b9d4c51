// Invariants of blur_pool2d, and of the blur in max_blur_pool2d, for all back ends.
#pragma once

#include "common/check.h"
#include "math/blur_pool.h"

namespace cxrfast {

inline void check_blur_options(
    int64_t height, int64_t width, int64_t filter_size, int64_t stride, int64_t padding_mode) {
    CXRFAST_CHECK(filter_size >= 1 && filter_size <= kMaxFilterSize, "filter_size must be in 1..7, got ", filter_size);
    CXRFAST_CHECK(stride >= 1, "stride must be positive, got ", stride);
    CXRFAST_CHECK(padding_mode >= 0 && padding_mode <= 2, "unknown padding_mode ", padding_mode);
    const bool reflects = padding_mode == static_cast<int64_t>(Padding::kReflect);
    CXRFAST_CHECK(!reflects || (height > filter_size / 2 && width > filter_size / 2) || height * width == 0,
                  "reflect padding needs an image larger than filter_size / 2");
}

}  // namespace cxrfast

// What blur_pool.cu and blur_pool_max.cu share on the host's side.
#pragma once

#include "../common/check.h"
#include "blur_pool_taps.cuh"

namespace cxrfast {

inline void check_blur_options(
    int64_t height, int64_t width, int64_t filter_size, int64_t stride, int64_t padding_mode) {
    CXRFAST_CHECK(filter_size >= 1 && filter_size <= kMaxFilterSize, "filter_size must be in 1..7, got ", filter_size);
    CXRFAST_CHECK(stride >= 1, "stride must be positive, got ", stride);
    CXRFAST_CHECK(padding_mode >= 0 && padding_mode <= 2, "unknown padding_mode ", padding_mode);
    const bool reflects = padding_mode == static_cast<int64_t>(Padding::kReflect);
    CXRFAST_CHECK(!reflects || (height > filter_size / 2 && width > filter_size / 2) || height * width == 0,
                  "reflect padding needs an image larger than filter_size / 2");
    CXRFAST_CHECK(height < 1 << 30 && width < 1 << 30, "the image is too large");
}

// Options that have been checked. A stride beyond the image leaves one pixel, whatever it is.
inline BlurAxis blur_axis(int64_t image, int64_t filter_size, int64_t stride, int64_t padding_mode, bool transposed) {
    const int64_t step = std::min(stride, std::max<int64_t>(image, 1));
    return {static_cast<int>(image),
            static_cast<int>(blur_pool_output_size(image, step)),
            static_cast<int>(filter_size),
            static_cast<int>(step),
            static_cast<int>(padding_before(filter_size)),
            static_cast<Padding>(padding_mode),
            transposed};
}

template <typename acc_t>
BlurFilter<acc_t> blur_filter(int64_t filter_size) {
    BlurFilter<acc_t> filter{};
    for (int64_t t = 0; t < filter_size; ++t) filter.tap[t] = static_cast<acc_t>(binomial_tap(filter_size, t));
    return filter;
}

}  // namespace cxrfast

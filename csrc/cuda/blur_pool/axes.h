// Shared by blur_pool and max_blur_pool on the host.
#pragma once

#include "common/check.h"
#include "cuda/blur_pool/taps.cuh"

namespace cxrfast {

// The kernels use 32-bit indices.
inline void check_device_blur_size(int64_t height, int64_t width) {
    CXRFAST_CHECK(height < 1 << 30 && width < 1 << 30, "the image is too large");
}

// Options that have been checked. Any stride beyond the image leaves one pixel.
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

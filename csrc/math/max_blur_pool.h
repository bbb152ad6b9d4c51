// The stride-1 maximum that max_blur_pool2d takes before the blur of math/blur_pool.h (Zhang 2019), for all back ends.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace cxrfast {

// The size of the stride-1 maximum over `kernel` elements, with `padding` elements of -inf at each end.
CXRFAST_HOST_DEVICE int64_t max_map_size(int64_t n, int64_t kernel, int64_t padding) {
    const int64_t size = n + 2 * padding - kernel + 1;
    return n == 0 || size < 0 ? 0 : size;
}

// The rule of torch.max_pool2d, for windows visited in raster order: a NaN wins, else the first of equal elements. It
// does not use ||, whose branch would prevent vectorisation.
template <typename acc_t>
CXRFAST_HOST_DEVICE bool replaces_maximum(acc_t value, acc_t maximum) {
    return (value > maximum) | (value != value);
}

}  // namespace cxrfast

// Invariants of max_blur_pool2d, for all back ends.
#pragma once

#include "checks/blur_pool.h"
#include "common/check.h"
#include "common/tensor.h"
#include "math/max_blur_pool.h"

namespace cxrfast {

struct MapSize {
    int64_t height, width;
};

// The size of the map between maximum and blur. The options are checked first.
inline MapSize checked_map_size(const Tensor& x,  // [B, C, H, W]
                                int64_t kernel_size,
                                int64_t padding,  // of the maximum
                                int64_t filter_size,
                                int64_t stride,
                                int64_t padding_mode) {  // of the blur
    CXRFAST_CHECK(x.dim() == 4, "x must be [B, C, H, W]");
    CXRFAST_CHECK(kernel_size >= 1 && kernel_size < 32768, "kernel_size must be in 1..32767, got ", kernel_size);
    CXRFAST_CHECK(padding >= 0 && 2 * padding <= kernel_size, "padding must be at most half of kernel_size, got ",
                  padding);
    const int64_t height = max_map_size(x.size(2), kernel_size, padding);
    const int64_t width = max_map_size(x.size(3), kernel_size, padding);
    check_blur_options(height, width, filter_size, stride, padding_mode);
    return {height, width};
}

inline void check_max_blur_grad(const Tensor& grad, const Tensor& x, int64_t height, int64_t width) {
    CXRFAST_CHECK(grad.dim() == 4 && grad.scalar_type() == x.scalar_type() && grad.size(0) == x.size(0) &&
                      grad.size(1) == x.size(1) && grad.size(2) == height && grad.size(3) == width,
                  "grad does not have max_blur_pool2d's output shape and dtype");
}

}  // namespace cxrfast

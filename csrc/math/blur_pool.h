// Blur-pool (Zhang 2019): the binomial filter, and the padding before it, for all back ends.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace cxrfast {

enum class Padding : int64_t { kReflect = 0, kReplicate = 1, kZeros = 2 };

constexpr int64_t kMaxFilterSize = 7;

// Tap i of the normalised binomial filter with `size` taps: C(size-1, i) / 2^(size-1).
CXRFAST_HOST_DEVICE double binomial_tap(int64_t size, int64_t i) {
    double value = 1.0;
    for (int64_t k = 0; k < i; ++k) value = value * static_cast<double>(size - 1 - k) / static_cast<double>(k + 1);
    for (int64_t k = 1; k < size; ++k) value *= 0.5;
    return value;
}

// The image is padded by (size-1)/2 elements before it, and by the rest after it.
CXRFAST_HOST_DEVICE int64_t padding_before(int64_t size) {
    return (size - 1) / 2;
}

CXRFAST_HOST_DEVICE int64_t blur_pool_output_size(int64_t n, int64_t stride) {
    return n == 0 ? 0 : (n - 1) / stride + 1;
}

// The element of [0, n) at position i of the padded line; -1 for zero padding. Reflection requires |overhang| < n,
// which is checked before kernels run.
CXRFAST_HOST_DEVICE int64_t padded_index(int64_t i, int64_t n, Padding padding) {
    if (i >= 0 && i < n) return i;
    switch (padding) {
        case Padding::kReflect:
            return i < 0 ? -i : 2 * (n - 1) - i;
        case Padding::kReplicate:
            return i < 0 ? 0 : n - 1;
        default:
            return -1;
    }
}

}  // namespace cxrfast

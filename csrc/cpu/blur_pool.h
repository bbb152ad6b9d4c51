// What blur_pool.cpp and blur_pool_max.cpp share: the blur as one table of taps per axis. A table's transposed is the
// backward's.
#pragma once

#include "../math/blur_pool.h"

#include <algorithm>
#include <vector>

#include "../common/check.h"
#include "../common/dispatch.h"
#include "../common/tensor.h"

namespace cxrfast {
namespace {

struct Tap {
    int64_t source;
    double weight;
};
using Taps = std::vector<std::vector<Tap>>;  // [target] -> the sources that it is a sum of

inline Taps forward_taps(int64_t n, int64_t filter_size, int64_t stride, Padding padding) {
    Taps taps(blur_pool_output_size(n, stride));
    for (int64_t out = 0; out < static_cast<int64_t>(taps.size()); ++out) {
        for (int64_t t = 0; t < filter_size; ++t) {
            const int64_t source = padded_index(out * stride - padding_before(filter_size) + t, n, padding);
            // An image of no pixels may be too short to reflect: its taps are never used, but they are transposed.
            if (source >= 0 && source < n) taps[out].push_back({source, binomial_tap(filter_size, t)});
        }
    }
    return taps;
}

inline Taps transposed(const Taps& taps, int64_t n) {
    Taps result(n);
    for (int64_t out = 0; out < static_cast<int64_t>(taps.size()); ++out) {
        for (const Tap& tap : taps[out]) result[tap.source].push_back({out, tap.weight});
    }
    return result;
}

template <typename scalar_t, typename acc_t>
CXRFAST_CPU_CLONES void add_scaled(acc_t* __restrict__ sum, const scalar_t* __restrict__ x, acc_t weight, int64_t n) {
    for (int64_t i = 0; i < n; ++i) sum[i] += weight * static_cast<acc_t>(x[i]);
}

// out[x, :] = sum over taps of row[x', :]; `pixel` is scratch of the length of the second dimension.
template <typename scalar_t, typename acc_t>
void blur_row(const acc_t* row, scalar_t* out, const Taps& taps_x, std::vector<acc_t>& pixel) {
    const int64_t width = taps_x.size(), inner = pixel.size();
    for (int64_t x = 0; x < width; ++x) {
        std::fill(pixel.begin(), pixel.end(), acc_t(0));
        for (const Tap& tap : taps_x[x]) {
            const acc_t weight = static_cast<acc_t>(tap.weight);
            const acc_t* from = row + tap.source * inner;
            for (int64_t c = 0; c < inner; ++c) pixel[c] += weight * from[c];
        }
        for (int64_t c = 0; c < inner; ++c) out[x * inner + c] = static_cast<scalar_t>(pixel[c]);
    }
}

inline void check_blur_options(
    int64_t height, int64_t width, int64_t filter_size, int64_t stride, int64_t padding_mode) {
    CXRFAST_CHECK(filter_size >= 1 && filter_size <= kMaxFilterSize, "filter_size must be in 1..7, got ", filter_size);
    CXRFAST_CHECK(stride >= 1, "stride must be positive, got ", stride);
    CXRFAST_CHECK(padding_mode >= 0 && padding_mode <= 2, "unknown padding_mode ", padding_mode);
    const bool reflects = padding_mode == static_cast<int64_t>(Padding::kReflect);
    CXRFAST_CHECK(!reflects || (height > filter_size / 2 && width > filter_size / 2) || height * width == 0,
                  "reflect padding needs an image larger than filter_size / 2");
}

}  // namespace
}  // namespace cxrfast

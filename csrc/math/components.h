// Connected components: union-find and the statistics of a component, for all back ends.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace cxrfast {

enum class Select : int64_t { kAll = 0, kLargest = 1, kPeak = 2 };

// parent[i] <= i always holds, and a root is its own parent. The root of a set is thus its smallest element, which is
// the first in raster order if elements are numbered in raster order.
CXRFAST_HOST_DEVICE int32_t find_root(int32_t* parent, int32_t i) {
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];  // halves paths, so that combs and spirals take almost linear time
        i = parent[i];
    }
    return i;
}

CXRFAST_HOST_DEVICE void unite(int32_t* parent, int32_t a, int32_t b) {
    a = find_root(parent, a);
    b = find_root(parent, b);
    if (a < b) {
        parent[b] = a;
    } else {
        parent[a] = b;
    }
}

// NaN is background, and so is everything with a NaN threshold.
template <typename acc_t>
CXRFAST_HOST_DEVICE bool is_foreground(acc_t score, acc_t threshold) {
    return score >= threshold;
}

struct Component {
    int32_t x0, y0, x1, y1;  // half-open
    int64_t area;
    double sum, peak;
    int64_t peak_at;  // raster index of the first pixel with the peak's score
};

// Whether `later`, which comes after `chosen` in raster order, is preferred to it.
CXRFAST_HOST_DEVICE bool is_preferred(const Component& later, const Component& chosen, Select select) {
    if (select == Select::kLargest) return later.area > chosen.area;
    return later.peak > chosen.peak || (later.peak == chosen.peak && later.peak_at < chosen.peak_at);
}

}  // namespace cxrfast

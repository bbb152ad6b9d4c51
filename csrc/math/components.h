// Connected components: union-find, and what is kept of a component, for all back ends.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace cxrfast {

enum class Select : int64_t { kAll = 0, kLargest = 1, kPeak = 2 };

// parent[i] <= i always holds, and a root is its own parent: so the root of a set is its smallest element, which is the
// first in raster order if the elements are numbered in raster order.
CXRFAST_HOST_DEVICE int32_t find_root(int32_t* parent, int32_t i) {
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];  // halves the path, so that combs and spirals stay almost linear
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

// A NaN is background, as is everything under a NaN threshold.
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

// Whether `later`, which follows `chosen` in raster order, is preferred to it.
CXRFAST_HOST_DEVICE bool is_preferred(const Component& later, const Component& chosen, Select select) {
    if (select == Select::kLargest) return later.area > chosen.area;
    return later.peak > chosen.peak || (later.peak == chosen.peak && later.peak_at < chosen.peak_at);
}

}  // namespace cxrfast

// The vectorised loops of region_sums and box_log_likelihood over one row of patches. A row is processed in stretches:
// sums within a stretch have the precision of the elements; sums of stretches are double. Half-precision rows are
// widened one stretch at a time. Formulas: math/region_loss.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "common/dispatch.h"
#include "common/macros.h"
#include "cpu/common/lanes.h"
#include "cpu/common/vector_functions.h"
#include "math/region_loss.h"

namespace cxrfast {

constexpr int64_t kStretch = 4 * kLanes;  // short, because a narrow vector unit adds it up in few long sums

// Calls body(x, first, n) for every stretch x[n] of a row, in the accumulation dtype.
template <typename scalar_t, typename Body>
void for_each_stretch(const scalar_t* row, int64_t patches, const Body& body) {
    using acc_t = accumulate_t<scalar_t>;
    for (int64_t first = 0; first < patches; first += kStretch) {
        const int64_t n = std::min(kStretch, patches - first);
        if constexpr (std::is_same_v<scalar_t, acc_t>) {
            body(row + first, first, n);
        } else {
            alignas(64) acc_t wide[kStretch];
            convert(row + first, wide, n);
            body(static_cast<const acc_t*>(wide), first, n);
        }
    }
}

// gradient(x, to, first, n) writes in the accumulation dtype.
template <typename scalar_t, typename Gradient>
void fill_row(const scalar_t* row, scalar_t* to, int64_t patches, const Gradient& gradient) {
    using acc_t = accumulate_t<scalar_t>;
    for_each_stretch(row, patches, [&](const acc_t* x, int64_t first, int64_t n) {
        if constexpr (std::is_same_v<scalar_t, acc_t>) {
            gradient(x, to + first, first, n);
        } else {
            alignas(64) acc_t wide[kStretch];
            gradient(x, wide, first, n);
            convert(wide, to + first, n);
        }
    });
}

template <typename T>
struct RegionStretch {
    T inside, outside;
    int64_t count;
};

// Selection and sums are two loops, because the compiler would use branches in a single loop. `omp simd` permits it to
// reorder a sum; the resulting order is fixed.
template <typename T>
CXRFAST_CPU_CLONES RegionStretch<T> sum_stretch(const T* __restrict__ x, const uint8_t* __restrict__ in, int64_t n) {
    T chosen[kStretch], left[kStretch];
    for (int64_t i = 0; i < n; ++i) {
        const T p = sigmoid<VectorFunctions>(x[i]);
        chosen[i] = in[i] != 0 ? p : T(0);
        left[i] = in[i] != 0 ? T(0) : p;
    }
    T inside = 0, outside = 0;
    int count = 0;
#pragma omp simd reduction(+ : inside, outside)
    for (int64_t i = 0; i < n; ++i) {
        inside += chosen[i];
        outside += left[i];
    }
    for (int64_t i = 0; i < n; ++i) count += in[i] != 0;
    return {inside, outside, count};
}

template <typename T>
CXRFAST_CPU_CLONES void sum_stretch_backward(
    const T* __restrict__ x, const uint8_t* __restrict__ in, int64_t n, T inside, T outside, T* __restrict__ grad) {
    for (int64_t i = 0; i < n; ++i) {
        grad[i] = (in[i] != 0 ? inside : outside) * sigmoid_gradient<VectorFunctions>(x[i]);
    }
}

// −y of every patch. Each patch adds log σ(y) = −softplus(−y).
template <typename T>
CXRFAST_CPU_CLONES void against(const T* __restrict__ x, const uint8_t* __restrict__ in, int64_t n, T* __restrict__ y) {
    for (int64_t i = 0; i < n; ++i) y[i] = -signed_by_box(x[i], in[i] != 0);
}

// Σ log(floor + span·σ(y)), from the negated y.
template <typename T>
CXRFAST_CPU_CLONES T sum_floored(const T* __restrict__ negated, int64_t n, const Floor<T>& row_floor) {
    const Floor<T> floor = row_floor;
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += log_floored_sigmoid<VectorFunctions>(-negated[i], floor);
    return sum;
}

template <typename T>
double box_stretch(const T* x, const uint8_t* in, int64_t n, const Floor<T>& floor) {
    if (!floor.is_zero() && floor.floor < std::numeric_limits<T>::min()) {
        double sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += patch_log_likelihood(x[i], in[i] != 0, floor);
        return sum;
    }
    alignas(64) T negated[kStretch];  // no vector crosses a cache line, which would take a quarter longer
    against(x, in, n, negated);
    if (floor.is_zero()) return -softplus_sum<false, T>(negated, n, nullptr);
    return sum_floored(negated, n, floor);
}

template <typename T>
CXRFAST_CPU_CLONES void box_stretch_backward(const T* __restrict__ x,
                                             const uint8_t* __restrict__ in,
                                             int64_t n,
                                             T upstream,
                                             const Floor<T>& row_floor,
                                             T* __restrict__ grad) {
    const Floor<T> floor = row_floor;
    if (floor.is_zero()) {  // decided outside the loop
        for (int64_t i = 0; i < n; ++i) {
            const T y = signed_by_box(x[i], in[i] != 0);
            grad[i] = signed_by_box(upstream, in[i] != 0) * sigmoid<VectorFunctions>(-y);
        }
        return;
    }
    for (int64_t i = 0; i < n; ++i) {
        const T y = signed_by_box(x[i], in[i] != 0);
        grad[i] = signed_by_box(upstream, in[i] != 0) * log_floored_sigmoid_gradient<VectorFunctions>(y, floor);
    }
}

}  // namespace cxrfast

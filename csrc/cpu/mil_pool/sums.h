// The vectorised sums of multiple-instance pooling, in one pass over the instances of a bag. Gradient kernels also
// store the gradient up to factors that depend on the complete sums. Terms have the precision of the elements; a lane
// adds kRows of them before it continues in double. The order of additions thus depends only on the length of the bag.
// Formulas: math/mil_pool.h.
//
// Terms may underflow, so that sums below kLeastSum are not reliable; bag.h then computes with logarithms.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/macros.h"
#include "cpu/common/lanes.h"
#include "cpu/common/vector_functions.h"
#include "math/mil_pool.h"

namespace cxrfast {

template <typename T>
constexpr T kLeastSum = sizeof(T) == 4 ? T(0x1p-60) : T(0x1p-900);

// Where a kernel stores the factors of the gradient, [n] each; p and q only without kConstantFactor.
template <typename T>
struct Parts {
    T *g, *p, *q;
};

struct PairOfSums {
    double a, b;
};

template <typename Mode, bool GRADIENT, typename T>
CXRFAST_ALWAYS_INLINE void add_terms(const T* __restrict__ x,
                                     T sharpness,
                                     const T* __restrict__ present,  // [kLanes] 0 or 1; nullptr: all are present
                                     T* __restrict__ a,
                                     T* __restrict__ b,
                                     T* __restrict__ g,
                                     T* __restrict__ p,
                                     T* __restrict__ q) {
    for (int j = 0; j < kLanes; ++j) {
        const Terms<T> terms = Mode::template at<QuickFunctions>(x[j], sharpness);
        a[j] += present == nullptr ? terms.a : terms.a * present[j];
        b[j] += present == nullptr ? terms.b : terms.b * present[j];
        if (GRADIENT) g[j] = terms.g;
        if (GRADIENT && !Mode::kConstantFactor) p[j] = terms.p;
        if (GRADIENT && !Mode::kConstantFactor) q[j] = terms.q;
    }
}

template <typename Mode, bool GRADIENT, typename T>
CXRFAST_CPU_CLONES PairOfSums sums_of_terms(const T* __restrict__ x, int64_t n, T sharpness, Parts<T> parts) {
    constexpr bool kLinear = GRADIENT && !Mode::kConstantFactor;
    double total_a[kLanes] = {}, total_b[kLanes] = {};
    for (int64_t first = 0; first < n; first += kRows * kLanes) {
        T a[kLanes] = {}, b[kLanes] = {};
        const int64_t end = std::min<int64_t>(n, first + kRows * kLanes);
        int64_t i = first;
        for (; i + kLanes <= end; i += kLanes) {
            add_terms<Mode, GRADIENT, T>(x + i, sharpness, nullptr, a, b, GRADIENT ? parts.g + i : nullptr,
                                         kLinear ? parts.p + i : nullptr, kLinear ? parts.q + i : nullptr);
        }
        if (i < end) {
            T rest[kLanes], present[kLanes], g[kLanes], p[kLanes], q[kLanes];
            for (int j = 0; j < kLanes; ++j) present[j] = i + j < end ? T(1) : T(0);
            for (int j = 0; j < kLanes; ++j) rest[j] = i + j < end ? x[i + j] : T(0);
            add_terms<Mode, GRADIENT, T>(rest, sharpness, present, a, b, g, p, q);
            for (int j = 0; GRADIENT && i + j < end; ++j) parts.g[i + j] = g[j];
            for (int j = 0; kLinear && i + j < end; ++j) {
                parts.p[i + j] = p[j];
                parts.q[i + j] = q[j];
            }
        }
        for (int j = 0; j < kLanes; ++j) total_a[j] += a[j];
        for (int j = 0; j < kLanes; ++j) total_b[j] += b[j];
    }
    PairOfSums sums{0, 0};
    for (int j = 0; j < kLanes; ++j) sums.a += total_a[j];
    for (int j = 0; j < kLanes; ++j) sums.b += total_b[j];
    return sums;
}

// The largest number, or NaN if there is one.
template <typename T>
CXRFAST_CPU_CLONES T maximum(const T* x, int64_t n) {
    T largest = -std::numeric_limits<T>::infinity();
    int is_nan = 0;
#pragma omp simd reduction(max : largest) reduction(| : is_nan)
    for (int64_t i = 0; i < n; ++i) {
        largest = x[i] > largest ? x[i] : largest;
        is_nan |= x[i] != x[i];
    }
    return is_nan ? std::numeric_limits<T>::quiet_NaN() : largest;
}

// Whether the number occurs. For NaN: whether there is a NaN.
template <typename T>
CXRFAST_CPU_CLONES bool contains(const T* x, int64_t n, T value) {
    const int wants_nan = value != value;
    int found = 0;
    for (int64_t i = 0; i < n; ++i) found |= (x[i] == value) | (wants_nan & (x[i] != x[i]));
    return found != 0;
}

// Second passes, over data in the cache.

template <typename T>
CXRFAST_CPU_CLONES void scale(T* __restrict__ g, int64_t n, T factor) {
    for (int64_t i = 0; i < n; ++i) g[i] *= factor;
}

template <typename T>
CXRFAST_CPU_CLONES void scale_linearly(
    T* __restrict__ g, const T* __restrict__ p, const T* __restrict__ q, int64_t n, T c0, T c1, T c2) {
    for (int64_t i = 0; i < n; ++i) g[i] *= c0 + c1 * p[i] + c2 * q[i];
}

}  // namespace cxrfast

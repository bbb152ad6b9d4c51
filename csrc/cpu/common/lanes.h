// Shared by vectorised sums over a row: the division of a row into lanes, and Σ softplus(x). A lane adds kRows terms in
// the precision of the elements before it continues in double. The order of additions thus depends only on the length
// of the row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/macros.h"
#include "cpu/common/vector_functions.h"
#include "math/softplus_sum.h"

namespace cxrfast {

constexpr int kLanes = 32;  // whole vectors of any width
constexpr int kRows = 16;   // the product of as many 1 + e^-|x| stays below 2^16

// Conversions between the dtype of elements and that of sums.
template <typename From, typename To>
CXRFAST_CPU_CLONES void convert(const From* __restrict__ from, To* __restrict__ to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<To>(from[i]);
}

// The terms of Σ softplus(x) in one row of lanes.
template <bool GRADIENT, typename T>
CXRFAST_ALWAYS_INLINE void add_softplus_lanes(const T* __restrict__ x,
                                              T* __restrict__ positive,
                                              T* __restrict__ growth,
                                              T* __restrict__ p) {
    for (int j = 0; j < kLanes; ++j) {
        add_softplus<QuickFunctions>(x[j], positive[j], growth[j]);
        if (GRADIENT) p[j] = odds<QuickFunctions>(x[j]).p;
    }
}

// Σ softplus(x) = −log Π (1 − p). With GRADIENT, σ(x) is stored in p.
template <bool GRADIENT, typename T>
CXRFAST_CPU_CLONES double softplus_sum(const T* __restrict__ x, int64_t n, T* __restrict__ p) {
    double total[kLanes] = {};
    for (int64_t first = 0; first < n; first += kRows * kLanes) {
        T positive[kLanes] = {}, growth[kLanes] = {};
        const int64_t end = std::min<int64_t>(n, first + kRows * kLanes);
        int64_t i = first;
        for (; i + kLanes <= end; i += kLanes) {
            add_softplus_lanes<GRADIENT, T>(x + i, positive, growth, GRADIENT ? p + i : nullptr);
        }
        if (i < end) {
            T rest[kLanes], rest_p[kLanes];
            for (int j = 0; j < kLanes; ++j) rest[j] = i + j < end ? x[i + j] : -std::numeric_limits<T>::infinity();
            add_softplus_lanes<GRADIENT, T>(rest, positive, growth, rest_p);
            for (int j = 0; GRADIENT && i + j < end; ++j) p[i + j] = rest_p[j];
        }
        for (int j = 0; j < kLanes; ++j) total[j] += positive[j] + simd::log1p_inside(growth[j]);
    }
    double sum = 0;
    for (int j = 0; j < kLanes; ++j) sum += total[j];
    return sum;
}

}  // namespace cxrfast

// The loops of region_sums and box_log_likelihood over one row of patches, vectorised. A row is worked on in stretches:
// within one, sums have the elements' precision, from one to the next they are carried in double. Half-precision rows
// are widened a stretch at a time. Formulas: math/region_loss.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "common/dispatch.h"
#include "common/macros.h"
#include "cpu/common/lanes.h"
#include "cpu/common/vector_math.h"
#include "math/region_loss.h"

namespace cxrfast {

constexpr int64_t kStretch = 4 * kLanes;  // short: a narrow vector unit adds it up in few, long sums

// body(x, first, n) for every stretch x[n] of a row, in the accumulation dtype.
template <typename scalar_t, typename Body>
void for_each_stretch(const scalar_t* row, int64_t patches, const Body& body) {
    using acc_t = accumulate_t<scalar_t>;
    for (int64_t first = 0; first < patches; first += kStretch) {
        const int64_t n = std::min(kStretch, patches - first);
        if constexpr (std::is_same_v<scalar_t, acc_t>) {
            body(row + first, first, n);
        } else {
            acc_t wide[kStretch];
            convert(row + first, wide, n);
            body(static_cast<const acc_t*>(wide), first, n);
        }
    }
}

// gradient(x, to, first, n) writes the accumulation dtype.
template <typename scalar_t, typename Gradient>
void fill_row(const scalar_t* row, scalar_t* to, int64_t patches, const Gradient& gradient) {
    using acc_t = accumulate_t<scalar_t>;
    for_each_stretch(row, patches, [&](const acc_t* x, int64_t first, int64_t n) {
        if constexpr (std::is_same_v<scalar_t, acc_t>) {
            gradient(x, to + first, first, n);
        } else {
            acc_t wide[kStretch];
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

// First the choice, then the sums: in one loop the compiler branches. `omp simd` is what permits it to reorder a sum;
// the order it takes is fixed.
template <typename T>
CXRFAST_CPU_CLONES RegionStretch<T> sum_stretch(const T* __restrict__ x, const uint8_t* __restrict__ in, int64_t n) {
    T chosen[kStretch], left[kStretch];
    for (int64_t i = 0; i < n; ++i) {
        const T p = simd::sigmoid(x[i]);
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
        const T e = simd::exp(-std::abs(x[i])), d = T(1) + e;
        grad[i] = (in[i] != 0 ? inside : outside) * (e / (d * d));
    }
}

// Inside the box y = x, outside it y = −x: a patch adds log σ(y) = −softplus(−y). Writes −y.
template <typename T>
CXRFAST_CPU_CLONES void against(const T* __restrict__ x, const uint8_t* __restrict__ in, int64_t n, T* __restrict__ y) {
    for (int64_t i = 0; i < n; ++i) y[i] = in[i] != 0 ? -x[i] : x[i];
}

// Σ log(floor + (1 − floor)·σ(y)), with y negated, from whichever of σ(y) and σ(−y) keeps its digits.
template <typename T>
CXRFAST_CPU_CLONES T sum_floored(const T* __restrict__ negated, int64_t n, T floor, T span) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) {
        const T e = simd::exp(-std::abs(negated[i])), larger = T(1) / (T(1) + e), smaller = e * larger;
        const T p = negated[i] > T(0) ? smaller : larger, lost = span * (negated[i] > T(0) ? larger : smaller);
        const T value = floor + span * p, complement = T(1) - lost;
        const bool low = value < T(0.5);
        sum += simd::log_of_sum(low ? value : complement, low ? T(0) : (T(1) - complement) - lost);
    }
    return sum;
}

template <typename T>
double box_stretch(const T* x, const uint8_t* in, int64_t n, double floor) {
    const T least = static_cast<T>(floor);
    if (least != T(0) && least < std::numeric_limits<T>::min()) {
        double sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += patch_log_likelihood(x[i], in[i] != 0, floor);
        return sum;
    }
    T negated[kStretch];
    against(x, in, n, negated);
    if (least == T(0)) return -softplus_sum<false, T>(negated, n, nullptr);
    return sum_floored(negated, n, least, static_cast<T>(1.0 - floor));
}

// With D = 1 + e^-|y|: σ'(y) / σ(y) = σ(−y) where there is no floor, else
// span·σ'(y) / (floor + span·σ(y)) = span·e^-|y| / (D·(floor·D + span·(y < 0 ? e^-|y| : 1))).
template <typename T>
CXRFAST_CPU_CLONES void box_stretch_backward(const T* __restrict__ x,
                                             const uint8_t* __restrict__ in,
                                             int64_t n,
                                             T upstream,
                                             T floor,
                                             T span,
                                             T* __restrict__ grad) {
    if (floor == T(0)) {
        for (int64_t i = 0; i < n; ++i) {
            const bool inside = in[i] != 0;
            grad[i] = (inside ? upstream : -upstream) * simd::sigmoid(inside ? -x[i] : x[i]);
        }
        return;
    }
    for (int64_t i = 0; i < n; ++i) {
        const bool inside = in[i] != 0;
        const T y = inside ? x[i] : -x[i], e = simd::exp(-std::abs(y)), d = T(1) + e;
        grad[i] = (inside ? upstream : -upstream) * (span * e / (d * (floor * d + span * (y < T(0) ? e : T(1)))));
    }
}

}  // namespace cxrfast

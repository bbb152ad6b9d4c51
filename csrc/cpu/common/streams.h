// Loops over several contiguous rows, to be inlined into a function with CXRFAST_CPU_CLONES: the weighted sum of up to
// kMaxStreams rows, and the extraction and insertion of every n-th element.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/macros.h"

namespace cxrfast {
namespace {

constexpr int64_t kMaxStreams = 7;
constexpr int64_t kVector = 16;  // maximum number of elements of a vector

template <typename out_t, typename T>
CXRFAST_CPU_CLONES void copy(out_t* __restrict__ out, const T* __restrict__ x, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<out_t>(x[i]);
}

// out[i] = sum over t of weights[t] * x[t][i], in the order of t, which makes the result independent of alignment.
template <int N, typename out_t, typename in_t, typename acc_t>
CXRFAST_ALWAYS_INLINE void weighted_sum_of(out_t* __restrict__ out,
                                           const in_t* const* x,  // [N] rows of n
                                           const acc_t* weights,  // [N]
                                           int64_t n) {
    const in_t* rows[N];
    acc_t scale[N];
    for (int t = 0; t < N; ++t) rows[t] = x[t];
    for (int t = 0; t < N; ++t) scale[t] = weights[t];
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        acc_t sum = scale[0] * static_cast<acc_t>(rows[0][i]);
#pragma GCC unroll 8
        for (int t = 1; t < N; ++t) sum += scale[t] * static_cast<acc_t>(rows[t][i]);
        out[i] = static_cast<out_t>(sum);
    }
}

template <typename out_t, typename in_t, typename acc_t>
CXRFAST_CPU_CLONES void weighted_sum(out_t* __restrict__ out,
                                     const in_t* const* x,  // [count] rows of n
                                     const acc_t* weights,  // [count]
                                     int64_t count,         // 0 to kMaxStreams
                                     int64_t n) {
    switch (count) {
        case 0:
            for (int64_t i = 0; i < n; ++i) out[i] = static_cast<out_t>(0.0f);
            return;
        case 1:
            return weighted_sum_of<1>(out, x, weights, n);
        case 2:
            return weighted_sum_of<2>(out, x, weights, n);
        case 3:
            return weighted_sum_of<3>(out, x, weights, n);
        case 4:
            return weighted_sum_of<4>(out, x, weights, n);
        case 5:
            return weighted_sum_of<5>(out, x, weights, n);
        case 6:
            return weighted_sum_of<6>(out, x, weights, n);
        default:
            return weighted_sum_of<kMaxStreams>(out, x, weights, n);
    }
}

// phases[p * pitch + i] = x[i * step + p] for i in [0, n).
template <typename T>
CXRFAST_CPU_CLONES void split(T* __restrict__ phases, const T* __restrict__ x, int64_t step, int64_t pitch, int64_t n) {
    if (step == 2) {
        T* __restrict__ odd = phases + pitch;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
            phases[i] = x[2 * i];
            odd[i] = x[2 * i + 1];
        }
        return;
    }
    for (int64_t p = 0; p < step; ++p) {
        for (int64_t i = 0; i < n; ++i) phases[p * pitch + i] = x[i * step + p];
    }
}

// out[i * step + p] = phases[p * pitch + i] for i in [0, n).
template <typename T>
CXRFAST_CPU_CLONES void join(
    T* __restrict__ out, const T* __restrict__ phases, int64_t step, int64_t pitch, int64_t n) {
    if (step == 2) {
        const T* __restrict__ odd = phases + pitch;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
            out[2 * i] = phases[i];
            out[2 * i + 1] = odd[i];
        }
        return;
    }
    for (int64_t p = 0; p < step; ++p) {
        for (int64_t i = 0; i < n; ++i) out[i * step + p] = phases[p * pitch + i];
    }
}

}  // namespace
}  // namespace cxrfast

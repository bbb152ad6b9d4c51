// The elementwise loops of pac_conv2d and pac_crf on the CPU, over contiguous elements. A plane is one channel;
// consecutive planes are `pitch` elements apart. Formulas: math/pac_crf.h.
#pragma once

#include <cstdint>
#include <limits>

#include "common/macros.h"
#include "cpu/common/vector_functions.h"
#include "math/pac_crf.h"

namespace cxrfast {
namespace {

// squared distances -> affinities, in place
template <typename T>
CXRFAST_CPU_CLONES void affinities_of(T* values, int64_t n) {
    for (int64_t i = 0; i < n; ++i) values[i] = pair_affinity<VectorFunctions>(values[i]);
}

// The affinity of a pixel to itself: exp(-0/2) = 1, but NaN if its guide is not finite.
template <typename T>
CXRFAST_CPU_CLONES void own_affinity(
    T* __restrict__ result, const T* __restrict__ guide, int64_t channels, int64_t pitch, int64_t n) {
    for (int64_t i = 0; i < n; ++i) result[i] = 1;
    for (int64_t c = 0; c < channels; ++c) {
        for (int64_t i = 0; i < n; ++i) result[i] += guide[c * pitch + i] - guide[c * pitch + i];
    }
}

// result = affinity * (a * left + b * right)
template <typename T>
CXRFAST_CPU_CLONES void combine_gradients(T* __restrict__ result,
                                          const T* __restrict__ affinity,
                                          const T* __restrict__ left,
                                          const T* __restrict__ right,
                                          T a,
                                          T b,
                                          int64_t n) {
    for (int64_t i = 0; i < n; ++i) result[i] = affinity[i] * (a * left[i] + b * right[i]);
}

// target = a * target + b * source
template <typename T>
CXRFAST_CPU_CLONES void combine(T* __restrict__ target, T a, const T* __restrict__ source, T b, int64_t n) {
    for (int64_t i = 0; i < n; ++i) target[i] = a * target[i] + b * source[i];
}

template <typename T>
CXRFAST_CPU_CLONES void negate(T* values, int64_t n) {
    for (int64_t i = 0; i < n; ++i) values[i] = -values[i];
}

// `omp simd` permits the compiler to reorder the sum; the resulting order is fixed.
template <typename T>
CXRFAST_CPU_CLONES T inner_product(const T* left, const T* right, int64_t n) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += left[i] * right[i];
    return sum;
}

// even[o] += the sum of vector [o, 0] of values [count, 2, n]; odd[o] += that of vector [o, 1]. odd may be null.
template <typename T>
CXRFAST_CPU_CLONES void add_pair_sums(T* even, T* odd, const T* values, int64_t count, int64_t n) {
    for (int64_t o = 0; o < count; ++o) {
        const T *left = values + 2 * o * n, *right = left + n;
        T a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
        for (int64_t i = 0; i < n; ++i) {
            a += left[i];
            b += right[i];
        }
        even[o] += a;
        if (odd) odd[o] += b;
    }
}

// The label probabilities of every pixel: q[c, i] for logits[c, i].
template <typename T>
CXRFAST_CPU_CLONES void activate(T* __restrict__ q,
                                 const T* __restrict__ logits,
                                 Activation activation,
                                 int64_t channels,
                                 int64_t pitch,
                                 int64_t n) {
    if (activation == Activation::kSigmoid) {
        for (int64_t c = 0; c < channels; ++c) {
            for (int64_t i = 0; i < n; ++i) q[c * pitch + i] = sigmoid<VectorFunctions>(logits[c * pitch + i]);
        }
        return;
    }
    constexpr int64_t kPart = 128;
    for (int64_t first = 0; first < n; first += kPart) {
        const int64_t count = n - first < kPart ? n - first : kPart;
        T top[kPart], sum[kPart];
        for (int64_t i = 0; i < count; ++i) {
            top[i] = -std::numeric_limits<T>::infinity();
            sum[i] = 0;
        }
        for (int64_t c = 0; c < channels; ++c) {
            const T* from = logits + c * pitch + first;
            for (int64_t i = 0; i < count; ++i) top[i] = from[i] > top[i] ? from[i] : top[i];
        }
        for (int64_t c = 0; c < channels; ++c) {
            const T* from = logits + c * pitch + first;
            T* to = q + c * pitch + first;
            for (int64_t i = 0; i < count; ++i) {
                to[i] = softmax_numerator<VectorFunctions>(from[i], top[i]);
                sum[i] += to[i];
            }
        }
        for (int64_t c = 0; c < channels; ++c) {
            T* to = q + c * pitch + first;
            for (int64_t i = 0; i < count; ++i) to[i] /= sum[i];
        }
    }
}

// The gradient of the logits of activate(), written over grad_q.
template <typename T>
CXRFAST_CPU_CLONES void activate_backward(
    T* __restrict__ grad, const T* __restrict__ q, Activation activation, int64_t channels, int64_t pitch, int64_t n) {
    if (activation == Activation::kSigmoid) {
        for (int64_t c = 0; c < channels; ++c) {
            T* to = grad + c * pitch;
            const T* p = q + c * pitch;
            for (int64_t i = 0; i < n; ++i) to[i] = sigmoid_backward(p[i], to[i]);
        }
        return;
    }
    constexpr int64_t kPart = 128;
    for (int64_t first = 0; first < n; first += kPart) {
        const int64_t count = n - first < kPart ? n - first : kPart;
        T mean[kPart];
        for (int64_t i = 0; i < count; ++i) mean[i] = 0;
        for (int64_t c = 0; c < channels; ++c) {
            const T *g = grad + c * pitch + first, *p = q + c * pitch + first;
            for (int64_t i = 0; i < count; ++i) mean[i] += g[i] * p[i];
        }
        for (int64_t c = 0; c < channels; ++c) {
            T* g = grad + c * pitch + first;
            const T* p = q + c * pitch + first;
            for (int64_t i = 0; i < count; ++i) g[i] = softmax_backward(p[i], g[i], mean[i]);
        }
    }
}

}  // namespace
}  // namespace cxrfast

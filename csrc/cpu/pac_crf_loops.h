// The innermost loops of pac_conv2d and pac_crf on the CPU. All run over pixels that are contiguous in memory, so that
// the compiler vectorises them; a plane is one channel of an image, and planes lie `pitch` apart.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "../common/macros.h"
#include "../math/pac_crf.h"

namespace cxrfast {
namespace {

// One tile of mix(): OUT x IN weights stay in registers while the pixels stream by.
template <int OUT, int IN, bool CORRELATE, typename T>
inline __attribute__((always_inline)) void mix_tile(T* __restrict__ out,
                                                    const T* __restrict__ in,
                                                    const T* __restrict__ affinity,
                                                    const T* weight,
                                                    int64_t weight_pitch,
                                                    const T* __restrict__ other,
                                                    T* __restrict__ correlation,
                                                    int64_t pitch,
                                                    int64_t n) {
    T w[OUT][IN];
    for (int o = 0; o < OUT; ++o) {
        for (int c = 0; c < IN; ++c) w[o][c] = weight[o * weight_pitch + c];
    }
    for (int64_t i = 0; i < n; ++i) {
        T product = 0;
        for (int o = 0; o < OUT; ++o) {
            T sum = w[o][0] * in[i];
            for (int c = 1; c < IN; ++c) sum += w[o][c] * in[c * pitch + i];
            out[o * pitch + i] += affinity[i] * sum;
            if (CORRELATE) product += sum * other[o * pitch + i];
        }
        if (CORRELATE) correlation[i] += product;
    }
}

// out[o, i] += affinity[i] * m[o, i] with m[o, i] = sum over c of weight[o, c] * in[c, i]; and, if CORRELATE,
// correlation[i] += sum over o of m[o, i] * other[o, i]. Both channel counts are even: planes are padded with zeros.
template <bool CORRELATE, typename T>
CXRFAST_CPU_CLONES void mix(T* out,
                            const T* in,
                            const T* affinity,
                            const T* weight,  // [out_channels, in_channels]
                            const T* other,
                            T* correlation,
                            int64_t out_channels,
                            int64_t in_channels,
                            int64_t pitch,
                            int64_t n) {
    for (int64_t o = 0; o < out_channels; o += 4) {
        const bool wide = o + 4 <= out_channels;
        T* to = out + o * pitch;
        const T* with = CORRELATE ? other + o * pitch : nullptr;
        for (int64_t c = 0; c < in_channels; c += 4) {
            const T* from = in + c * pitch;
            const T* w = weight + o * in_channels + c;
            if (wide && c + 4 <= in_channels) {
                mix_tile<4, 4, CORRELATE>(to, from, affinity, w, in_channels, with, correlation, pitch, n);
            } else if (wide) {
                mix_tile<4, 2, CORRELATE>(to, from, affinity, w, in_channels, with, correlation, pitch, n);
            } else if (c + 4 <= in_channels) {
                mix_tile<2, 4, CORRELATE>(to, from, affinity, w, in_channels, with, correlation, pitch, n);
            } else {
                mix_tile<2, 2, CORRELATE>(to, from, affinity, w, in_channels, with, correlation, pitch, n);
            }
        }
    }
}

// sums[a, b] += sum over i of left[a, i] * right[b, i]; rows a multiple of 4, columns even. `omp simd` is what permits
// the compiler to reorder a sum; the order it takes is fixed.
template <typename T>
CXRFAST_CPU_CLONES void add_inner_products(T* sums,  // [rows, columns]
                                           const T* left,
                                           const T* right,
                                           int64_t rows,
                                           int64_t columns,
                                           int64_t pitch,
                                           int64_t n) {
    for (int64_t a = 0; a < rows; a += 4) {
        for (int64_t b = 0; b < columns; b += 2) {
            const T *l0 = left + a * pitch, *l1 = l0 + pitch, *l2 = l1 + pitch, *l3 = l2 + pitch;
            const T *r0 = right + b * pitch, *r1 = r0 + pitch;
            T s00 = 0, s10 = 0, s20 = 0, s30 = 0, s01 = 0, s11 = 0, s21 = 0, s31 = 0;
#pragma omp simd reduction(+ : s00, s10, s20, s30, s01, s11, s21, s31)
            for (int64_t i = 0; i < n; ++i) {
                s00 += l0[i] * r0[i];
                s10 += l1[i] * r0[i];
                s20 += l2[i] * r0[i];
                s30 += l3[i] * r0[i];
                s01 += l0[i] * r1[i];
                s11 += l1[i] * r1[i];
                s21 += l2[i] * r1[i];
                s31 += l3[i] * r1[i];
            }
            T* sum = sums + a * columns + b;
            sum[0] += s00;
            sum[1] += s01;
            sum[columns] += s10;
            sum[columns + 1] += s11;
            sum[2 * columns] += s20;
            sum[2 * columns + 1] += s21;
            sum[3 * columns] += s30;
            sum[3 * columns + 1] += s31;
        }
    }
}

// out[c, i] += factor * affinity[i] * in[c, i]
template <typename T>
CXRFAST_CPU_CLONES void add_product(T* __restrict__ out,
                                    const T* __restrict__ in,
                                    const T* __restrict__ affinity,
                                    T factor,
                                    int64_t channels,
                                    int64_t pitch,
                                    int64_t n) {
    for (int64_t c = 0; c < channels; ++c) {
        for (int64_t i = 0; i < n; ++i) out[c * pitch + i] += factor * affinity[i] * in[c * pitch + i];
    }
}

// result[i] = sum over c of left[c, i] * right[c, i]
template <typename T>
CXRFAST_CPU_CLONES void channel_product(T* __restrict__ result,
                                        const T* __restrict__ left,
                                        const T* __restrict__ right,
                                        int64_t channels,
                                        int64_t pitch,
                                        int64_t n) {
    for (int64_t i = 0; i < n; ++i) result[i] = 0;
    for (int64_t c = 0; c < channels; ++c) {
        for (int64_t i = 0; i < n; ++i) result[i] += left[c * pitch + i] * right[c * pitch + i];
    }
}

// Adds factor * values to target and returns the inner product of values and affinity.
template <typename T>
CXRFAST_CPU_CLONES T add_and_project(
    T* __restrict__ target, const T* __restrict__ values, const T* __restrict__ affinity, T factor, int64_t n) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) {
        target[i] += factor * values[i];
        sum += affinity[i] * values[i];
    }
    return sum;
}

// result[i] = sum over c of (left[c, i] - right[c, i])^2
template <typename T>
CXRFAST_CPU_CLONES void squared_distance(T* __restrict__ result,
                                         const T* __restrict__ left,
                                         const T* __restrict__ right,
                                         int64_t channels,
                                         int64_t pitch,
                                         int64_t n) {
    for (int64_t i = 0; i < n; ++i) result[i] = 0;
    for (int64_t c = 0; c < channels; ++c) {
        for (int64_t i = 0; i < n; ++i) {
            const T difference = left[c * pitch + i] - right[c * pitch + i];
            result[i] += difference * difference;
        }
    }
}

// grad[c, i] -= weight[i] * (left[c, i] - right[c, i])
template <typename T>
CXRFAST_CPU_CLONES void subtract_differences(T* __restrict__ grad,
                                             const T* __restrict__ left,
                                             const T* __restrict__ right,
                                             const T* __restrict__ weight,
                                             int64_t channels,
                                             int64_t pitch,
                                             int64_t n) {
    for (int64_t c = 0; c < channels; ++c) {
        for (int64_t i = 0; i < n; ++i) {
            grad[c * pitch + i] -= weight[i] * (left[c * pitch + i] - right[c * pitch + i]);
        }
    }
}

// target = a * target + b * source
template <typename T>
CXRFAST_CPU_CLONES void combine(T* __restrict__ target, T a, const T* __restrict__ source, T b, int64_t n) {
    for (int64_t i = 0; i < n; ++i) target[i] = a * target[i] + b * source[i];
}

template <typename T>
CXRFAST_CPU_CLONES T inner_product(const T* left, const T* right, int64_t n) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += left[i] * right[i];
    return sum;
}

// Infinite or NaN if any value is.
template <typename T>
CXRFAST_CPU_CLONES T absolute_sum(const T* values, int64_t n) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += std::abs(values[i]);
    return sum;
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
            for (int64_t i = 0; i < n; ++i) q[c * pitch + i] = sigmoid(logits[c * pitch + i]);
        }
        return;
    }
    for (int64_t i = 0; i < n; ++i) {
        T top = -std::numeric_limits<T>::infinity(), sum = 0;  // there may be no channel
        for (int64_t c = 0; c < channels; ++c) top = std::fmax(top, logits[c * pitch + i]);
        for (int64_t c = 0; c < channels; ++c) sum += q[c * pitch + i] = std::exp(logits[c * pitch + i] - top);
        for (int64_t c = 0; c < channels; ++c) q[c * pitch + i] /= sum;
    }
}

// grad_logits of activate(), in place of grad_q.
template <typename T>
CXRFAST_CPU_CLONES void activate_backward(
    T* __restrict__ grad, const T* __restrict__ q, Activation activation, int64_t channels, int64_t pitch, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        T mean = 0;
        for (int64_t c = 0; c < channels; ++c) mean += grad[c * pitch + i] * q[c * pitch + i];
        for (int64_t c = 0; c < channels; ++c) {
            const T p = q[c * pitch + i], g = grad[c * pitch + i];
            grad[c * pitch + i] = activation == Activation::kSigmoid ? g * p * (1 - p) : p * (g - mean);
        }
    }
}

}  // namespace
}  // namespace cxrfast

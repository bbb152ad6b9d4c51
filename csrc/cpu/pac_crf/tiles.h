// The innermost loops of pac_conv2d and pac_crf on the CPU: tiles whose sums stay in registers.
//
// A tile is OUT channels × a block of two vectors of elements; an element is one pixel of one image. In a run of taps,
// the neighbours of a block, the affinities and the weights of consecutive taps are each a constant distance apart. The
// same source is compiled for every vector unit; BYTES is the width of its registers.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace cxrfast {
namespace {

template <typename T, int BYTES>
struct Simd {
    static constexpr int kLanes = BYTES / sizeof(T);
    typedef T type __attribute__((vector_size(BYTES)));
    typedef T memory __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
};

// A run of taps, for one block of elements.
template <typename T>
struct FilterRun {
    T* out;         // OUT channels
    const T* in;    // channels of the neighbours; those of the next tap are in_step further
    int64_t pitch;  // between channels, of `in` and `out`
    int64_t in_step;
    const T* affinity;  // that of the next tap is affinity_step further
    int64_t affinity_step;
    const T* weight;  // [taps, channels, OUT]; for a shared filter [taps]
    int64_t channels, taps;
};

// In the backward, `in` is the gradient of the outputs and `out` that of the inputs; the affinities also get gradients.
template <typename T>
struct GradientRun {
    FilterRun<T> run;
    const T* other;    // the inputs, OUT channels
    T* grad_affinity;  // that of the next tap is grad_step further
    int64_t grad_step;
    bool add;  // add to grad_affinity; else overwrite it
};

// The contribution of some rows to the weight gradient of one tap, for two input channels.
template <typename T>
struct WeightRun {
    const T *grad, *in, *affinity;
    int64_t grad_pitch, in_pitch;                  // between channels
    int64_t grad_stride, in_stride, affinity_row;  // between rows
    int64_t rows, n;                               // n elements of each row, a multiple of the vector length
    T* sums;                                       // [OUT, 2] vectors
};

template <typename T>
struct DistanceRun {
    T* out;            // that of the next tap is out_step further
    const T *in, *to;  // channels of the block and of its neighbours
    int64_t pitch, in_step, out_step;
    int64_t channels;
    bool add;
};

template <typename T>
struct DifferenceRun {
    T* out;            // OUT channels
    const T *in, *to;  // channels of the block and of its neighbours
    int64_t pitch, in_step;
    const T* coefficient;  // that of the next tap is coefficient_step further
    int64_t coefficient_step;
    int64_t taps;
};

#define CXRFAST_LOAD(p) (*reinterpret_cast<const typename Simd<T, BYTES>::memory*>(p))
#define CXRFAST_STORE(p) (*reinterpret_cast<typename Simd<T, BYTES>::memory*>(p))
// Forces a vector into a register. The compiler would load a vector that is used twice again, but loads are the
// bottleneck.
#if defined(__x86_64__) && defined(__GNUC__)
#define CXRFAST_IN_REGISTER(v) __asm__("" : "+v"(v))
#else
#define CXRFAST_IN_REGISTER(v)
#endif

// out[o] += sum over taps and channels of weight[tap, c, o] * affinity[tap] * in[tap, c]
template <typename T, int BYTES, int OUT>
CXRFAST_ALWAYS_INLINE void filter_tile(const FilterRun<T>& r) {
    using V = typename Simd<T, BYTES>::type;
    constexpr int N = Simd<T, BYTES>::kLanes;
    V sum[OUT][2];
#pragma GCC unroll 16
    for (int o = 0; o < OUT; ++o) {
        sum[o][0] = CXRFAST_LOAD(r.out + o * r.pitch);
        sum[o][1] = CXRFAST_LOAD(r.out + o * r.pitch + N);
    }
    const T* weight = r.weight;
    for (int64_t tap = 0; tap < r.taps; ++tap) {
        const T* affinity = r.affinity + tap * r.affinity_step;
        const V a0 = CXRFAST_LOAD(affinity), a1 = CXRFAST_LOAD(affinity + N);
        __builtin_prefetch(affinity + 2 * N);  // the next block's
        __builtin_prefetch(affinity + 3 * N);
        const T* in = r.in + tap * r.in_step;
        for (int64_t c = 0; c < r.channels; ++c, in += r.pitch, weight += OUT) {
            const V v0 = a0 * CXRFAST_LOAD(in), v1 = a1 * CXRFAST_LOAD(in + N);
#pragma GCC unroll 16
            for (int o = 0; o < OUT; ++o) {
                sum[o][0] += weight[o] * v0;
                sum[o][1] += weight[o] * v1;
            }
        }
    }
#pragma GCC unroll 16
    for (int o = 0; o < OUT; ++o) {
        CXRFAST_STORE(r.out + o * r.pitch) = sum[o][0];
        CXRFAST_STORE(r.out + o * r.pitch + N) = sum[o][1];
    }
}

// The same with one weight[tap] for all channels; each output channel uses only the same input channel.
template <typename T, int BYTES, int OUT>
CXRFAST_ALWAYS_INLINE void shared_filter_tile(const FilterRun<T>& r) {
    using V = typename Simd<T, BYTES>::type;
    constexpr int N = Simd<T, BYTES>::kLanes;
    V sum[OUT][2];
#pragma GCC unroll 16
    for (int o = 0; o < OUT; ++o) {
        sum[o][0] = CXRFAST_LOAD(r.out + o * r.pitch);
        sum[o][1] = CXRFAST_LOAD(r.out + o * r.pitch + N);
    }
    for (int64_t tap = 0; tap < r.taps; ++tap) {
        const T* affinity = r.affinity + tap * r.affinity_step;
        const V a0 = r.weight[tap] * CXRFAST_LOAD(affinity), a1 = r.weight[tap] * CXRFAST_LOAD(affinity + N);
        __builtin_prefetch(affinity + 2 * N);
        __builtin_prefetch(affinity + 3 * N);
        const T* in = r.in + tap * r.in_step;
#pragma GCC unroll 16
        for (int o = 0; o < OUT; ++o) {
            sum[o][0] += a0 * CXRFAST_LOAD(in + o * r.pitch);
            sum[o][1] += a1 * CXRFAST_LOAD(in + o * r.pitch + N);
        }
    }
#pragma GCC unroll 16
    for (int o = 0; o < OUT; ++o) {
        CXRFAST_STORE(r.out + o * r.pitch) = sum[o][0];
        CXRFAST_STORE(r.out + o * r.pitch + N) = sum[o][1];
    }
}

// With m[tap, o] = sum over channels of weight[tap, c, o] * in[tap, c]: out[o] += sum over taps of
// affinity[tap] * m[tap, o], and grad_affinity[tap] (+)= sum over o of other[o] * m[tap, o].
template <typename T, int BYTES, int OUT>
CXRFAST_ALWAYS_INLINE void gradient_tile(const GradientRun<T>& g) {
    using V = typename Simd<T, BYTES>::type;
    constexpr int N = Simd<T, BYTES>::kLanes;
    const FilterRun<T>& r = g.run;
    const T* weight = r.weight;
    for (int64_t tap = 0; tap < r.taps; ++tap) {
        const T* affinity = r.affinity + tap * r.affinity_step;
        T* grad_affinity = g.grad_affinity + tap * g.grad_step;
        __builtin_prefetch(affinity + 2 * N);
        __builtin_prefetch(affinity + 3 * N);
        __builtin_prefetch(grad_affinity + 2 * N);
        __builtin_prefetch(grad_affinity + 3 * N);
        V m[OUT][2] = {};
        const T* in = r.in + tap * r.in_step;
        for (int64_t c = 0; c < r.channels; ++c, in += r.pitch, weight += OUT) {
            const V v0 = CXRFAST_LOAD(in), v1 = CXRFAST_LOAD(in + N);
#pragma GCC unroll 16
            for (int o = 0; o < OUT; ++o) {
                m[o][0] += weight[o] * v0;
                m[o][1] += weight[o] * v1;
            }
        }
        const V a0 = CXRFAST_LOAD(affinity), a1 = CXRFAST_LOAD(affinity + N);
        V s0 = {}, s1 = {};
        if (g.add) {
            s0 = CXRFAST_LOAD(grad_affinity);
            s1 = CXRFAST_LOAD(grad_affinity + N);
        }
#pragma GCC unroll 16
        for (int o = 0; o < OUT; ++o) {
            CXRFAST_STORE(r.out + o * r.pitch) += a0 * m[o][0];
            CXRFAST_STORE(r.out + o * r.pitch + N) += a1 * m[o][1];
            s0 += CXRFAST_LOAD(g.other + o * r.pitch) * m[o][0];
            s1 += CXRFAST_LOAD(g.other + o * r.pitch + N) * m[o][1];
        }
        CXRFAST_STORE(grad_affinity) = s0;
        CXRFAST_STORE(grad_affinity + N) = s1;
    }
}

// The same with one weight[tap] for all channels. The gradients of the affinities do not include this weight.
template <typename T, int BYTES, int OUT>
CXRFAST_ALWAYS_INLINE void shared_gradient_tile(const GradientRun<T>& g) {
    using V = typename Simd<T, BYTES>::type;
    constexpr int N = Simd<T, BYTES>::kLanes;
    const FilterRun<T>& r = g.run;
    V sum[OUT][2];
#pragma GCC unroll 16
    for (int o = 0; o < OUT; ++o) {
        sum[o][0] = CXRFAST_LOAD(r.out + o * r.pitch);
        sum[o][1] = CXRFAST_LOAD(r.out + o * r.pitch + N);
    }
    for (int64_t tap = 0; tap < r.taps; ++tap) {
        const T* affinity = r.affinity + tap * r.affinity_step;
        T* grad_affinity = g.grad_affinity + tap * g.grad_step;
        __builtin_prefetch(affinity + 2 * N);
        __builtin_prefetch(affinity + 3 * N);
        __builtin_prefetch(grad_affinity + 2 * N);
        __builtin_prefetch(grad_affinity + 3 * N);
        const V a0 = r.weight[tap] * CXRFAST_LOAD(affinity), a1 = r.weight[tap] * CXRFAST_LOAD(affinity + N);
        V s0 = {}, s1 = {};
        if (g.add) {
            s0 = CXRFAST_LOAD(grad_affinity);
            s1 = CXRFAST_LOAD(grad_affinity + N);
        }
        const T* in = r.in + tap * r.in_step;
#pragma GCC unroll 16
        for (int o = 0; o < OUT; ++o) {
            const V v0 = CXRFAST_LOAD(in + o * r.pitch), v1 = CXRFAST_LOAD(in + o * r.pitch + N);
            sum[o][0] += a0 * v0;
            sum[o][1] += a1 * v1;
            s0 += CXRFAST_LOAD(g.other + o * r.pitch) * v0;
            s1 += CXRFAST_LOAD(g.other + o * r.pitch + N) * v1;
        }
        CXRFAST_STORE(grad_affinity) = s0;
        CXRFAST_STORE(grad_affinity + N) = s1;
    }
#pragma GCC unroll 16
    for (int o = 0; o < OUT; ++o) {
        CXRFAST_STORE(r.out + o * r.pitch) = sum[o][0];
        CXRFAST_STORE(r.out + o * r.pitch + N) = sum[o][1];
    }
}

// sums[o, c], vector by vector, += sum over the elements of the rows of grad[o] * affinity * in[c], for c = 0 and 1
template <typename T, int BYTES, int OUT>
CXRFAST_ALWAYS_INLINE void weight_tile(const WeightRun<T>& r) {
    using V = typename Simd<T, BYTES>::type;
    constexpr int N = Simd<T, BYTES>::kLanes;
    V sum[OUT][2];
#pragma GCC unroll 16
    for (int o = 0; o < OUT; ++o) {
        sum[o][0] = CXRFAST_LOAD(r.sums + 2 * o * N);
        sum[o][1] = CXRFAST_LOAD(r.sums + (2 * o + 1) * N);
    }
    for (int64_t row = 0; row < r.rows; ++row) {
        const T *grad = r.grad + row * r.grad_stride, *in = r.in + row * r.in_stride;
        const T* affinity = r.affinity + row * r.affinity_row;
        for (int64_t i = 0; i < r.n; i += N) {
            const V a = CXRFAST_LOAD(affinity + i);
            const V v0 = a * CXRFAST_LOAD(in + i), v1 = a * CXRFAST_LOAD(in + r.in_pitch + i);
#pragma GCC unroll 16
            for (int o = 0; o < OUT; ++o) {
                V d = CXRFAST_LOAD(grad + o * r.grad_pitch + i);
                CXRFAST_IN_REGISTER(d);
                sum[o][0] += d * v0;
                sum[o][1] += d * v1;
            }
        }
    }
#pragma GCC unroll 16
    for (int o = 0; o < OUT; ++o) {
        CXRFAST_STORE(r.sums + 2 * o * N) = sum[o][0];
        CXRFAST_STORE(r.sums + (2 * o + 1) * N) = sum[o][1];
    }
}

// out[tap] (+)= sum over channels of (in - to[tap])^2, for TAPS taps
template <typename T, int BYTES, int TAPS>
CXRFAST_ALWAYS_INLINE void distance_tile(const DistanceRun<T>& r) {
    using V = typename Simd<T, BYTES>::type;
    constexpr int N = Simd<T, BYTES>::kLanes;
    V sum[TAPS][2] = {};
    if (r.add) {
#pragma GCC unroll 16
        for (int tap = 0; tap < TAPS; ++tap) {
            sum[tap][0] = CXRFAST_LOAD(r.out + tap * r.out_step);
            sum[tap][1] = CXRFAST_LOAD(r.out + tap * r.out_step + N);
        }
    }
    for (int64_t c = 0; c < r.channels; ++c) {
        const V f0 = CXRFAST_LOAD(r.in + c * r.pitch), f1 = CXRFAST_LOAD(r.in + c * r.pitch + N);
        const T* to = r.to + c * r.pitch;
#pragma GCC unroll 16
        for (int tap = 0; tap < TAPS; ++tap) {
            const V d0 = f0 - CXRFAST_LOAD(to + tap * r.in_step), d1 = f1 - CXRFAST_LOAD(to + tap * r.in_step + N);
            sum[tap][0] += d0 * d0;
            sum[tap][1] += d1 * d1;
        }
    }
#pragma GCC unroll 16
    for (int tap = 0; tap < TAPS; ++tap) {
        CXRFAST_STORE(r.out + tap * r.out_step) = sum[tap][0];
        CXRFAST_STORE(r.out + tap * r.out_step + N) = sum[tap][1];
    }
}

// out[o] -= sum over taps of coefficient[tap] * (in[o] - to[tap, o])
template <typename T, int BYTES, int OUT>
CXRFAST_ALWAYS_INLINE void difference_tile(const DifferenceRun<T>& r) {
    using V = typename Simd<T, BYTES>::type;
    constexpr int N = Simd<T, BYTES>::kLanes;
    V sum[OUT][2], f[OUT][2];
#pragma GCC unroll 16
    for (int o = 0; o < OUT; ++o) {
        sum[o][0] = CXRFAST_LOAD(r.out + o * r.pitch);
        sum[o][1] = CXRFAST_LOAD(r.out + o * r.pitch + N);
        f[o][0] = CXRFAST_LOAD(r.in + o * r.pitch);
        f[o][1] = CXRFAST_LOAD(r.in + o * r.pitch + N);
    }
    for (int64_t tap = 0; tap < r.taps; ++tap) {
        const T* coefficient = r.coefficient + tap * r.coefficient_step;
        const V k0 = CXRFAST_LOAD(coefficient), k1 = CXRFAST_LOAD(coefficient + N);
        const T* to = r.to + tap * r.in_step;
#pragma GCC unroll 16
        for (int o = 0; o < OUT; ++o) {
            sum[o][0] -= k0 * (f[o][0] - CXRFAST_LOAD(to + o * r.pitch));
            sum[o][1] -= k1 * (f[o][1] - CXRFAST_LOAD(to + o * r.pitch + N));
        }
    }
#pragma GCC unroll 16
    for (int o = 0; o < OUT; ++o) {
        CXRFAST_STORE(r.out + o * r.pitch) = sum[o][0];
        CXRFAST_STORE(r.out + o * r.pitch + N) = sum[o][1];
    }
}

#undef CXRFAST_LOAD
#undef CXRFAST_STORE
#undef CXRFAST_IN_REGISTER

}  // namespace
}  // namespace cxrfast

// The affinities of all pairs of pixels, and the gradient of the guide.
#pragma once

#include "cuda/pac_crf/window.cuh"

namespace cxrfast {

constexpr int kPixelThreads = 256;  // one pixel per thread
constexpr int kTapsTogether = 8;    // per thread, so that it reads its own features once for all of them
constexpr int kGuidesTogether = 16;

#if defined(__CUDACC__) || defined(CXRFAST_CUDA_EMULATION)

template <typename T>
__global__ void __launch_bounds__(kPixelThreads) affinity_kernel(Window window,
                                                                 int guides,
                                                                 const T* __restrict__ guide,  // [G, N]
                                                                 Affinities<T> affinities) {
    const Pixels<1> pixel(window);
    const int n = pixel.first;
    const int64_t size = window.size();
    const int first = affinities.rows.first_plane(window), planes = affinities.rows.planes(window);
    for (int plane = blockIdx.y * kTapsTogether; plane < planes; plane += gridDim.y * kTapsTogether) {
        int there[kTapsTogether];
        bool inside[kTapsTogether], any = false;
        T squared_distance[kTapsTogether] = {};
#pragma unroll
        for (int i = 0; i < kTapsTogether; ++i) {
            const int tap = first + plane + i;
            const int dy = window.dy(tap / window.columns), dx = window.dx(tap % window.columns);
            inside[i] = plane + i < planes && window.contains(pixel.y[0] + dy, pixel.x[0] + dx);
            there[i] = inside[i] ? n + dy * window.width + dx : n;  // the pixel itself; the result is not stored
            any |= inside[i];
        }
        if (!any) continue;
        const T* features = guide;
        for (int g = 0; g < guides; ++g, features += size) {
            const T here = __ldg(features + n);
#pragma unroll
            for (int i = 0; i < kTapsTogether; ++i) {
                const T difference = here - __ldg(features + there[i]);
                squared_distance[i] += difference * difference;
            }
        }
#pragma unroll
        for (int i = 0; i < kTapsTogether; ++i) {
            if (inside[i]) affinities.data[(plane + i) * size + n] = pair_affinity(squared_distance[i]);
        }
    }
}

// Converts affinities to the factors of f_j - f_i in the guide's gradient, dK/df_i = K (f_j - f_i). Both pixels of a
// pair have used its affinity. The centre's is not needed.
template <typename T>
__global__ void __launch_bounds__(kPixelThreads)
    coefficient_kernel(Window window,
                       Affinities<T> affinities,
                       const T* __restrict__ grad_affinity,  // [positions * columns, N], by the tap that gathers
                       const T* __restrict__ weight,         // [taps] of the tap that gathers; nullptr: all 1
                       T sign) {
    const Pixels<1> pixel(window);
    const int n = pixel.first;
    const int64_t size = window.size();
    const TapRows rows = affinities.rows;
    const int first = rows.first_plane(window), planes = rows.planes(window);
    for (int plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        const int tap = first + plane, mirrored = window.mirrored(tap);
        const int dy = window.dy(tap / window.columns), dx = window.dx(tap % window.columns);
        if (tap == window.centre() || !window.contains(pixel.y[0] + dy, pixel.x[0] + dx)) continue;
        T here = grad_affinity[slot_of(rows, window, tap) * size + n];
        T there = grad_affinity[slot_of(rows, window, mirrored) * size + n + dy * window.width + dx];
        if (weight != nullptr) here *= weight[tap], there *= weight[mirrored];
        affinities.data[plane * size + n] *= sign * (here + there);
    }
}

// FULL: count is kGuidesTogether.
template <bool FULL, typename T>
__device__ inline void add_differences(T (&sum)[kGuidesTogether],
                                       const T (&here)[kGuidesTogether],
                                       T coefficient,
                                       const T* there,
                                       int count,
                                       int64_t size) {
#pragma unroll
    for (int g = 0; g < kGuidesTogether; ++g, there += size) {
        if (!FULL && g >= count) break;
        sum[g] += coefficient * (__ldg(there) - here[g]);
    }
}

template <typename T>
__global__ void __launch_bounds__(kPixelThreads) guide_gradient_kernel(Window window,
                                                                       int guides,
                                                                       const T* __restrict__ guide,  // [G, N]
                                                                       Affinities<T> coefficients,
                                                                       T* __restrict__ grad_guide,  // [G, N]
                                                                       bool add) {
    const Pixels<1> pixel(window);
    if (!pixel.exists(0)) return;
    const int n = pixel.first, first = blockIdx.y * kGuidesTogether;
    const int64_t size = window.size();
    const TapRows rows = coefficients.rows;
    const T* features = guide + (first * size + n);
    const int count = min(kGuidesTogether, guides - first);
    T here[kGuidesTogether] = {}, sum[kGuidesTogether] = {};
#pragma unroll
    for (int g = 0; g < kGuidesTogether; ++g) {
        if (g < count) here[g] = __ldg(features + g * size);
    }
    for (int position = 0; position < rows.count(); ++position) {
        const int row = rows.row(position), dy = window.dy(row);
        if (pixel.y[0] + dy < 0 || pixel.y[0] + dy >= window.height) continue;
        for (int column = 0; column < window.columns; ++column) {
            const int dx = window.dx(column), tap = row * window.columns + column, shift = dy * window.width + dx;
            if (tap == window.centre() || !window.contains(pixel.y[0] + dy, pixel.x[0] + dx)) continue;
            const T coefficient = __ldg(coefficients.data + (coefficients.offset(window, tap, shift) + n));
            const T* there = features + shift;
            if (count == kGuidesTogether) {
                add_differences<true>(sum, here, coefficient, there, count, size);
            } else {
                add_differences<false>(sum, here, coefficient, there, count, size);
            }
        }
    }
#pragma unroll
    for (int g = 0; g < kGuidesTogether; ++g) {
        if (g >= count) break;
        T& grad = grad_guide[(first + g) * size + n];
        grad = add ? grad + sum[g] : sum[g];
    }
}

#endif

}  // namespace cxrfast

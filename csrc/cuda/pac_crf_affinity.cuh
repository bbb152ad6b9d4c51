// Affinities of all pairs of pixels, and the guide's gradient.
#pragma once

#include "pac_crf_window.cuh"

namespace cxrfast {

constexpr int kPixelThreads = 256;  // a thread has one pixel
constexpr int kTapsTogether = 8;    // of a thread, so that its own feature is read once for all
constexpr int kGuidesTogether = 8;

template <typename T>
__global__ void __launch_bounds__(kPixelThreads) affinity_kernel(Window window,
                                                                 int guides,
                                                                 const T* __restrict__ guide,  // [G, N]
                                                                 Affinities<T> affinities) {
    const Pixels<1> pixel(window);
    const int n = pixel.first, size = window.size();
    const int first = affinities.rows.first_plane(window), planes = affinities.rows.planes(window);
    for (int plane = blockIdx.y * kTapsTogether; plane < planes; plane += gridDim.y * kTapsTogether) {
        int shift[kTapsTogether];
        bool inside[kTapsTogether], any = false;
        T squared_distance[kTapsTogether] = {};
#pragma unroll
        for (int i = 0; i < kTapsTogether; ++i) {
            const int tap = first + plane + i, row = tap / window.columns, column = tap % window.columns;
            shift[i] = window.dy(row) * window.width + window.dx(column);
            inside[i] =
                plane + i < planes && window.contains(pixel.y[0] + window.dy(row), pixel.x[0] + window.dx(column));
            any |= inside[i];
        }
        if (!any) continue;
        for (int g = 0; g < guides; ++g) {
            const T* feature = guide + static_cast<int64_t>(g) * size;
            const T here = __ldg(feature + n);
#pragma unroll
            for (int i = 0; i < kTapsTogether; ++i) {
                const T difference = inside[i] ? here - __ldg(feature + (n + shift[i])) : T(0);
                squared_distance[i] += difference * difference;
            }
        }
#pragma unroll
        for (int i = 0; i < kTapsTogether; ++i) {
            if (inside[i]) {
                affinities.data[static_cast<int64_t>(plane + i) * size + n] = pair_affinity(squared_distance[i]);
            }
        }
    }
}

// Turns affinities into what f_j - f_i is multiplied by in the guide's gradient, dK/df_i = K (f_j - f_i): both pixels
// of a pair have used its affinity. The centre's is not needed.
template <typename T>
__global__ void __launch_bounds__(kPixelThreads)
    coefficient_kernel(Window window,
                       Affinities<T> affinities,
                       const T* __restrict__ grad_affinity,  // [positions * columns, N], by the tap that gathers
                       const T* __restrict__ weight,         // [taps] of the tap that gathers; nullptr: all 1
                       T sign) {
    const Pixels<1> pixel(window);
    const int n = pixel.first, size = window.size(), columns = window.columns;
    const TapRows rows = affinities.rows;
    const int first = rows.first_plane(window), planes = rows.planes(window);
    for (int plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        const int tap = first + plane, mirrored = window.mirrored(tap);
        const int row = tap / columns, column = tap % columns;
        const int dy = window.dy(row), dx = window.dx(column);
        if (tap == window.centre() || !window.contains(pixel.y[0] + dy, pixel.x[0] + dx)) continue;
        const int64_t here = static_cast<int64_t>(rows.position(row)) * columns + column;
        const int64_t there = static_cast<int64_t>(rows.position(mirrored / columns)) * columns + mirrored % columns;
        T gradient = grad_affinity[here * size + n], other = grad_affinity[there * size + n + dy * window.width + dx];
        if (weight != nullptr) gradient *= weight[tap], other *= weight[mirrored];
        T& affinity = affinities.data[static_cast<int64_t>(plane) * size + n];
        affinity *= sign * (gradient + other);
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
    const int n = pixel.first, size = window.size(), first = blockIdx.y * kGuidesTogether;
    const TapRows rows = coefficients.rows;
    if (!pixel.exists(0)) return;
    const T* feature = guide + static_cast<int64_t>(first) * size + n;
    T here[kGuidesTogether], sum[kGuidesTogether] = {};
#pragma unroll
    for (int g = 0; g < kGuidesTogether; ++g) {
        here[g] = first + g < guides ? __ldg(feature + static_cast<int64_t>(g) * size) : T(0);
    }
    for (int position = 0; position < rows.count(); ++position) {
        const int row = rows.row(position), dy = window.dy(row);
        for (int column = 0; column < window.columns; ++column) {
            const int dx = window.dx(column), tap = row * window.columns + column, shift = dy * window.width + dx;
            if (tap == window.centre() || !window.contains(pixel.y[0] + dy, pixel.x[0] + dx)) continue;
            const T coefficient = coefficients.data[coefficients.offset(window, tap, shift) + n];
#pragma unroll
            for (int g = 0; g < kGuidesTogether; ++g) {
                if (first + g >= guides) break;
                sum[g] -= coefficient * (here[g] - __ldg(feature + static_cast<int64_t>(g) * size + shift));
            }
        }
    }
#pragma unroll
    for (int g = 0; g < kGuidesTogether; ++g) {
        if (first + g >= guides) break;
        T& grad = grad_guide[static_cast<int64_t>(first + g) * size + n];
        grad = add ? grad + sum[g] : sum[g];
    }
}

}  // namespace cxrfast

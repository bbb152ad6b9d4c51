// The pixel-adaptive filter with one [k, k] weight for all channels, and its gradients.
#pragma once

#include "cuda/pac_crf/filter.cuh"

namespace cxrfast {

constexpr int kSharedTile = 8, kSharedPixels = 4;  // channels and pixels per thread

#if defined(__CUDACC__) || defined(CXRFAST_CUDA_EMULATION)

// Calls visit(tap, slot, dy, dx) for all taps of the rows of the block.
template <typename T, typename F>
__device__ inline void for_each_tap(const FilterTask<T>& task, const F& visit) {
    const TapRows& rows = task.affinities.rows;
    const int begin = blockIdx.y * task.rows_per_split, end = min(begin + task.rows_per_split, rows.count());
    for (int position = begin; position < end; ++position) {
        const int row = rows.row(position), columns = task.window.columns;
        for (int column = 0; column < columns; ++column) {
            visit(row * columns + column, position * columns + column, task.window.dy(row), task.window.dx(column));
        }
    }
}

// Calls visit(channel, pixel, value) for the neighbours' values in `count` channels. ALL: every neighbour is inside.
template <bool ALL, typename T, typename F>
__device__ inline void for_each_neighbour(const bool (&inside)[kSharedPixels],
                                          const T* next,  // of the first neighbour; only read where inside
                                          int count,
                                          int64_t size,
                                          const F& visit) {
#pragma unroll
    for (int c = 0; c < kSharedTile; ++c, next += size) {
        if (c >= count) break;
#pragma unroll
        for (int p = 0; p < kSharedPixels; ++p) {
            if (ALL || inside[p]) visit(c, p, __ldg(next + p * kWarp));
        }
    }
}

// out_i = sum over j of K(f_i, f_j) w[p_i - p_j] in_j, channel by channel; weight is [taps].
template <typename T>
__global__ void __launch_bounds__(kFilterThreads) shared_filter_kernel(FilterTask<T> task) {
    constexpr int kPixels = kSharedPixels;
    const Pixels<kPixels> pixels(task.window);
    const int64_t size = task.window.size();
    const int first_channel = blockIdx.z * kSharedTile, channels = task.in_channels - first_channel;
    T sum[kPixels][kSharedTile] = {};
    for_each_tap(task, [&](int tap, int, int dy, int dx) {
        bool inside[kPixels];
        if (!find_inside(inside, pixels, task.window, dy, dx)) return;
        const int shift = dy * task.window.width + dx;
        T factor[kPixels];
        read_affinities(factor, inside, pixels, task.affinities, task.window, tap, shift);
        const T weight = __ldg(task.weight + tap);
#pragma unroll
        for (int p = 0; p < kPixels; ++p) factor[p] *= weight;
        const T* next = task.in + (first_channel * size + pixels.first + shift);
        const auto add = [&](int c, int p, T value) { sum[p][c] += factor[p] * value; };
        if (all_inside(inside)) {
            for_each_neighbour<true>(inside, next, channels, size, add);
        } else {
            for_each_neighbour<false>(inside, next, channels, size, add);
        }
    });
    write_tile(task, sum, first_channel);
}

// As filter_gradient_kernel, with the weight mirrored. For every tap, it computes the inner product of own_i and the
// gradient of the neighbour: multiplied by the weight, it is the gradient of the affinity, and multiplied by the
// affinity, that of the weight.
template <typename T>
__global__ void __launch_bounds__(kFilterThreads)
    shared_filter_gradient_kernel(FilterTask<T> task,
                                  int tile,
                                  const T* __restrict__ own,  // [C, N]
                                  T* __restrict__ products,   // [positions * columns, N]
                                  bool first) {
    constexpr int kPixels = kSharedPixels;
    const Pixels<kPixels> pixels(task.window);
    const int64_t size = task.window.size();
    const int first_channel = tile * kSharedTile, channels = task.in_channels - first_channel;
    T sum[kPixels][kSharedTile] = {}, input[kPixels][kSharedTile];
#pragma unroll
    for (int c = 0; c < kSharedTile; ++c) {
#pragma unroll
        for (int p = 0; p < kPixels; ++p) {
            const bool exists = pixels.exists(p) && c < channels;
            input[p][c] = exists ? __ldg(own + (first_channel + c) * size + pixels.at(p)) : T(0);
        }
    }
    for_each_tap(task, [&](int tap, int slot, int dy, int dx) {
        bool inside[kPixels];
        if (!find_inside(inside, pixels, task.window, dy, dx)) return;
        const int shift = dy * task.window.width + dx;
        T factor[kPixels], product[kPixels] = {};
        read_affinities(factor, inside, pixels, task.affinities, task.window, tap, shift);
        const T weight = __ldg(task.weight + tap);
#pragma unroll
        for (int p = 0; p < kPixels; ++p) factor[p] *= weight;
        const T* next = task.in + (first_channel * size + pixels.first + shift);
        const auto add = [&](int c, int p, T value) {
            sum[p][c] += factor[p] * value;
            product[p] += input[p][c] * value;
        };
        if (all_inside(inside)) {
            for_each_neighbour<true>(inside, next, channels, size, add);
        } else {
            for_each_neighbour<false>(inside, next, channels, size, add);
        }
#pragma unroll
        for (int p = 0; p < kPixels; ++p) {
            if (!inside[p]) continue;
            T& total = products[slot * size + pixels.at(p)];
            total = first ? product[p] : total + product[p];
        }
    });
    write_tile(task, sum, first_channel);
}

#endif

}  // namespace cxrfast

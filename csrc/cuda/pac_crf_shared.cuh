// The pixel-adaptive filter with one [k, k] weight for all channels, and its gradients.
#pragma once

#include "pac_crf_filter.cuh"

namespace cxrfast {

constexpr int kSharedTile = 8, kSharedPixels = 2;  // channels and pixels of a thread

#if defined(__CUDACC__) || defined(CXRFAST_CUDA_EMULATION)

// visit(tap, slot, dy, dx) for all taps of the block's rows.
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

// out_i = sum over j of K(f_i, f_j) w[p_i - p_j] in_j, channel by channel; weight is [taps].
template <typename T>
__global__ void __launch_bounds__(kFilterThreads) shared_filter_kernel(FilterTask<T> task) {
    constexpr int kPixels = kSharedPixels;
    const Pixels<kPixels> pixels(task.window);
    const int size = task.window.size(), first_channel = blockIdx.z * kSharedTile;
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
        int64_t from = static_cast<int64_t>(first_channel) * size + pixels.first + shift;
#pragma unroll
        for (int c = 0; c < kSharedTile; ++c, from += size) {
            if (first_channel + c >= task.in_channels) break;
#pragma unroll
            for (int p = 0; p < kPixels; ++p) {
                if (inside[p]) sum[p][c] += factor[p] * __ldg(task.in + from + p * kWarp);
            }
        }
    });
    write_tile(task, sum, first_channel);
}

// As filter_gradient_kernel, with the weight mirrored. What is added up for every tap is the inner product of own_i and
// the neighbour's gradient: the affinity's gradient but for the weight, and the weight's but for the affinity.
template <typename T>
__global__ void __launch_bounds__(kFilterThreads)
    shared_filter_gradient_kernel(FilterTask<T> task,
                                  int tile,
                                  const T* __restrict__ own,  // [C, N]
                                  T* __restrict__ products,   // [positions * columns, N]
                                  bool first) {
    constexpr int kPixels = kSharedPixels;
    const Pixels<kPixels> pixels(task.window);
    const int size = task.window.size(), first_channel = tile * kSharedTile;
    T sum[kPixels][kSharedTile] = {}, input[kPixels][kSharedTile];
#pragma unroll
    for (int c = 0; c < kSharedTile; ++c) {
#pragma unroll
        for (int p = 0; p < kPixels; ++p) {
            const bool exists = pixels.exists(p) && first_channel + c < task.in_channels;
            input[p][c] = exists ? __ldg(own + static_cast<int64_t>(first_channel + c) * size + pixels.at(p)) : T(0);
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
        int64_t from = static_cast<int64_t>(first_channel) * size + pixels.first + shift;
#pragma unroll
        for (int c = 0; c < kSharedTile; ++c, from += size) {
            if (first_channel + c >= task.in_channels) break;
#pragma unroll
            for (int p = 0; p < kPixels; ++p) {
                if (!inside[p]) continue;
                const T value = __ldg(task.in + from + p * kWarp);
                sum[p][c] += factor[p] * value;
                product[p] += input[p][c] * value;
            }
        }
#pragma unroll
        for (int p = 0; p < kPixels; ++p) {
            if (!inside[p]) continue;
            T& total = products[static_cast<int64_t>(slot) * size + pixels.at(p)];
            total = first ? product[p] : total + product[p];
        }
    });
    write_tile(task, sum, first_channel);
}

#endif

}  // namespace cxrfast

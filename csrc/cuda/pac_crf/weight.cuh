// The weights in the order of the filter's loops, and their gradients: partial sums, then their sum in a fixed order.
#pragma once

#include "cuda/pac_crf/window.cuh"

namespace cxrfast {

constexpr int kWeightThreads = 128;
constexpr int kWeightWarps = kWeightThreads / kWarp;

// Index of tap t of the window in a k x k weight, which may have rows and columns without any neighbours.
CXRFAST_HOST_DEVICE int full_tap(const Window& window, int tap, int kernel) {
    const int row = tap / window.columns + (kernel - window.rows) / 2;
    const int column = tap % window.columns + (kernel - window.columns) / 2;
    return row * kernel + column;
}

#if defined(__CUDACC__) || defined(CXRFAST_CUDA_EMULATION)

// Converts to [tiles of O, taps, C, pitch], with zeros after the last channel of a tile. `transposed`, for the
// filtering of gradients: O and C are exchanged, and every tap is mirrored.
template <typename T>
__global__ void __launch_bounds__(kWeightThreads) arrange_weight_kernel(Window window,
                                                                        int kernel,
                                                                        int out_channels,  // of the result
                                                                        int in_channels,
                                                                        int tile,
                                                                        int pitch,
                                                                        bool transposed,
                                                                        const T* __restrict__ weight,
                                                                        T* __restrict__ arranged) {
    const int taps = window.taps(), tiles = (out_channels + tile - 1) / tile;
    const int64_t total = static_cast<int64_t>(tiles) * taps * in_channels * pitch;
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < total; i += int64_t{gridDim.x} * blockDim.x) {
        const int o = static_cast<int>(i % pitch), c = static_cast<int>(i / pitch % in_channels);
        const int64_t rest = i / pitch / in_channels;
        const int tap = static_cast<int>(rest % taps), channel = static_cast<int>(rest / taps) * tile + o;
        T value = 0;
        if (o < tile && channel < out_channels) {
            const int64_t pair = transposed ? static_cast<int64_t>(c) * out_channels + channel
                                            : static_cast<int64_t>(channel) * in_channels + c;
            value = weight[pair * kernel * kernel + full_tap(window, transposed ? window.mirrored(tap) : tap, kernel)];
        }
        arranged[i] = value;
    }
}

template <typename T>
struct WeightGradientTask {
    Window window;
    Affinities<T> affinities;
    const T* grad;  // [steps, O, N], of the filter's output
    const T* in;    // [steps, C, N]
    T* partial;     // [parts, positions * columns, O, C]; blockIdx.y is the part
    int steps, out_channels, in_channels;
};

template <typename T>
__device__ inline T warp_sum(T value) {
#pragma unroll
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAllLanes, value, lanes);
    return value;
}

// sum[o][c] += affinity * grad_o * in_c for pixel n, or, if PIXELS is 2, for n and n + 32. FULL: all channels of the
// tile exist. Otherwise, the last one is used in place of missing ones, and their results are not stored.
template <int PIXELS, bool FULL, typename T, int OUT, int IN>
__device__ inline void add_outer_products(T (&sum)[OUT][IN],
                                          const T* affinity,  // of pixel 0, or nullptr: 1
                                          const T* grad,      // of the tile's first channel
                                          const T* in,
                                          int n,
                                          int shift,
                                          int64_t size,
                                          int outs,
                                          int ins) {
    T factor[PIXELS], weighted[OUT][PIXELS];
#pragma unroll
    for (int p = 0; p < PIXELS; ++p) factor[p] = affinity == nullptr ? T(1) : __ldg(affinity + (n + p * kWarp));
    const T* next = grad + n;
#pragma unroll
    for (int o = 0; o < OUT; ++o) {
#pragma unroll
        for (int p = 0; p < PIXELS; ++p) weighted[o][p] = factor[p] * __ldg(next + p * kWarp);
        if (FULL || o + 1 < outs) next += size;
    }
    next = in + (n + shift);
#pragma unroll
    for (int c = 0; c < IN; ++c) {
#pragma unroll
        for (int p = 0; p < PIXELS; ++p) {
            const T value = __ldg(next + p * kWarp);
#pragma unroll
            for (int o = 0; o < OUT; ++o) sum[o][c] += weighted[o][p] * value;
        }
        if (FULL || c + 1 < ins) next += size;
    }
}

// A warp has one tap and a tile of channel pairs, and iterates over the pixels with this neighbour. The warps of a
// block have consecutive taps, so that they share data in the cache.
template <typename T, int OUT, int IN>
__global__ void __launch_bounds__(kWeightThreads, 3) weight_gradient_kernel(WeightGradientTask<T> task) {
    const Window& window = task.window;
    const int lane = threadIdx.x % kWarp, size = window.size();
    const TapRows& rows = task.affinities.rows;
    const int slots = rows.count() * window.columns, slot_blocks = (slots + kWeightWarps - 1) / kWeightWarps;
    const int slot = blockIdx.x % slot_blocks * kWeightWarps + threadIdx.x / kWarp;
    if (slot >= slots) return;  // the whole warp returns
    const int in_tiles = (task.in_channels + IN - 1) / IN, tile = blockIdx.x / slot_blocks;
    const int first_out = tile / in_tiles * OUT, first_in = tile % in_tiles * IN;
    const int outs = task.out_channels - first_out, ins = task.in_channels - first_in;
    const int row = rows.row(slot / window.columns), column = slot % window.columns;
    const int dy = window.dy(row), dx = window.dx(column), shift = dy * window.width + dx;
    const int left = max(0, -dx), right = min(window.width, window.width - dx);
    const int64_t affinity_offset = task.affinities.offset(window, row * window.columns + column, shift);
    const int64_t items = static_cast<int64_t>(task.steps) * window.height;
    T sum[OUT][IN] = {};
    for (int64_t item = items * blockIdx.y / gridDim.y; item < items * (blockIdx.y + 1) / gridDim.y; ++item) {
        const int step = static_cast<int>(item / window.height), y = static_cast<int>(item % window.height);
        if (y + dy < 0 || y + dy >= window.height) continue;
        const T* grad = task.grad + (static_cast<int64_t>(step) * task.out_channels + first_out) * size;
        const T* in = task.in + (static_cast<int64_t>(step) * task.in_channels + first_in) * size;
        const T* affinity = task.affinities.data == nullptr ? nullptr : task.affinities.data + affinity_offset;
        const int begin = y * window.width + left + lane, end = y * window.width + right;
        if (outs >= OUT && ins >= IN) {
            int n = begin;
            for (; n + kWarp < end; n += 2 * kWarp) {
                add_outer_products<2, true>(sum, affinity, grad, in, n, shift, size, outs, ins);
            }
            if (n < end) add_outer_products<1, true>(sum, affinity, grad, in, n, shift, size, outs, ins);
        } else {
            for (int n = begin; n < end; n += kWarp) {
                add_outer_products<1, false>(sum, affinity, grad, in, n, shift, size, outs, ins);
            }
        }
    }
    T* partial =
        task.partial + (static_cast<int64_t>(blockIdx.y) * slots + slot) * task.out_channels * task.in_channels;
#pragma unroll
    for (int o = 0; o < OUT; ++o) {
#pragma unroll
        for (int c = 0; c < IN; ++c) {
            const T total = warp_sum(sum[o][c]);
            if (lane == 0 && o < outs && c < ins) {
                partial[static_cast<int64_t>(first_out + o) * task.in_channels + first_in + c] = total;
            }
        }
    }
}

// The same for one weight shared by all channels, from the products of shared_filter_gradient_kernel. blockIdx.x is the
// tap that gathered them, blockIdx.y the part.
template <typename T>
__global__ void __launch_bounds__(kWeightThreads)
    shared_weight_gradient_kernel(Window window,
                                  Affinities<T> affinities,
                                  const T* __restrict__ products,  // [positions * columns, N]
                                  T* __restrict__ partial) {       // [parts, positions * columns]
    __shared__ T warp_sums[kWeightWarps];
    const TapRows& rows = affinities.rows;
    const int slot = blockIdx.x, row = rows.row(slot / window.columns), column = slot % window.columns;
    const int dy = window.dy(row), dx = window.dx(column), tap = row * window.columns + column;
    const int left = max(0, -dx), right = min(window.width, window.width - dx);
    const int64_t offset = affinities.offset(window, tap, dy * window.width + dx);
    const int64_t height = window.height;
    const T* product = products + static_cast<int64_t>(slot) * window.size();
    T sum = 0;
    for (int64_t y = height * blockIdx.y / gridDim.y; y < height * (blockIdx.y + 1) / gridDim.y; ++y) {
        if (y + dy < 0 || y + dy >= window.height) continue;
        for (int x = left + threadIdx.x; x < right; x += blockDim.x) {
            const int64_t n = y * window.width + x;
            sum += __ldg(affinities.data + offset + n) * __ldg(product + n);
        }
    }
    sum = warp_sum(sum);
    if (threadIdx.x % kWarp == 0) warp_sums[threadIdx.x / kWarp] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int warp = 1; warp < kWeightWarps; ++warp) sum += warp_sums[warp];
    partial[static_cast<int64_t>(blockIdx.y) * gridDim.x + slot_of(rows, window, window.mirrored(tap))] = sum;
}

// grad_weight [O, C, k, k] += sign * the sum of the parts.
template <typename T>
__global__ void __launch_bounds__(kWeightThreads)
    add_weight_gradient_kernel(Window window,
                               TapRows rows,
                               int kernel,
                               int parts,
                               int pairs,                      // O * C
                               const T* __restrict__ partial,  // [parts, positions * columns, O, C]
                               T sign,
                               T* __restrict__ grad_weight) {
    const int slots = rows.count() * window.columns;
    const int64_t total = static_cast<int64_t>(slots) * pairs;
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < total; i += int64_t{gridDim.x} * blockDim.x) {
        const int slot = static_cast<int>(i / pairs), pair = static_cast<int>(i % pairs);
        T sum = 0;
        for (int part = 0; part < parts; ++part) sum += __ldg(partial + part * total + i);
        const int tap = rows.row(slot / window.columns) * window.columns + slot % window.columns;
        grad_weight[static_cast<int64_t>(pair) * kernel * kernel + full_tap(window, tap, kernel)] += sign * sum;
    }
}

#endif

}  // namespace cxrfast

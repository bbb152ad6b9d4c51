// The pixel-adaptive filter with a weight for every pair of channels, and its gradients with respect to its input and
// the affinities. Both gradients use the same product of weights and neighbours.
//
// A thread has a few pixels and a tile of output channels. It reads four weights at a time from shared memory and uses
// each for all its pixels. Blocks take a share of the rows of the window, because small maps have too few pixels to
// fill a device. The consumer of the result adds the shares in order.
#pragma once

#include "cuda/pac_crf/window.cuh"

namespace cxrfast {

constexpr int kFilterThreads = 128;
constexpr int kFilterPixels = 4, kGradientPixels = 3;  // per thread: the gradient has twice as many sums

template <typename T>
struct FilterTask {
    Window window;
    Affinities<T> affinities;
    int rows_per_split;  // blockIdx.y is the split
    const T* in;         // [C, N]
    const T* weight;     // [channel tiles, taps, C, tile_pitch]
    T* out;              // [splits, O, N]
    int in_channels, out_channels;
    int staged_taps, staged_channels;  // how many weights fit: several taps, or some channels of one tap
    bool add;                          // add to `out`
};

// 16 bytes of shared memory, read by all lanes at once.
template <typename T>
struct alignas(16) Pack {
    static constexpr int kSize = 16 / sizeof(T);
    T values[kSize];
};

// The weights of a tile of output channels are aligned to 16 bytes.
template <typename T>
CXRFAST_HOST_DEVICE constexpr int tile_pitch(int tile) {
    return (tile + Pack<T>::kSize - 1) / Pack<T>::kSize * Pack<T>::kSize;
}

#if defined(__CUDACC__) || defined(CXRFAST_CUDA_EMULATION)

template <typename T, int TILE>
__device__ inline void read_tile(T (&weights)[TILE], const T* staged) {
    constexpr int kSize = Pack<T>::kSize;
#pragma unroll
    for (int i = 0; i < TILE; i += kSize) {
        const Pack<T> pack = *reinterpret_cast<const Pack<T>*>(staged + i);
#pragma unroll
        for (int j = 0; j < kSize && i + j < TILE; ++j) weights[i + j] = pack.values[j];
    }
}

struct StagedTap {
    int tap, slot;  // slot: index of the tap among those of the current rows
    int dy, dx;
    int first_channel, channels;
};

// Calls visit(tap, its staged weights) for all taps of the rows of the block, with all its threads.
template <int TILE, typename T, typename F>
__device__ inline void for_each_staged_tap(const FilterTask<T>& task, int tile, const F& visit) {
    constexpr int kPitch = tile_pitch<T>(TILE), kSize = Pack<T>::kSize;
    const Window& window = task.window;
    const TapRows& rows = task.affinities.rows;
    T* staged = dynamic_shared<T>();
    const T* weight = task.weight + static_cast<int64_t>(tile) * window.taps() * task.in_channels * kPitch;
    const int begin = blockIdx.y * task.rows_per_split, end = min(begin + task.rows_per_split, rows.count());
    for (int position = begin; position < end; ++position) {
        const int row = rows.row(position);
        for (int first_column = 0; first_column < window.columns; first_column += task.staged_taps) {
            const int taps = min(task.staged_taps, window.columns - first_column);
            for (int channel = 0; channel < task.in_channels; channel += task.staged_channels) {
                const int channels = min(task.staged_channels, task.in_channels - channel);
                const int64_t from = static_cast<int64_t>(row * window.columns + first_column) * task.in_channels;
                const auto* source = reinterpret_cast<const Pack<T>*>(weight + (from + channel) * kPitch);
                __syncthreads();
                for (int i = threadIdx.x; i < taps * channels * kPitch / kSize; i += blockDim.x) {
                    reinterpret_cast<Pack<T>*>(staged)[i] = source[i];
                }
                __syncthreads();
                for (int i = 0; i < taps; ++i) {
                    const int column = first_column + i;
                    visit(StagedTap{row * window.columns + column, position * window.columns + column, window.dy(row),
                                    window.dx(column), channel, channels},
                          staged + i * channels * kPitch);
                }
            }
        }
    }
}

// sum[p][o] += the staged weights times the values of the neighbours, multiplied by the affinity if WEIGHTED. ALL:
// every neighbour is inside.
template <bool ALL, bool WEIGHTED, typename T, int TILE, int PIXELS>
__device__ inline void add_products(T (&sum)[PIXELS][TILE],
                                    const T (&affinity)[PIXELS],
                                    const bool (&inside)[PIXELS],
                                    const T* next,  // of the first neighbour; only read where inside
                                    const T* staged,
                                    int channels,
                                    int64_t size) {
#pragma unroll(ALL ? 2 : 1)
    for (int c = 0; c < channels; ++c, next += size, staged += tile_pitch<T>(TILE)) {
        T weights[TILE];
        read_tile(weights, staged);
#pragma unroll
        for (int p = 0; p < PIXELS; ++p) {
            T value = ALL || inside[p] ? __ldg(next + p * kWarp) : T(0);
            if (WEIGHTED) value *= affinity[p];
#pragma unroll
            for (int o = 0; o < TILE; ++o) sum[p][o] += weights[o] * value;
        }
    }
}

template <bool WEIGHTED, typename T, int TILE, int PIXELS>
__device__ inline void add_tap(T (&sum)[PIXELS][TILE],
                               const T (&affinity)[PIXELS],
                               const bool (&inside)[PIXELS],
                               const Pixels<PIXELS>& pixels,
                               const FilterTask<T>& task,
                               const StagedTap& at,
                               const T* staged) {
    const int64_t size = task.window.size();
    const T* next = task.in + (at.first_channel * size + pixels.first + at.dy * task.window.width + at.dx);
    if (all_inside(inside)) {
        add_products<true, WEIGHTED>(sum, affinity, inside, next, staged, at.channels, size);
    } else {
        add_products<false, WEIGHTED>(sum, affinity, inside, next, staged, at.channels, size);
    }
}

template <typename T, int TILE, int PIXELS>
__device__ inline void write_tile(const FilterTask<T>& task, const T (&sum)[PIXELS][TILE], int first_channel) {
    const Pixels<PIXELS> pixels(task.window);
    const int size = task.window.size();
    T* out = task.out + (static_cast<int64_t>(blockIdx.y) * task.out_channels + first_channel) * size;
#pragma unroll
    for (int o = 0; o < TILE; ++o) {
        if (first_channel + o >= task.out_channels) break;
#pragma unroll
        for (int p = 0; p < PIXELS; ++p) {
            if (!pixels.exists(p)) continue;
            T& target = out[static_cast<int64_t>(o) * size + pixels.at(p)];
            target = task.add ? target + sum[p][o] : sum[p][o];
        }
    }
}

// out_i = sum over j of K(f_i, f_j) W[p_i - p_j] in_j
template <typename T, int TILE>
__global__ void __launch_bounds__(kFilterThreads, 4) filter_kernel(FilterTask<T> task) {
    constexpr int kPixels = kFilterPixels;
    const Pixels<kPixels> pixels(task.window);
    T sum[kPixels][TILE] = {};
    for_each_staged_tap<TILE>(task, blockIdx.z, [&](const StagedTap& at, const T* staged) {
        bool inside[kPixels];
        if (!find_inside(inside, pixels, task.window, at.dy, at.dx)) return;
        const int shift = at.dy * task.window.width + at.dx;
        T affinity[kPixels];
        read_affinities(affinity, inside, pixels, task.affinities, task.window, at.tap, shift);
        add_tap<true>(sum, affinity, inside, pixels, task, at, staged);
    });
    write_tile(task, sum, blockIdx.z * TILE);
}

// `in` is the gradient of the output of the filter; the weights are mirrored and transposed. `out` is the gradient of
// its input `own`. For every tap, the gradient of the affinity with which own_i was weighted for its neighbour is
// summed. Each launch processes one channel tile, because all tiles add to the gradients of the same affinities.
template <typename T, int TILE>
__global__ void __launch_bounds__(kFilterThreads, 3)
    filter_gradient_kernel(FilterTask<T> task,
                           int tile,
                           const T* __restrict__ own,        // [O, N]
                           T* __restrict__ grad_affinities,  // [positions * columns, N]
                           bool first) {                     // grad_affinities is not initialised
    constexpr int kPixels = kGradientPixels;
    const Pixels<kPixels> pixels(task.window);
    const int size = task.window.size(), first_channel = tile * TILE;
    T sum[kPixels][TILE] = {}, input[kPixels][TILE];
#pragma unroll
    for (int o = 0; o < TILE; ++o) {
#pragma unroll
        for (int p = 0; p < kPixels; ++p) {
            const bool exists = pixels.exists(p) && first_channel + o < task.out_channels;
            input[p][o] = exists ? __ldg(own + static_cast<int64_t>(first_channel + o) * size + pixels.at(p)) : T(0);
        }
    }
    for_each_staged_tap<TILE>(task, tile, [&](const StagedTap& at, const T* staged) {
        bool inside[kPixels];
        if (!find_inside(inside, pixels, task.window, at.dy, at.dx)) return;
        const int shift = at.dy * task.window.width + at.dx;
        T affinity[kPixels], product[kPixels][TILE] = {};
        read_affinities(affinity, inside, pixels, task.affinities, task.window, at.tap, shift);
        add_tap<false>(product, affinity, inside, pixels, task, at, staged);
#pragma unroll
        for (int p = 0; p < kPixels; ++p) {
            T projected = 0;
#pragma unroll
            for (int o = 0; o < TILE; ++o) {
                sum[p][o] += affinity[p] * product[p][o];
                projected += input[p][o] * product[p][o];
            }
            if (!inside[p]) continue;
            T& grad = grad_affinities[static_cast<int64_t>(at.slot) * size + pixels.at(p)];
            grad = first && at.first_channel == 0 ? projected : grad + projected;
        }
    });
    write_tile(task, sum, first_channel);
}

#endif

}  // namespace cxrfast

// blur_pool2d on the device, forward and backward: one pass over two axes of taps (taps.cuh). The rows of all planes
// form one list, so that small images fill blocks as well as large ones.
#pragma once

#include "cuda/blur_pool/taps.cuh"

namespace cxrfast {

constexpr int kMaxTileRows = 32;

template <typename acc_t>
struct BlurPlan {
    BlurAxis y, x;
    BlurFilter<acc_t> filter;
    int inner;     // C in channels_last, where a pixel is [C]; otherwise 1
    int64_t rows;  // targets: planes * y.targets()
    int tile_rows, tile_columns, tiles_in_row;
    int pitch;    // of the rows of blur_planes in shared memory; a multiple of the vector length
    bool packed;  // source rows consist of whole, aligned vectors

    CXRFAST_HOST_DEVICE int64_t tiles() const { return (rows + tile_rows - 1) / tile_rows * tiles_in_row; }
};

template <typename scalar_t, int length>
struct alignas(sizeof(scalar_t) * length) Vector {
    scalar_t at[length];
};

// The vertical taps, for the rows of a tile.
template <typename acc_t>
struct RowTaps {
    Tap<acc_t> tap[kMaxTileRows][kMaxTaps];
    int64_t plane[kMaxTileRows];  // first row of the row's plane in the source; -1 if the row does not exist
};

template <typename acc_t>
__device__ void stage_row_taps(const BlurPlan<acc_t>& plan, const acc_t* filter, int64_t first, RowTaps<acc_t>& to) {
    const int slots = plan.tile_rows * kMaxTaps;
    for (int i = threadIdx.x; i < slots; i += kBlurThreads) {
        const int r = i / kMaxTaps, slot = i % kMaxTaps;
        const int64_t row = first + r, plane = row / plan.y.targets();
        const int target = static_cast<int>(row - plane * plan.y.targets());
        const bool exists = row < plan.rows;
        to.tap[r][slot] =
            exists && slot < plan.y.taps() ? blur_tap(plan.y, filter, target, slot) : Tap<acc_t>{-1, acc_t(0)};
        if (slot == 0) to.plane[r] = exists ? plane * plan.y.sources() : -1;
    }
}

// The horizontal taps of a thread: offsets from the start of the row; -1 if there is none.
template <typename acc_t>
struct ColumnTaps {
    int offset[kMaxTaps];
    acc_t weight[kMaxTaps];
};

// For [.., H, W, inner] with inner > 1, and for strides that skip elements: every thread gathers kVector neighbours
// from global memory. Elements that the windows of a block share come from the L1 cache.
template <typename scalar_t, int kVector>
__global__ void __launch_bounds__(kBlurThreads) blur_pixels(BlurPlan<accumulate_t<scalar_t>> plan,
                                                            const scalar_t* __restrict__ source,
                                                            scalar_t* __restrict__ target) {
    using acc_t = accumulate_t<scalar_t>;
    using Values = Vector<scalar_t, kVector>;
    __shared__ acc_t filter[kMaxTaps];
    __shared__ RowTaps<acc_t> rows;
    stage_filter(plan.filter, filter);
    const int vectors = plan.inner / kVector;
    const int source_row = plan.x.sources() * plan.inner, target_row = plan.x.targets() * plan.inner;
    for (int64_t tile = blockIdx.x; tile < plan.tiles(); tile += gridDim.x) {
        const int64_t first = tile / plan.tiles_in_row * plan.tile_rows;
        const int column = static_cast<int>(tile % plan.tiles_in_row) * kBlurThreads + static_cast<int>(threadIdx.x);
        __syncthreads();  // the filter is available; the taps of the last tile have been used
        stage_row_taps(plan, filter, first, rows);
        const bool exists = column < plan.x.targets() * vectors;
        const int pixel = column / vectors, channel = (column - pixel * vectors) * kVector;
        ColumnTaps<acc_t> columns;
#pragma unroll
        for (int k = 0; k < kMaxTaps; ++k) {
            columns.offset[k] = -1;
            columns.weight[k] = 0;
            if (k >= plan.x.taps() || !exists) continue;
            const Tap<acc_t> tap = blur_tap(plan.x, filter, pixel, k);
            if (tap.source >= 0) columns.offset[k] = tap.source * plan.inner + channel;
            columns.weight[k] = tap.weight;
        }
        __syncthreads();
        for (int r = 0; exists && r < plan.tile_rows && rows.plane[r] >= 0; ++r) {
            acc_t sum[kVector] = {};
            for (int k = 0; k < plan.y.taps(); ++k) {
                const Tap<acc_t> tap = rows.tap[r][k];
                if (tap.source < 0) continue;
                const scalar_t* line = source + (rows.plane[r] + tap.source) * source_row;
                acc_t across[kVector] = {};
#pragma unroll
                for (int j = 0; j < kMaxTaps; ++j) {
                    if (columns.offset[j] < 0) continue;
                    const Values values = *reinterpret_cast<const Values*>(line + columns.offset[j]);
#pragma unroll
                    for (int i = 0; i < kVector; ++i) {
                        across[i] += columns.weight[j] * static_cast<acc_t>(values.at[i]);
                    }
                }
#pragma unroll
                for (int i = 0; i < kVector; ++i) sum[i] += tap.weight * across[i];
            }
            Values result;
#pragma unroll
            for (int i = 0; i < kVector; ++i) result.at[i] = static_cast<scalar_t>(sum[i]);
            *reinterpret_cast<Values*>(target + (first + r) * target_row + pixel * plan.inner + channel) = result;
        }
    }
}

// For dense rows (inner = 1): a block sums the columns of a tile into shared memory, in vectors of 16 bytes, and then
// blurs along the rows.
template <typename scalar_t>
__global__ void __launch_bounds__(kBlurThreads) blur_planes(BlurPlan<accumulate_t<scalar_t>> plan,
                                                            const scalar_t* __restrict__ source,
                                                            scalar_t* __restrict__ target) {
    using acc_t = accumulate_t<scalar_t>;
    constexpr int kVector = 16 / sizeof(scalar_t);
    using Values = Vector<scalar_t, kVector>;
    __shared__ acc_t filter[kMaxTaps];
    __shared__ RowTaps<acc_t> rows;
    acc_t* blurred = dynamic_shared<acc_t>();  // [tile_rows, pitch]; the last cell of a row is 0
    stage_filter(plan.filter, filter);
    const int thread = static_cast<int>(threadIdx.x), zero = plan.pitch - 1;
    const int source_width = plan.x.sources(), target_width = plan.x.targets();
    for (int64_t tile = blockIdx.x; tile < plan.tiles(); tile += gridDim.x) {
        const int64_t first = tile / plan.tiles_in_row * plan.tile_rows;
        const int left = static_cast<int>(tile % plan.tiles_in_row) * plan.tile_columns;
        const int width = min(plan.tile_columns, target_width - left);
        const SourceRange range = source_range(plan.x, left, left + width - 1);
        const int begin = range.begin / kVector * kVector;
        __syncthreads();  // the filter is available; the last tile has been used
        stage_row_taps(plan, filter, first, rows);
        const int column = thread % width, step = kBlurThreads / width;
        ColumnTaps<acc_t> columns;
#pragma unroll
        for (int k = 0; k < kMaxTaps; ++k) {
            const Tap<acc_t> tap =
                k < plan.x.taps() ? blur_tap(plan.x, filter, left + column, k) : Tap<acc_t>{-1, acc_t(0)};
            columns.offset[k] = tap.source < 0 ? zero : tap.source - begin;
            columns.weight[k] = tap.weight;
        }
        __syncthreads();
        const int vectors = (range.end - begin + kVector - 1) / kVector;
        for (int i = thread; i < vectors * plan.tile_rows; i += kBlurThreads) {
            const int r = i / vectors, offset = (i - r * vectors) * kVector;
            if (offset == 0) blurred[r * plan.pitch + zero] = 0;
            if (rows.plane[r] < 0) continue;
            acc_t sum[kVector] = {};
#pragma unroll
            for (int k = 0; k < kMaxTaps; ++k) {
                const Tap<acc_t> tap = rows.tap[r][k];
                if (tap.source < 0) continue;
                const scalar_t* from = source + (rows.plane[r] + tap.source) * source_width + begin + offset;
                Values values = {};
                if (plan.packed) {
                    values = *reinterpret_cast<const Values*>(from);
                } else {
#pragma unroll
                    for (int j = 0; j < kVector; ++j) {
                        if (begin + offset + j < range.end) values.at[j] = from[j];
                    }
                }
#pragma unroll
                for (int j = 0; j < kVector; ++j) sum[j] += tap.weight * static_cast<acc_t>(values.at[j]);
            }
#pragma unroll
            for (int j = 0; j < kVector; ++j) blurred[r * plan.pitch + offset + j] = sum[j];
        }
        __syncthreads();
        for (int r = thread / width; thread < step * width && r < plan.tile_rows; r += step) {
            if (rows.plane[r] < 0) break;
            acc_t sum = 0;
#pragma unroll
            for (int k = 0; k < kMaxTaps; ++k) {
                if (k < plan.x.taps()) sum += columns.weight[k] * blurred[r * plan.pitch + columns.offset[k]];
            }
            target[(first + r) * target_width + left + column] = static_cast<scalar_t>(sum);
        }
    }
}

}  // namespace cxrfast

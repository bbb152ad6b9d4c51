// max_blur_pool2d on the device. The map between maximum and blur exists only for one tile at a time, in shared memory.
// The backward recomputes the maxima of all windows that overlap its tile, propagates their gradients through the blur,
// and gathers: every pixel adds the gradients of those windows of which it is the maximum, in a fixed order.
#pragma once

#include "cuda/blur_pool/taps.cuh"
#include "math/max_blur_pool.h"

namespace cxrfast {

// A plane is [height, width, inner]: `inner` is C in channels_last and 1 otherwise.
template <typename acc_t>
struct MaxBlurPlan {
    BlurAxis y, x;  // of the map that results from the maximum
    BlurFilter<acc_t> filter;
    int64_t planes;
    int height, width, inner;
    int window, padding;                        // of the maximum
    int tile_height, tile_width, tile_inner;    // in targets: output pixels, or input pixels in the backward
    int tiles_down, tiles_across, tiles_inner;  // per plane
    int map_height, map_width;                  // maximum extent of the map of a tile

    CXRFAST_HOST_DEVICE int64_t tiles() const { return planes * tiles_down * tiles_across * tiles_inner; }
    CXRFAST_HOST_DEVICE int64_t map_size() const { return static_cast<int64_t>(map_height) * map_width * tile_inner; }
};

struct MaxBlurTile {
    int64_t plane;
    int top, left, channel;       // the first target
    int height, width, channels;  // of the targets
};

template <typename acc_t>
__device__ MaxBlurTile max_blur_tile(const MaxBlurPlan<acc_t>& plan, int64_t index, int height, int width) {
    const int channel = static_cast<int>(index % plan.tiles_inner) * plan.tile_inner;
    index /= plan.tiles_inner;
    const int left = static_cast<int>(index % plan.tiles_across) * plan.tile_width;
    index /= plan.tiles_across;
    const int top = static_cast<int>(index % plan.tiles_down) * plan.tile_height;
    return {index / plan.tiles_down,
            top,
            left,
            channel,
            min(plan.tile_height, height - top),
            min(plan.tile_width, width - left),
            min(plan.tile_inner, plan.inner - channel)};
}

// The maximum of the window at (y, x) of the map, and the index of its first occurrence in raster order.
template <typename acc_t>
struct Maximum {
    acc_t value;
    int element;
};

template <typename scalar_t, typename acc_t>
__device__ Maximum<acc_t> window_maximum(const MaxBlurPlan<acc_t>& plan,
                                         const scalar_t* __restrict__ channel /* of a plane */,
                                         int y,
                                         int x) {
    constexpr acc_t lowest = -std::numeric_limits<acc_t>::infinity();
    Maximum<acc_t> best{lowest, -1};
    for (int dy = 0; dy < plan.window; ++dy) {
        const int source_y = y - plan.padding + dy;
        if (source_y < 0 || source_y >= plan.height) continue;
        for (int dx = 0; dx < plan.window; ++dx) {
            const int source_x = x - plan.padding + dx;
            if (source_x < 0 || source_x >= plan.width) continue;
            const int64_t pixel = static_cast<int64_t>(source_y) * plan.width + source_x;
            const acc_t value = static_cast<acc_t>(channel[pixel * plan.inner]);
            if (replaces_maximum(value, best.value) || best.element < 0) best = {value, dy * plan.window + dx};
        }
    }
    return best;
}

// The sum over the taps of target (y, x) of `at(source y, source x)`.
template <typename acc_t, typename At>
__device__ acc_t blurred(const MaxBlurPlan<acc_t>& plan, const acc_t* filter, int y, int x, const At& at) {
    Tap<acc_t> taps[kMaxTaps];
#pragma unroll
    for (int j = 0; j < kMaxTaps; ++j) {
        taps[j] = j < plan.x.taps() ? blur_tap(plan.x, filter, x, j) : Tap<acc_t>{-1, acc_t(0)};
    }
    acc_t sum = 0;
    for (int i = 0; i < plan.y.taps(); ++i) {
        const Tap<acc_t> tap = blur_tap(plan.y, filter, y, i);
        if (tap.source < 0) continue;
        acc_t across = 0;
#pragma unroll
        for (int j = 0; j < kMaxTaps; ++j) {
            if (taps[j].source >= 0) across += taps[j].weight * at(tap.source, taps[j].source);
        }
        sum += tap.weight * across;
    }
    return sum;
}

// Calls body(y, x, channel) for the elements of a box, one thread each; channels are contiguous.
template <typename Body>
__device__ void for_each_element(int height, int width, int channels, const Body& body) {
    const int row = width * channels;
    for (int i = static_cast<int>(threadIdx.x); i < height * row; i += kBlurThreads) {
        const int y = i / row, rest = i - y * row, x = rest / channels;
        body(y, x, rest - x * channels);
    }
}

template <typename scalar_t>
__global__ void __launch_bounds__(kBlurThreads)
    max_blur(MaxBlurPlan<accumulate_t<scalar_t>> plan, const scalar_t* __restrict__ x, scalar_t* __restrict__ out) {
    using acc_t = accumulate_t<scalar_t>;
    __shared__ acc_t filter[kMaxTaps];
    acc_t* map = dynamic_shared<acc_t>();  // [rows of the tile, columns, channels]
    stage_filter(plan.filter, filter);
    const int out_height = plan.y.targets(), out_width = plan.x.targets();
    for (int64_t index = blockIdx.x; index < plan.tiles(); index += gridDim.x) {
        const MaxBlurTile tile = max_blur_tile(plan, index, out_height, out_width);
        const SourceRange rows = source_range(plan.y, tile.top, tile.top + tile.height - 1);
        const SourceRange columns = source_range(plan.x, tile.left, tile.left + tile.width - 1);
        const scalar_t* plane = x + tile.plane * plan.height * plan.width * plan.inner + tile.channel;
        scalar_t* to = out + tile.plane * out_height * out_width * plan.inner + tile.channel;
        const int width = columns.end - columns.begin, channels = tile.channels;
        __syncthreads();  // the filter is available; the last tile has been used
        for_each_element(rows.end - rows.begin, width, channels, [&](int y, int column, int c) {
            map[(y * width + column) * channels + c] =
                window_maximum(plan, plane + c, rows.begin + y, columns.begin + column).value;
        });
        __syncthreads();
        for_each_element(tile.height, tile.width, channels, [&](int y, int column, int c) {
            const acc_t value =
                blurred(plan, filter, tile.top + y, tile.left + column, [&](int source_y, int source_x) {
                    return map[((source_y - rows.begin) * width + source_x - columns.begin) * channels + c];
                });
            const int64_t pixel = static_cast<int64_t>(tile.top + y) * out_width + tile.left + column;
            to[pixel * plan.inner + c] = static_cast<scalar_t>(value);
        });
    }
}

// The gradients of the windows [rows] x [columns] of the map, and the positions of their maxima.
template <typename scalar_t>
struct WindowGradients {
    using acc_t = accumulate_t<scalar_t>;
    acc_t* gradient;
    int* element;

    __device__ void set(const MaxBlurPlan<acc_t>& plan,
                        const acc_t* filter,
                        const scalar_t* __restrict__ channel,  // of x's plane
                        const scalar_t* __restrict__ grad,     // the same channel of the output's gradient
                        int64_t i,
                        int y,
                        int x) const {
        element[i] = window_maximum(plan, channel, y, x).element;
        gradient[i] = blurred(plan, filter, y, x, [&](int out_y, int out_x) {
            const int64_t pixel = static_cast<int64_t>(out_y) * plan.x.sources() + out_x;
            return static_cast<acc_t>(grad[pixel * plan.inner]);
        });
    }
};

template <typename scalar_t>
__global__ void __launch_bounds__(kBlurThreads) max_blur_backward(MaxBlurPlan<accumulate_t<scalar_t>> plan,
                                                                  const scalar_t* __restrict__ grad,
                                                                  const scalar_t* __restrict__ x,
                                                                  scalar_t* __restrict__ grad_x,
                                                                  WindowGradients<scalar_t> workspace) {
    using acc_t = accumulate_t<scalar_t>;
    __shared__ acc_t filter[kMaxTaps];
    stage_filter(plan.filter, filter);
    WindowGradients<scalar_t> windows = workspace;  // one part per block, for large windows
    if (windows.gradient == nullptr) {
        windows.gradient = dynamic_shared<acc_t>();
        windows.element = reinterpret_cast<int*>(windows.gradient + plan.map_size());
    } else {
        windows.gradient += static_cast<int64_t>(blockIdx.x) * plan.map_size();
        windows.element += static_cast<int64_t>(blockIdx.x) * plan.map_size();
    }
    const int reach = plan.window - 1 - plan.padding;  // maximum distance of the start of a window before a pixel
    for (int64_t index = blockIdx.x; index < plan.tiles(); index += gridDim.x) {
        const MaxBlurTile tile = max_blur_tile(plan, index, plan.height, plan.width);
        const int top = max(0, tile.top - reach), left = max(0, tile.left - reach);
        const int bottom = min(plan.y.image, tile.top + tile.height + plan.padding);
        const int right = min(plan.x.image, tile.left + tile.width + plan.padding);
        const int64_t plane_size = static_cast<int64_t>(plan.height) * plan.width * plan.inner;
        const int64_t grad_size = static_cast<int64_t>(plan.y.sources()) * plan.x.sources() * plan.inner;
        const scalar_t* plane = x + tile.plane * plane_size + tile.channel;
        const scalar_t* plane_grad = grad + tile.plane * grad_size + tile.channel;
        scalar_t* to = grad_x + tile.plane * plane_size + tile.channel;
        const int width = max(0, right - left), channels = tile.channels;
        __syncthreads();  // the filter is available; the last tile has been used
        for_each_element(max(0, bottom - top), width, channels, [&](int y, int column, int c) {
            windows.set(plan, filter, plane + c, plane_grad + c, (y * width + column) * channels + c, top + y,
                        left + column);
        });
        __syncthreads();
        for_each_element(tile.height, tile.width, channels, [&](int y, int column, int c) {
            acc_t sum = 0;
            const int image_y = tile.top + y, image_x = tile.left + column;
            for (int window_y = max(top, image_y - reach); window_y <= image_y + plan.padding; ++window_y) {
                if (window_y >= bottom) break;
                for (int window_x = max(left, image_x - reach); window_x <= image_x + plan.padding; ++window_x) {
                    if (window_x >= right) break;
                    const int i = ((window_y - top) * width + window_x - left) * channels + c;
                    const int dy = image_y - (window_y - plan.padding), dx = image_x - (window_x - plan.padding);
                    if (windows.element[i] == dy * plan.window + dx) sum += windows.gradient[i];
                }
            }
            const int64_t pixel = static_cast<int64_t>(image_y) * plan.width + image_x;
            to[pixel * plan.inner + c] = static_cast<scalar_t>(sum);
        });
    }
}

}  // namespace cxrfast

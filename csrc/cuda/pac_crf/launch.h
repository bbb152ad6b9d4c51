// Launches of pac_crf's kernels: tile sizes, grids and scratch memory.
#pragma once

#include <type_traits>

#include "cuda/pac_crf/affinity.cuh"
#include "cuda/pac_crf/filter.cuh"
#include "cuda/pac_crf/planes.h"
#include "cuda/pac_crf/shared.cuh"
#include "cuda/pac_crf/steps.cuh"
#include "cuda/pac_crf/weight.cuh"

namespace cxrfast {
namespace {

// Calls f(std::integral_constant) for the tile of output channels with the lowest cost, including the overhead of
// tiles.
template <typename T, typename F>
auto with_tile(int64_t channels, const F& f) {
    using std::integral_constant;
    const auto cost = [&](int64_t tile) { return divide_up(channels, tile) * (tile + 5); };
    if constexpr (std::is_same_v<T, double>) {
        return f(integral_constant<int, 4>{});
    } else {
        if (cost(4) <= std::min(cost(8), cost(14))) return f(integral_constant<int, 4>{});
        return cost(8) <= cost(14) ? f(integral_constant<int, 8>{}) : f(integral_constant<int, 14>{});
    }
}

// The weights of a filter in the order of its loops. A shared weight is [taps].
template <typename T>
struct FilterWeight {
    Tensor arranged;
    int out_channels, in_channels;
    bool shared;

    const T* data() const { return arranged.const_data_ptr<T>(); }
};

// weight [O, C, k, k] or [1, 1, k, k] in T; transposed for gradients.
template <typename T>
FilterWeight<T> arrange(const Tensor& weight, const Window& window, bool shared, bool transposed) {
    const int64_t out = weight.size(transposed ? 1 : 0), in = weight.size(transposed ? 0 : 1);
    const int tile = shared ? 1 : with_tile<T>(out, [](auto tile) { return tile.value; });
    const int pitch = shared ? 1 : tile_pitch<T>(tile);
    const int64_t total = divide_up(out, tile) * window.taps() * in * pitch;
    Tensor arranged = torch::stable::new_empty(weight, {total});
    launch(arrange_weight_kernel<T>, {blocks_for(total, kWeightThreads), kWeightThreads}, weight, window,
           weight.size(2), out, in, tile, pitch, transposed, weight.const_data_ptr<T>(),
           arranged.mutable_data_ptr<T>());
    return {arranged, static_cast<int>(out), static_cast<int>(in), shared};
}

// The result of a filter as [splits, channels, N], still to be summed over splits.
template <typename T>
struct SplitSums {
    Tensor sums;
    int count = 0;

    Splits<T> get() const { return {count == 0 ? nullptr : sums.const_data_ptr<T>(), count}; }
};

struct FilterGrid {
    Grid grid;
    int rows_per_split, splits;
};

template <typename T>
FilterGrid filter_grid(const Window& window, int rows, int64_t channels, int64_t tiles, int pixels, bool may_split) {
    const int64_t threads =
        std::min<int64_t>(kFilterThreads, divide_up(divide_up(window.size(), pixels), kWarp) * kWarp);
    const int64_t blocks = divide_up(window.size(), threads * pixels);
    const int64_t bytes = channels * window.size() * static_cast<int64_t>(sizeof(T));
    const int64_t most = may_split ? std::clamp<int64_t>(kPartialBytes / std::max<int64_t>(1, bytes), 1, rows) : 1;
    const int64_t enough = std::clamp<int64_t>(rows * blocks * tiles / kEnoughBlocks, 1, rows);
    const int64_t per_split = std::max(divide_up(rows, most), enough), splits = divide_up(rows, per_split);
    const dim3 grid(static_cast<unsigned int>(blocks), static_cast<unsigned int>(splits),
                    static_cast<unsigned int>(tiles));
    return {{grid, static_cast<unsigned int>(threads)}, static_cast<int>(per_split), static_cast<int>(splits)};
}

// The work of the blocks of `g`. Allocates `out`, unless the blocks add to it, and shared memory for the weights: all
// taps of a row if they fit, else one tap, or some of its channels.
template <typename T>
FilterTask<T> filter_task(FilterGrid& g,
                          const FilterWeight<T>& weight,
                          const Window& window,
                          const Affinities<T>& affinities,
                          const T* in,
                          SplitSums<T>& out,
                          int channels,  // of `out`
                          int tile,
                          bool add) {
    if (!add) out = {torch::stable::new_empty(weight.arranged, {g.splits, channels, window.size()}), g.splits};
    FilterTask<T> task{};
    task.window = window;
    task.affinities = affinities;
    task.rows_per_split = g.rows_per_split;
    task.in = in;
    task.weight = weight.data();
    task.out = out.sums.template mutable_data_ptr<T>();
    task.in_channels = weight.shared ? channels : weight.in_channels;
    task.out_channels = channels;
    task.add = add;
    if (!weight.shared) {
        const int64_t bytes = tile_pitch<T>(tile) * static_cast<int64_t>(sizeof(T)), fit = kStagedBytes / bytes;
        task.staged_channels = static_cast<int>(std::clamp<int64_t>(task.in_channels, 1, fit));
        task.staged_taps = static_cast<int>(std::clamp<int64_t>(fit / task.staged_channels, 1, window.columns));
        g.grid.shared_bytes = task.staged_taps * task.staged_channels * bytes;
    }
    return task;
}

// Filters the planes `in` into `out`; with `add`, adds to it.
template <typename T>
void launch_filter(const FilterWeight<T>& weight,
                   const Window& window,
                   const Affinities<T>& affinities,
                   const T* in,
                   SplitSums<T>& out,
                   int channels,  // of `out`
                   bool may_split,
                   bool add) {
    const auto run = [&](auto kernel, int pixels, int tile) {
        FilterGrid g =
            filter_grid<T>(window, affinities.rows.count(), channels, divide_up(channels, tile), pixels, may_split);
        const FilterTask<T> task = filter_task(g, weight, window, affinities, in, out, channels, tile, add);
        launch(kernel, g.grid, weight.arranged, task);
    };
    if (weight.shared) {
        run(shared_filter_kernel<T>, kSharedPixels, kSharedTile);
    } else {
        with_tile<T>(weight.out_channels,
                     [&](auto tile) { run(filter_kernel<T, tile.value>, kFilterPixels, tile.value); });
    }
}

// The same for a gradient, with transposed weights; see filter_gradient_kernel.
template <typename T>
void launch_filter_gradient(const FilterWeight<T>& weight,
                            const Window& window,
                            const Affinities<T>& affinities,
                            const T* grad,
                            const T* own,
                            SplitSums<T>& out,
                            Tensor& grad_affinities,
                            int channels,  // of `own`
                            bool may_split,
                            bool add,
                            bool first) {
    const auto run = [&](auto kernel, int pixels, int tile) {
        FilterGrid g = filter_grid<T>(window, affinities.rows.count(), channels, 1, pixels, may_split);
        const FilterTask<T> task = filter_task(g, weight, window, affinities, grad, out, channels, tile, add);
        for (int i = 0; i < divide_up(channels, tile); ++i) {
            launch(kernel, g.grid, weight.arranged, task, i, own, grad_affinities.mutable_data_ptr<T>(),
                   first && i == 0);
        }
    };
    if (weight.shared) {
        run(shared_filter_gradient_kernel<T>, kSharedPixels, kSharedTile);
    } else {
        with_tile<T>(weight.out_channels,
                     [&](auto tile) { run(filter_gradient_kernel<T, tile.value>, kGradientPixels, tile.value); });
    }
}

inline int64_t gradient_parts(int64_t blocks, int64_t items, int64_t bytes) {
    const int64_t affordable = std::max<int64_t>(1, kPartialBytes / std::max<int64_t>(1, bytes));
    const int64_t wanted = divide_up(2 * kEnoughBlocks, std::max<int64_t>(1, blocks));
    return std::clamp<int64_t>(wanted, 1, std::min(affordable, items));
}

template <typename T>
void add_weight_gradient(const Window& window,
                         const TapRows& rows,
                         const Tensor& partial,  // [parts, positions * columns, O * C]
                         int64_t pairs,
                         T sign,
                         Tensor& grad_weight) {  // [O, C, k, k]
    const int64_t total = rows.count() * window.columns * pairs;
    launch(add_weight_gradient_kernel<T>, {blocks_for(total, kWeightThreads), kWeightThreads}, partial, window, rows,
           grad_weight.size(2), partial.size(0), pairs, partial.const_data_ptr<T>(), sign,
           grad_weight.mutable_data_ptr<T>());
}

// grad_weight [O, C, k, k] += sign * the gradient of the filter, summed over `steps` inputs.
template <typename T>
void launch_weight_gradient(const Window& window,
                            const Affinities<T>& affinities,
                            int steps,
                            const T* grad,  // [steps, O, N]
                            const T* in,    // [steps, C, N]
                            T sign,
                            Tensor& grad_weight) {
    const int64_t out = grad_weight.size(0), channels = grad_weight.size(1);
    const int64_t slots = affinities.rows.count() * window.columns;
    const auto run = [&](auto kernel, int64_t tile_out, int64_t tile_in) {
        const int64_t blocks = divide_up(slots, kWeightWarps) * divide_up(out, tile_out) * divide_up(channels, tile_in);
        const int64_t parts = gradient_parts(blocks, int64_t{1} * steps * window.height,
                                             slots * out * channels * static_cast<int64_t>(sizeof(T)));
        Tensor partial = torch::stable::new_empty(grad_weight, {parts, slots, out * channels});
        const WeightGradientTask<T> task{window,
                                         affinities,
                                         grad,
                                         in,
                                         partial.mutable_data_ptr<T>(),
                                         steps,
                                         static_cast<int>(out),
                                         static_cast<int>(channels)};
        const dim3 grid(static_cast<unsigned int>(blocks), static_cast<unsigned int>(parts));
        launch(kernel, {grid, kWeightThreads}, grad_weight, task);
        add_weight_gradient(window, affinities.rows, partial, out * channels, sign, grad_weight);
    };
    const auto cost = [&](int64_t tile_out, int64_t tile_in) {
        return divide_up(out, tile_out) * divide_up(channels, tile_in) * (tile_out * tile_in + tile_out + tile_in);
    };
    if constexpr (std::is_same_v<T, float>) {
        if (cost(7, 14) < cost(4, 8)) return run(weight_gradient_kernel<T, 7, 14>, 7, 14);
    }
    run(weight_gradient_kernel<T, 4, 8>, 4, 8);
}

// The same for a [1, 1, k, k] weight.
template <typename T>
void launch_shared_weight_gradient(
    const Window& window, const Affinities<T>& affinities, const Tensor& products, T sign, Tensor& grad_weight) {
    const int64_t slots = affinities.rows.count() * window.columns;
    const int64_t parts = gradient_parts(slots, window.height, slots * static_cast<int64_t>(sizeof(T)));
    Tensor partial = torch::stable::new_empty(products, {parts, slots, 1});
    const dim3 grid(static_cast<unsigned int>(slots), static_cast<unsigned int>(parts));
    launch(shared_weight_gradient_kernel<T>, {grid, kWeightThreads}, products, window, affinities,
           products.const_data_ptr<T>(), partial.mutable_data_ptr<T>());
    add_weight_gradient(window, affinities.rows, partial, 1, sign, grad_weight);
}

// [K, N]: the sum of the splits, plus the bias.
template <typename T>
void launch_sum(const SplitSums<T>& splits, int64_t channels, int64_t size, const T* bias, T* out, const Tensor& x) {
    launch(sum_kernel<T>, {blocks_for(channels * size, kStepThreads), kStepThreads}, x, splits.get(), channels, size,
           bias, out);
}

}  // namespace
}  // namespace cxrfast

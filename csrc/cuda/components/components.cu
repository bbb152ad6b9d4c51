// connected_components and component_boxes on the GPU: check, allocate, launch, register.
#include <torch/csrc/stable/library.h>

#include <limits>
#include <tuple>

#include "checks/components.h"
#include "cuda/components/boxes.cuh"

namespace cxrfast {
namespace {

Maps maps_of(const Tensor& x,  // [*, H, W]
             int64_t connectivity) {
    const int64_t height = x.size(-2), width = x.size(-1), size = height * width;
    CXRFAST_CHECK(connectivity == 4 || connectivity == 8, "connectivity must be 4 or 8, got ", connectivity);
    CXRFAST_CHECK(height == 0 || width <= std::numeric_limits<int32_t>::max() / height, "a map has too many pixels");
    return {size == 0 ? 0 : x.numel() / size, static_cast<int>(height), static_cast<int>(width),
            static_cast<int>(connectivity)};
}

Grid grid_for(int64_t threads) {
    return {blocks_for(threads, kComponentThreads), kComponentThreads};
}

Grid grid_of_words(const Maps& maps) {
    return grid_for(maps.count * maps.height * maps.words_across() * kWarp);
}

int64_t chunks_of(const Maps& maps) {
    return maps.count * chunks_per_map(maps);
}

// Writes the root of every pixel, -1 for background, and the area of every root.
template <typename Source>
void label(const Maps& maps,
           const Source& source,
           const Tensor& parent,  // [maps, H, W]
           const Tensor& area) {  // [maps, H, W]
    int *parents = parent.mutable_data_ptr<int>(), *areas = area.mutable_data_ptr<int>();
    const int64_t tiles = int64_t(maps.tiles_across()) * maps.tiles_down();
    CXRFAST_CHECK(maps.count * tiles <= std::numeric_limits<int32_t>::max(), "too many maps");
    const Grid one_block_a_tile{static_cast<unsigned int>(maps.count * tiles), kComponentThreads,
                                static_cast<size_t>(tile_bytes(std::min(maps.height, kTile)))};
    launch(label_tiles<Source>, one_block_a_tile, parent, maps, source, parents, areas);
    if (tiles == 1) return;
    launch(merge_tiles, grid_for(maps.count * pixels_on_edges(maps)), parent, maps, parents);
    launch(flatten, grid_for(maps.count * maps.size()), parent, maps, parents, areas);
}

// The number of components before every chunk, and in total.
void count(const Components& all,
           const Tensor& counts,   // [chunks]
           const Tensor& total) {  // []
    const int64_t chunks = counts.numel();
    launch(count_kept, grid_for(chunks * kWarp), counts, all, counts.mutable_data_ptr<int64_t>());
    launch(scan_counts, Grid{1, 1024}, counts, counts.mutable_data_ptr<int64_t>(), chunks,
           total.mutable_data_ptr<int64_t>());
}

Tensor connected_components(const Tensor& mask,  // [*, H, W] bool
                            int64_t connectivity) {
    CXRFAST_CHECK(mask.dim() >= 2 && mask.scalar_type() == ScalarType::Bool, "mask must be a bool tensor [*, H, W]");
    const DeviceGuard guard(mask);
    const Maps maps = maps_of(mask, connectivity);
    const Tensor source = torch::stable::contiguous(mask);
    Tensor labels = torch::stable::new_empty(source, mask.sizes(), ScalarType::Int);
    if (mask.numel() == 0) return labels;
    const Tensor area = torch::stable::new_empty(source, mask.sizes(), ScalarType::Int);
    const Tensor counts = torch::stable::new_empty(source, {chunks_of(maps)}, ScalarType::Long);
    const Tensor total = torch::stable::new_empty(source, {}, ScalarType::Long);
    // As bytes, because a bool tensor that is a view of other bytes may contain values other than 0 and 1.
    label(maps, MaskSource{reinterpret_cast<const uint8_t*>(source.const_data_ptr<bool>())}, labels, area);
    const Components all{maps,    Select::kAll, 1, labels.const_data_ptr<int>(), area.mutable_data_ptr<int>(),
                         nullptr, nullptr};
    count(all, counts, total);
    launch(number_roots, grid_for(counts.numel() * kWarp), mask, all, counts.const_data_ptr<int64_t>());
    launch(paint, grid_for(mask.numel()), mask, maps, labels.mutable_data_ptr<int>(), area.const_data_ptr<int>());
    return labels;
}

// Everything up to the number of components, after which their rows can be allocated.
struct Found {
    Tensor scores, parent, area, best, counts, total;
    Components all;
};

template <typename scalar_t>
void choose(const Components& all, const Found& found) {
    const scalar_t* scores = found.scores.const_data_ptr<scalar_t>();
    const size_t bytes = all.maps.count * sizeof(Word64);
    const cudaStream_t stream = current_stream(found.scores);
    check_cuda(cudaMemsetAsync(all.best, 0, bytes, stream), "cudaMemsetAsync");
    if (all.select == Select::kLargest) return launch(find_largest, grid_of_words(all.maps), found.scores, all);
    check_cuda(cudaMemsetAsync(all.first, 0xff, bytes, stream), "cudaMemsetAsync");
    launch(find_highest<scalar_t>, grid_of_words(all.maps), found.scores, all, scores);
    launch(find_first_highest<scalar_t>, grid_of_words(all.maps), found.scores, all, scores);
}

template <typename scalar_t>
Found find(const Tensor& scores,     // [B, K, H, W]
           const Tensor& threshold,  // [K]
           int64_t connectivity,
           Select select,
           int64_t min_area) {
    const Maps maps = maps_of(scores, connectivity);
    const auto scratch = [&](int64_t n, ScalarType type) { return torch::stable::new_empty(scores, {n}, type); };
    Found found{torch::stable::contiguous(scores),
                scratch(scores.numel(), ScalarType::Int),
                scratch(scores.numel(), ScalarType::Int),
                scratch(select == Select::kAll ? 0 : 2 * maps.count, ScalarType::Long),
                scratch(chunks_of(maps), ScalarType::Long),
                torch::stable::new_empty(scores, {}, ScalarType::Long),
                {}};
    found.all = {maps,    select, min_area, found.parent.const_data_ptr<int>(), found.area.mutable_data_ptr<int>(),
                 nullptr, nullptr};
    if (select != Select::kAll) {
        found.all.best = reinterpret_cast<Word64*>(found.best.mutable_data_ptr<int64_t>());
        found.all.first = found.all.best + maps.count;
    }
    const Tensor thresholds = torch::stable::contiguous(threshold);
    const ScoreSource<scalar_t> source{found.scores.const_data_ptr<scalar_t>(), thresholds.const_data_ptr<scalar_t>(),
                                       scores.size(1)};
    if (maps.count > 0) {
        label(maps, source, found.parent, found.area);
        if (select != Select::kAll) choose<scalar_t>(found.all, found);
    }
    count(found.all, found.counts, found.total);
    return found;
}

template <typename scalar_t>
Boxes measure(const Found& found, int64_t rows) {
    const Boxes out = empty_boxes(found.scores, rows);
    const auto& [boxes, peak, mean, area, image, channel] = out;
    const int64_t words = sizeof(Gathered) / sizeof(int64_t);
    const Tensor gathered = torch::stable::new_empty(found.scores, {rows, words}, ScalarType::Long);
    const Result<scalar_t> result{rows,
                                  found.scores.size(1),
                                  reinterpret_cast<Gathered*>(gathered.mutable_data_ptr<int64_t>()),
                                  boxes.mutable_data_ptr<float>(),
                                  peak.mutable_data_ptr<scalar_t>(),
                                  mean.mutable_data_ptr<scalar_t>(),
                                  area.mutable_data_ptr<int64_t>(),
                                  image.mutable_data_ptr<int64_t>(),
                                  channel.mutable_data_ptr<int64_t>()};
    if (rows == 0) return out;
    const scalar_t* scores = found.scores.const_data_ptr<scalar_t>();
    const Components& all = found.all;
    launch(assign_rows<scalar_t>, grid_for(found.counts.numel() * kWarp), found.scores, all, result,
           found.counts.const_data_ptr<int64_t>());
    launch(gather_extents<scalar_t>, grid_of_words(all.maps), found.scores, all, result, scores);
    launch(gather_sums<scalar_t>, grid_of_words(all.maps), found.scores, all, result, scores);
    launch(write_rows<scalar_t>, grid_for(rows), found.scores, result, found.total.const_data_ptr<int64_t>());
    return out;
}

// The number of components is the only value that the host waits for, and only on this stream.
int64_t read(const Tensor& total) {  // []
    int64_t value = 0;
    const cudaStream_t stream = current_stream(total);
    check_cuda(cudaMemcpyAsync(&value, total.const_data_ptr<int64_t>(), sizeof(value), cudaMemcpyDeviceToHost, stream),
               "cudaMemcpyAsync");
    check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    return value;
}

Boxes component_boxes(const Tensor& scores,     // [B, K, H, W]
                      const Tensor& threshold,  // [K]
                      int64_t connectivity,
                      int64_t select,
                      int64_t min_area) {
    check_scores(scores, threshold, select);
    const DeviceGuard guard(scores);
    Boxes out;
    CXRFAST_DISPATCH_FLOATING(scores.scalar_type(), "component_boxes", [&] {
        const Found found = find<scalar_t>(scores, threshold, connectivity, static_cast<Select>(select), min_area);
        out = measure<scalar_t>(found, read(found.total));
    });
    return out;
}

StaticBoxes component_boxes_static(const Tensor& scores,     // [B, K, H, W]
                                   const Tensor& threshold,  // [K]
                                   int64_t connectivity,
                                   int64_t select,
                                   int64_t min_area,
                                   int64_t capacity) {
    check_scores(scores, threshold, select);
    CXRFAST_CHECK(capacity >= 0, "capacity must not be negative, got ", capacity);
    const DeviceGuard guard(scores);
    StaticBoxes out;
    CXRFAST_DISPATCH_FLOATING(scores.scalar_type(), "component_boxes_static", [&] {
        const Found found = find<scalar_t>(scores, threshold, connectivity, static_cast<Select>(select), min_area);
        out = std::tuple_cat(measure<scalar_t>(found, capacity), std::make_tuple(found.total));
    });
    return out;
}

}  // namespace
}  // namespace cxrfast

CXRFAST_CUDA_IMPL(m) {
    m.impl("connected_components", TORCH_BOX(&cxrfast::connected_components));
    m.impl("component_boxes", TORCH_BOX(&cxrfast::component_boxes));
    m.impl("component_boxes_static", TORCH_BOX(&cxrfast::component_boxes_static));
}

// connected_components and component_boxes on the CPU. A map is cut into runs, the unbroken stretches of foreground of
// its rows, and union-find works on the runs: there are far fewer of them than pixels, and no map of labels is needed
// to find boxes. One thread works on one map.
#include "../math/components.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <vector>

#include "../common/check.h"
#include "../common/dispatch.h"
#include "../common/tensor.h"

namespace cxrfast {
namespace {

struct Run {
    int32_t y, begin, end;
};

// The runs of one map in raster order, each with the index of the first run of its component.
struct Runs {
    std::vector<Run> runs;
    std::vector<int32_t> first;
};

// Unites the runs [above, row) of one row with the runs [row, end) of the next that they touch.
void join_rows(Runs& map, int32_t above, int32_t row, int32_t end, int32_t reach) {
    const std::vector<Run>& runs = map.runs;
    const int32_t above_end = row;
    while (above < above_end && row < end) {
        const Run &a = runs[above], &b = runs[row];
        if (a.begin < b.end + reach && b.begin < a.end + reach) unite(map.first.data(), above, row);
        // The one that ends first touches nothing further on: a gap of a pixel follows every run.
        if (a.end < b.end) {
            ++above;
        } else {
            ++row;
        }
    }
}

// foreground(y, x) is asked once for every pixel, in raster order.
template <typename Foreground>
void find_runs(Runs& map, int64_t height, int64_t width, int64_t connectivity, const Foreground& foreground) {
    map.runs.clear();
    map.first.clear();
    const int32_t reach = connectivity == 8 ? 1 : 0;
    int32_t above = 0, row = 0;
    for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; ++x) {
            if (!foreground(y, x)) continue;
            const int64_t begin = x;
            while (++x < width && foreground(y, x)) {
            }
            map.first.push_back(map.first.size());
            map.runs.push_back({static_cast<int32_t>(y), static_cast<int32_t>(begin), static_cast<int32_t>(x)});
        }
        const int32_t end = map.runs.size();
        join_rows(map, above, row, end, reach);
        above = row;
        row = end;
    }
    for (int32_t& first : map.first) first = map.first[first];  // parents come first, and are final by then
}

// Paints the number of its component, from 1 in raster order of the first pixels, over every run.
void paint(const Runs& map, int32_t* labels, int64_t height, int64_t width, std::vector<int32_t>& number) {
    std::fill_n(labels, height * width, 0);
    number.resize(map.runs.size());
    int32_t count = 0;
    for (size_t i = 0; i < map.runs.size(); ++i) {
        const Run& run = map.runs[i];
        number[i] = map.first[i] == static_cast<int32_t>(i) ? ++count : number[map.first[i]];
        std::fill(labels + run.y * width + run.begin, labels + run.y * width + run.end, number[i]);
    }
}

// The components of a map in raster order, with the statistics of their scores.
template <typename scalar_t>
void measure(const Runs& map,
             const scalar_t* scores,
             int64_t width,
             std::vector<int32_t>& slot,
             std::vector<Component>& components) {
    components.clear();
    slot.resize(map.runs.size());
    for (size_t i = 0; i < map.runs.size(); ++i) {
        const Run& run = map.runs[i];
        if (map.first[i] == static_cast<int32_t>(i)) {
            slot[i] = components.size();
            components.push_back({run.begin, run.y, run.end, run.y + 1, 0, 0.0, 0.0, -1});
        } else {
            slot[i] = slot[map.first[i]];
        }
        Component& component = components[slot[i]];
        component.x0 = std::min(component.x0, run.begin);
        component.x1 = std::max(component.x1, run.end);
        component.y1 = run.y + 1;
        component.area += run.end - run.begin;
        for (int64_t at = run.y * width + run.begin; at < run.y * width + run.end; ++at) {
            const double score = static_cast<double>(scores[at]);
            component.sum += score;
            if (component.peak_at < 0 || score > component.peak) {
                component.peak = score;
                component.peak_at = at;
            }
        }
    }
}

// Drops the components that are too small, and of the others all but the selected one.
void keep(std::vector<Component>& components, Select select, int64_t min_area) {
    const auto too_small = [&](const Component& component) { return component.area < min_area; };
    components.erase(std::remove_if(components.begin(), components.end(), too_small), components.end());
    if (select == Select::kAll || components.empty()) return;
    Component chosen = components[0];
    for (const Component& component : components) {
        if (is_preferred(component, chosen, select)) chosen = component;
    }
    components.assign(1, chosen);
}

void check_map(int64_t height, int64_t width, int64_t connectivity) {
    CXRFAST_CHECK(connectivity == 4 || connectivity == 8, "connectivity must be 4 or 8, got ", connectivity);
    CXRFAST_CHECK(height == 0 || width <= std::numeric_limits<int32_t>::max() / height, "a map has too many pixels");
}

int64_t maps_per_task(int64_t height, int64_t width) {
    return std::max<int64_t>(1, 65536 / (height * width + 1));
}

Tensor connected_components(const Tensor& mask,  // [*, H, W] bool
                            int64_t connectivity) {
    CXRFAST_CHECK(mask.dim() >= 2 && mask.scalar_type() == ScalarType::Bool, "mask must be a bool tensor [*, H, W]");
    const int64_t height = mask.size(-2), width = mask.size(-1);
    check_map(height, width, connectivity);
    const Tensor source = torch::stable::contiguous(mask);
    Tensor labels = torch::stable::new_empty(source, mask.sizes(), ScalarType::Int);
    if (mask.numel() == 0) return labels;
    // As bytes: a bool tensor that is a view of other bytes may hold more than 0 and 1.
    const uint8_t* from = reinterpret_cast<const uint8_t*>(source.const_data_ptr<bool>());
    int32_t* to = labels.mutable_data_ptr<int32_t>();
    const int64_t size = height * width;
    torch::stable::parallel_for(0, mask.numel() / size, maps_per_task(height, width), [&](int64_t begin, int64_t end) {
        Runs runs;
        std::vector<int32_t> number;
        for (int64_t i = begin; i < end; ++i) {
            const uint8_t* map = from + i * size;
            find_runs(runs, height, width, connectivity, [&](int64_t y, int64_t x) { return map[y * width + x] != 0; });
            paint(runs, to + i * size, height, width, number);
        }
    });
    return labels;
}

using Boxes = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// One row per component, in the order of the maps.
template <typename scalar_t>
void write(const std::vector<std::vector<Component>>& found, int64_t channels, const Boxes& out) {
    const auto& [boxes, peak, mean, area, image, channel] = out;
    float* box = boxes.mutable_data_ptr<float>();
    int64_t row = 0;
    for (size_t map = 0; map < found.size(); ++map) {
        for (const Component& component : found[map]) {
            for (const int32_t edge : {component.x0, component.y0, component.x1, component.y1}) *box++ = edge;
            peak.mutable_data_ptr<scalar_t>()[row] = static_cast<scalar_t>(component.peak);
            mean.mutable_data_ptr<scalar_t>()[row] = static_cast<scalar_t>(component.sum / component.area);
            area.mutable_data_ptr<int64_t>()[row] = component.area;
            image.mutable_data_ptr<int64_t>()[row] = map / channels;
            channel.mutable_data_ptr<int64_t>()[row] = map % channels;
            ++row;
        }
    }
}

template <typename scalar_t>
void find_components(const scalar_t* scores,      // [B, K, H, W]
                     const scalar_t* thresholds,  // [K]
                     const Tensor& shape,
                     int64_t connectivity,
                     Select select,
                     int64_t min_area,
                     std::vector<std::vector<Component>>& found) {  // [B * K]
    using acc_t = accumulate_t<scalar_t>;
    const int64_t channels = shape.size(1), height = shape.size(2), width = shape.size(3);
    torch::stable::parallel_for(0, found.size(), maps_per_task(height, width), [&](int64_t begin, int64_t end) {
        Runs runs;
        std::vector<int32_t> slot;
        for (int64_t i = begin; i < end; ++i) {
            const scalar_t* map = scores + i * height * width;
            const acc_t threshold = static_cast<acc_t>(thresholds[i % channels]);
            find_runs(runs, height, width, connectivity, [&](int64_t y, int64_t x) {
                return is_foreground(static_cast<acc_t>(map[y * width + x]), threshold);
            });
            measure(runs, map, width, slot, found[i]);
            keep(found[i], select, min_area);
        }
    });
}

Boxes component_boxes(const Tensor& scores,     // [B, K, H, W]
                      const Tensor& threshold,  // [K]
                      int64_t connectivity,
                      int64_t select,
                      int64_t min_area) {
    CXRFAST_CHECK(scores.dim() == 4, "scores must be [B, K, H, W]");
    CXRFAST_CHECK(
        threshold.dim() == 1 && threshold.size(0) == scores.size(1) && threshold.scalar_type() == scores.scalar_type(),
        "threshold must be [K] and have scores' dtype");
    CXRFAST_CHECK(select >= 0 && select <= 2, "unknown select ", select);
    check_map(scores.size(2), scores.size(3), connectivity);
    const Tensor source = torch::stable::contiguous(scores), thresholds = torch::stable::contiguous(threshold);
    std::vector<std::vector<Component>> found(scores.size(0) * scores.size(1));
    CXRFAST_DISPATCH_FLOATING(scores.scalar_type(), "component_boxes", [&] {
        find_components(source.const_data_ptr<scalar_t>(), thresholds.const_data_ptr<scalar_t>(), scores, connectivity,
                        static_cast<Select>(select), min_area, found);
    });
    int64_t rows = 0;
    for (const std::vector<Component>& components : found) rows += components.size();
    const auto column = [&](ScalarType type) { return torch::stable::new_empty(scores, {rows}, type); };
    const Boxes out{torch::stable::new_empty(scores, {rows, 4}, ScalarType::Float),
                    column(scores.scalar_type()),
                    column(scores.scalar_type()),
                    column(ScalarType::Long),
                    column(ScalarType::Long),
                    column(ScalarType::Long)};
    CXRFAST_DISPATCH_FLOATING(scores.scalar_type(), "component_boxes",
                              [&] { write<scalar_t>(found, scores.size(1), out); });
    return out;
}

}  // namespace
}  // namespace cxrfast

STABLE_TORCH_LIBRARY_IMPL(cxrfast, CPU, m) {
    m.impl("connected_components", TORCH_BOX(&cxrfast::connected_components));
    m.impl("component_boxes", TORCH_BOX(&cxrfast::component_boxes));
}

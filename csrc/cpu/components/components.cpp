// connected_components and component_boxes on the CPU, from the runs that rows.h finds.
#include "math/components.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

#include "checks/components.h"
#include "common/check.h"
#include "common/dispatch.h"
#include "common/tensor.h"
#include "cpu/common/pages.h"
#include "cpu/components/rows.h"
#include "cpu/components/scores.h"

namespace cxrfast {
namespace {

// connected_components

struct LabelledRun {
    int32_t y, begin, end, label;
};

// Union-find over labels that keeps all runs.
struct RunLabels {
    std::vector<int32_t> parent;
    std::vector<LabelledRun> runs;

    int32_t root(int32_t label) { return find_root(parent.data(), label); }
    int32_t unite(int32_t a, int32_t b) { return parent[std::max(a, b)] = std::min(a, b); }

    void add_row(int64_t y, Row& row) {
        for (int64_t i = 0; i < row.count; ++i) {
            int32_t& label = row.label[i];
            if (label < 0) {
                label = static_cast<int32_t>(parent.size());
                parent.push_back(label);
            }
            runs.push_back({static_cast<int32_t>(y), row.begin[i], row.end[i], label});
        }
    }
};

CXRFAST_CPU_CLONES void compare_mask(const uint8_t* mask, int64_t n, uint8_t* foreground) {
    for (int64_t i = 0; i < n; ++i) foreground[i] = mask[i] != 0;
}

constexpr int32_t kPaintedAtOnce = 8;

// Fills [begin, end), and a few elements after it.
inline void fill_coarsely(int32_t* pixels, int32_t begin, int32_t end, int32_t value) {
    for (int32_t at = begin; at < end; at += kPaintedAtOnce) std::fill_n(pixels + at, kPaintedAtOnce, value);
}

// Writes the number of its component over every run. Numbers start from 1, in raster order of the first pixels.
CXRFAST_CPU_CLONES void paint(RunLabels& found,
                              std::vector<int32_t>& line,  // [W + kPaintedAtOnce] scratch
                              int32_t* painted,            // [H, W]
                              int64_t height,
                              int64_t width) {
    std::vector<int32_t>& number = found.parent;  // overwritten in place: parents come first
    int32_t count = 0;
    for (int32_t label = 0; label < static_cast<int32_t>(number.size()); ++label) {
        number[label] = number[label] == label ? ++count : number[number[label]];
    }
    auto run = found.runs.begin();
    for (int64_t y = 0; y < height; ++y) {
        int32_t at = 0;
        for (; run != found.runs.end() && run->y == y; ++run) {
            fill_coarsely(line.data(), at, run->begin, 0);
            fill_coarsely(line.data(), run->begin, run->end, number[run->label]);
            at = run->end;
        }
        fill_coarsely(line.data(), at, width, 0);
        std::copy_n(line.data(), width, painted + y * width);
    }
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
    Tensor labels = on_large_pages(torch::stable::new_empty(source, mask.sizes(), ScalarType::Int));
    if (mask.numel() == 0) return labels;
    // As bytes, because a bool tensor that is a view of other bytes may contain values other than 0 and 1.
    const uint8_t* from = reinterpret_cast<const uint8_t*>(source.const_data_ptr<bool>());
    int32_t* to = labels.mutable_data_ptr<int32_t>();
    const int64_t size = height * width;
    torch::stable::parallel_for(0, mask.numel() / size, maps_per_task(height, width), [&](int64_t begin, int64_t end) {
        RowScanner scanner(height, width, connectivity);
        RunLabels found;
        std::vector<int32_t> line(width + kPaintedAtOnce);
        for (int64_t i = begin; i < end; ++i) {
            found.parent.clear();
            found.runs.clear();
            const auto compare = [&](int64_t at, int64_t n, uint8_t* foreground) {
                compare_mask(from + i * size + at, n, foreground);
            };
            scanner.scan(compare, found);
            paint(found, line, to + i * size, height, width);
        }
    });
    return labels;
}

// component_boxes

// The components of all maps. Those of all maps of a task are stored at the first map of the task.
struct Found {
    std::vector<std::vector<Component>> of_task;  // [B * K]
    std::vector<int64_t> count;                   // [B * K], for every map

    int64_t total() const { return std::accumulate(count.begin(), count.end(), int64_t(0)); }
};

template <typename scalar_t>
Found find_components(const Tensor& scores,      // [B, K, H, W] contiguous
                      const Tensor& thresholds,  // [K] contiguous
                      int64_t connectivity,
                      Select select,
                      int64_t min_area) {
    using acc_t = accumulate_t<scalar_t>;
    const int64_t maps = scores.size(0) * scores.size(1), channels = scores.size(1);
    const int64_t height = scores.size(2), width = scores.size(3);
    Found found{std::vector<std::vector<Component>>(maps), std::vector<int64_t>(maps)};
    if (scores.numel() == 0) return found;
    const scalar_t* from = scores.const_data_ptr<scalar_t>();
    const scalar_t* threshold = thresholds.const_data_ptr<scalar_t>();
    torch::stable::parallel_for(0, maps, maps_per_task(height, width), [&](int64_t begin, int64_t end) {
        RowScanner scanner(height, width, connectivity);
        ScoredLabels<scalar_t> labels{nullptr, width, {}, {}};
        std::vector<Component>& kept = found.of_task[begin];
        for (int64_t map = begin; map < end; ++map) {
            labels.scores = from + map * height * width;
            labels.parent.clear();
            labels.components.clear();
            const auto compare = [&](int64_t at, int64_t n, uint8_t* foreground) {
                compare_scores(labels.scores + at, static_cast<acc_t>(threshold[map % channels]), n, foreground);
            };
            scanner.scan(compare, labels);
            const size_t before = kept.size();
            keep(labels, select, min_area, kept);
            found.count[map] = kept.size() - before;
        }
    });
    return found;
}

template <typename scalar_t>
struct Columns {
    float* boxes;                     // [N, 4]
    scalar_t *peak, *mean;            // [N]
    int64_t *area, *image, *channel;  // [N]

    void write(int64_t row, const Component& component, int64_t of_image, int64_t of_channel) const {
        float* box = boxes + 4 * row;
        for (const int32_t edge : {component.x0, component.y0, component.x1, component.y1}) *box++ = edge;
        peak[row] = static_cast<scalar_t>(component.peak);
        mean[row] = static_cast<scalar_t>(component.area == 0 ? 0.0 : component.sum / component.area);
        area[row] = component.area;
        image[row] = of_image;
        channel[row] = of_channel;
    }
};

// One row per component, in the order of the maps, up to the number of rows. Remaining rows are 0, their image is -1.
template <typename scalar_t>
void write(const Found& found, int64_t channels, int64_t maps_at_once, int64_t rows, const Columns<scalar_t>& out) {
    std::vector<int64_t> first_row(found.count.size());
    for (size_t map = 1; map < first_row.size(); ++map) first_row[map] = first_row[map - 1] + found.count[map - 1];
    torch::stable::parallel_for(0, first_row.size(), maps_at_once, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
            int64_t row = first_row[task], map = task, left = found.count[task];
            for (const Component& component : found.of_task[task]) {
                if (row >= rows) break;
                while (left == 0) left = found.count[++map];
                --left;
                out.write(row++, component, map / channels, map % channels);
            }
        }
    });
    for (int64_t row = found.total(); row < rows; ++row) out.write(row, Component{}, -1, -1);
}

// capacity is the number of rows; without it, there is one row per component. Returns the number of components.
int64_t fill_boxes(const Tensor& scores,     // [B, K, H, W]
                   const Tensor& threshold,  // [K]
                   int64_t connectivity,
                   int64_t select,
                   int64_t min_area,
                   std::optional<int64_t> capacity,
                   Boxes& out) {
    check_scores(scores, threshold, select);
    check_map(scores.size(2), scores.size(3), connectivity);
    const Tensor source = torch::stable::contiguous(scores), thresholds = torch::stable::contiguous(threshold);
    int64_t count = 0;
    CXRFAST_DISPATCH_FLOATING(scores.scalar_type(), "component_boxes", [&] {
        const Found found =
            find_components<scalar_t>(source, thresholds, connectivity, static_cast<Select>(select), min_area);
        count = found.total();
        const int64_t rows = capacity.value_or(count);
        out = empty_boxes(scores, rows);
        const auto& [boxes, peak, mean, area, image, channel] = out;
        const Columns<scalar_t> columns{boxes.mutable_data_ptr<float>(),   peak.mutable_data_ptr<scalar_t>(),
                                        mean.mutable_data_ptr<scalar_t>(), area.mutable_data_ptr<int64_t>(),
                                        image.mutable_data_ptr<int64_t>(), channel.mutable_data_ptr<int64_t>()};
        write(found, scores.size(1), maps_per_task(scores.size(2), scores.size(3)), rows, columns);
    });
    return count;
}

Boxes component_boxes(const Tensor& scores,     // [B, K, H, W]
                      const Tensor& threshold,  // [K]
                      int64_t connectivity,
                      int64_t select,
                      int64_t min_area) {
    Boxes out;
    fill_boxes(scores, threshold, connectivity, select, min_area, std::nullopt, out);
    return out;
}

StaticBoxes component_boxes_static(const Tensor& scores,     // [B, K, H, W]
                                   const Tensor& threshold,  // [K]
                                   int64_t connectivity,
                                   int64_t select,
                                   int64_t min_area,
                                   int64_t capacity) {
    CXRFAST_CHECK(capacity >= 0, "capacity must not be negative, got ", capacity);
    Boxes out;
    const Tensor count = torch::stable::new_empty(scores, {}, ScalarType::Long);
    *count.mutable_data_ptr<int64_t>() = fill_boxes(scores, threshold, connectivity, select, min_area, capacity, out);
    return std::tuple_cat(out, std::make_tuple(count));
}

}  // namespace
}  // namespace cxrfast

STABLE_TORCH_LIBRARY_IMPL(cxrfast, CPU, m) {
    m.impl("connected_components", TORCH_BOX(&cxrfast::connected_components));
    m.impl("component_boxes", TORCH_BOX(&cxrfast::component_boxes));
    m.impl("component_boxes_static", TORCH_BOX(&cxrfast::component_boxes_static));
}

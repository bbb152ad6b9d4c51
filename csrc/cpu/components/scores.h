// What component_boxes records while rows.h visits a map: sums and peaks per label, never per pixel.
#pragma once

#include <algorithm>
#include <vector>

#include "common/dispatch.h"
#include "common/macros.h"
#include "cpu/components/rows.h"
#include "math/components.h"

namespace cxrfast {

template <typename scalar_t>
CXRFAST_CPU_CLONES void compare_scores(const scalar_t* scores,
                                       accumulate_t<scalar_t> threshold,
                                       int64_t n,
                                       uint8_t* foreground) {
    using acc_t = accumulate_t<scalar_t>;
    for (int64_t i = 0; i < n; ++i) foreground[i] = is_foreground(static_cast<acc_t>(scores[i]), threshold);
}

struct RunScores {
    double sum, peak;
};

// Of 1 to 4 scores, or the first 4. It has no branch, because lengths of short runs are hard to predict.
template <typename scalar_t>
[[gnu::always_inline]] inline RunScores measure_few(const scalar_t* scores, int64_t n) {
    using acc_t = accumulate_t<scalar_t>;
    const auto score = [&](int64_t i) { return static_cast<acc_t>(scores[i < n ? i : 0]); };
    const auto term = [&](int64_t i) { return i < n ? static_cast<double>(score(i)) : 0.0; };
    return {(term(0) + term(1)) + (term(2) + term(3)),
            static_cast<double>(std::max(std::max(score(0), score(1)), std::max(score(2), score(3))))};
}

// Of n >= 1 scores without NaN. The order of the sum depends only on n.
template <typename scalar_t>
[[gnu::always_inline]] inline RunScores measure_run(const scalar_t* scores, int64_t n) {
    if (n <= 4) return measure_few(scores, n);
    if (n <= 8) {
        const RunScores first = measure_few(scores, 4), rest = measure_few(scores + 4, n - 4);
        return {first.sum + rest.sum, std::max(first.peak, rest.peak)};
    }
    using acc_t = accumulate_t<scalar_t>;
    constexpr int64_t kLanes = 8;
    typedef acc_t Scores __attribute__((vector_size(kLanes * sizeof(acc_t))));
    typedef double Sums __attribute__((vector_size(kLanes * sizeof(double))));
    typedef int64_t Indices __attribute__((vector_size(kLanes * sizeof(int64_t))));
    const auto load = [&](int64_t i, Scores& values) {
        for (int64_t lane = 0; lane < kLanes; ++lane) values[lane] = static_cast<acc_t>(scores[i + lane]);
    };
    Scores values, peaks;
    // The last 8. The first `again` of them are summed in the loop below.
    load(n - kLanes, peaks);
    const int64_t again = (kLanes - n % kLanes) % kLanes;
    const Indices lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    Sums sums = lanes >= again ? __builtin_convertvector(peaks, Sums) : Sums{};
    for (int64_t i = 0; i + kLanes < n; i += kLanes) {
        load(i, values);
        peaks = values > peaks ? values : peaks;
        sums += __builtin_convertvector(values, Sums);
    }
    const auto higher = [&](int64_t a, int64_t b) { return std::max(peaks[a], peaks[b]); };
    return {((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7])),
            static_cast<double>(std::max(std::max(higher(0, 4), higher(2, 6)), std::max(higher(1, 5), higher(3, 7))))};
}

// Union-find over labels, with the statistics of each label's component so far. A peak is recorded at the start of its
// run. For two components, whose runs never overlap, this gives the same order as the pixel itself.
template <typename scalar_t>
struct ScoredLabels {
    const scalar_t* scores;  // [H, W]
    int64_t width;
    std::vector<int32_t> parent;
    std::vector<Component> components;

    int32_t root(int32_t label) { return find_root(parent.data(), label); }

    int32_t unite(int32_t a, int32_t b) {
        const int32_t first = std::min(a, b), later = std::max(a, b);
        absorb(components[first], components[later]);
        return parent[later] = first;
    }

    CXRFAST_CPU_CLONES void add_row(int64_t y, Row& row) {
        const int32_t top = static_cast<int32_t>(y);
        for (int64_t i = 0; i < row.count; ++i) {
            const int32_t begin = row.begin[i], end = row.end[i];
            const int64_t at = y * width + begin;
            const RunScores run = measure_run(scores + at, end - begin);
            const Component alone{begin, top, end, top + 1, end - begin, run.sum, run.peak, at};
            if (row.label[i] < 0) {
                row.label[i] = static_cast<int32_t>(parent.size());
                parent.push_back(row.label[i]);
                components.push_back(alone);
            } else {
                absorb(components[root(row.label[i])], alone);
            }
        }
    }

    [[gnu::always_inline]] static void absorb(Component& into, const Component& from) {
        into.x0 = std::min(into.x0, from.x0);
        into.x1 = std::max(into.x1, from.x1);
        into.y1 = std::max(into.y1, from.y1);
        into.area += from.area;
        into.sum += from.sum;
        const bool higher = from.peak > into.peak || (from.peak == into.peak && from.peak_at < into.peak_at);
        into.peak = higher ? from.peak : into.peak;
        into.peak_at = higher ? from.peak_at : into.peak_at;
    }
};

// Appends the selected components of a map, in raster order: all of at least min_area, or the preferred one of them.
template <typename scalar_t>
void keep(const ScoredLabels<scalar_t>& labels, Select select, int64_t min_area, std::vector<Component>& kept) {
    const size_t before = kept.size();
    for (size_t label = 0; label < labels.parent.size(); ++label) {
        const Component& component = labels.components[label];
        if (labels.parent[label] != static_cast<int32_t>(label) || component.area < min_area) continue;
        if (select == Select::kAll || kept.size() == before) {
            kept.push_back(component);
        } else if (is_preferred(component, kept.back(), select)) {
            kept.back() = component;
        }
    }
}

}  // namespace cxrfast

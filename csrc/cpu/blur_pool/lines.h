// Shared by blur_pool and max_blur_pool: the blur as one table of taps per axis, and the blur of one line with two such
// tables. The backward uses the transposed tables.
#pragma once

#include "math/blur_pool.h"

#include <algorithm>
#include <vector>

#include "checks/blur_pool.h"
#include "common/check.h"
#include "common/dispatch.h"
#include "common/tensor.h"
#include "cpu/common/streams.h"

namespace cxrfast {
namespace {

// The sources of a target, with their weights. There are never more than filter taps, also at an edge, because padding
// folds onto sources that the target already has.
struct Taps {
    int64_t count = 0;
    int64_t source[kMaxFilterSize];
    double weight[kMaxFilterSize];

    void add(int64_t from, double by) {
        for (int64_t t = 0; t < count; ++t) {
            if (source[t] == from) return static_cast<void>(weight[t] += by);
        }
        CXRFAST_CHECK(count < kMaxFilterSize, "more taps than a filter has");
        source[count] = from;
        weight[count++] = by;
    }

    bool is_moved(const Taps& other, int64_t shift) const {
        bool same = count == other.count;
        for (int64_t t = 0; same && t < count; ++t) {
            same = source[t] == other.source[t] + shift && weight[t] == other.weight[t];
        }
        return same;
    }
};
static_assert(kMaxStreams == kMaxFilterSize);

// The taps of all targets along one axis. For targets in [begin, end), the taps are those of the target `period`
// before, moved by `shift` sources. The forward has period 1 and the stride as shift; the backward has the stride as
// period and shift 1.
struct Axis {
    static constexpr int64_t kMaxStep = 4;  // for larger ones, every target uses its own taps

    std::vector<Taps> taps;  // [target]
    int64_t sources, period, shift;
    int64_t begin = 0, end = 0;
    std::vector<Taps> regular;  // [period]: taps that targets 0, 1, … would have if they were in [begin, end)

    Axis(std::vector<Taps> table, int64_t sources, int64_t period, int64_t shift)
        : taps(std::move(table)), sources(sources), period(period), shift(shift) {
        if (period > std::min(kMaxStep, size()) || shift > kMaxStep || steps() * period < size()) return;
        const auto continues = [&](int64_t x) { return taps[x + period].is_moved(taps[x], shift); };
        begin = (size() - period) / 2;
        end = begin + period;
        while (end < size() && continues(end - period)) ++end;
        while (begin > 0 && continues(begin - 1)) --begin;
        for (int64_t p = 0; p < period; ++p) {
            const int64_t like = begin + (period + p - begin % period) % period;
            regular.push_back(taps[like]);
            for (int64_t t = 0; t < regular[p].count; ++t) regular[p].source[t] -= like / period * shift;
        }
    }

    int64_t size() const { return taps.size(); }
    bool is_regular() const { return end > begin; }

    // The length of a regular line, in units of `shift` sources and `period` targets; the last targets may be past the
    // end.
    int64_t steps() const { return (sources + shift - 1) / shift; }
    int64_t source_pitch() const { return is_regular() ? steps() * shift : sources; }
    int64_t target_pitch() const { return is_regular() ? steps() * period : size(); }
};

inline Axis forward_axis(int64_t n, int64_t filter_size, int64_t stride, Padding padding) {
    double weights[kMaxFilterSize];
    for (int64_t t = 0; t < filter_size; ++t) weights[t] = binomial_tap(filter_size, t);
    std::vector<Taps> taps(blur_pool_output_size(n, stride));
    for (int64_t out = 0; out < static_cast<int64_t>(taps.size()); ++out) {
        for (int64_t t = 0; t < filter_size; ++t) {
            const int64_t source = padded_index(out * stride - padding_before(filter_size) + t, n, padding);
            // The taps of an empty image are not used but transposed; it may be too short to reflect.
            if (source >= 0 && source < n) taps[out].add(source, weights[t]);
        }
    }
    return {std::move(taps), n, 1, stride};
}

inline Axis transposed(const Axis& axis) {
    std::vector<Taps> taps(axis.sources);
    for (int64_t out = 0; out < axis.size(); ++out) {
        for (int64_t t = 0; t < axis.taps[out].count; ++t) {
            taps[axis.taps[out].source[t]].add(out, axis.taps[out].weight[t]);
        }
    }
    return {std::move(taps), axis.size(), axis.shift, axis.period};
}

// Lines of one channel that are blurred together, so that a step reads from the cache what the previous step has
// written at another alignment. Lines are contiguous, and sums may cross their ends; these results are overwritten or
// ignored.
template <typename acc_t>
struct Batch {
    int64_t lines, phase;  // `phase` elements hold every shift-th source, or every period-th target, of all lines
    std::vector<acc_t> rows, split, sums, joined;

    Batch(const Axis& axis, int64_t inner)
        : lines(std::max<int64_t>(1, 1024 / std::max(axis.sources, axis.size()))),
          phase(lines * axis.steps() + 2 * kVector),
          rows(inner > 1 ? axis.sources * inner : lines * axis.source_pitch() + 2 * kVector) {
        if (inner > 1) return;
        joined.resize(lines * axis.target_pitch() + 2 * kVector);
        if (axis.is_regular() && axis.shift > 1) split.resize(phase * axis.shift);
        if (axis.is_regular() && axis.period > 1) sums.resize(phase * axis.period);
    }

    acc_t* row(const Axis& axis, int64_t line) { return rows.data() + kVector + line * axis.source_pitch(); }
    acc_t* target(const Axis& axis, int64_t line) { return joined.data() + kVector + line * axis.target_pitch(); }
};

template <typename acc_t>
void blur_regular(Batch<acc_t>& batch, const Axis& axis, int64_t lines) {
    const int64_t n = lines * axis.steps();
    const acc_t* sources = batch.row(axis, 0);
    if (axis.shift > 1) {
        split(batch.split.data() + kVector, sources, axis.shift, batch.phase, n);
        sources = batch.split.data() + kVector;
    }
    for (int64_t p = 0; p < axis.period; ++p) {
        const Taps& taps = axis.regular[p];
        const acc_t* x[kMaxFilterSize];
        acc_t weights[kMaxFilterSize];
        for (int64_t t = 0; t < taps.count; ++t) {
            const int64_t before = taps.source[t] < 0 ? (axis.shift - 1 - taps.source[t]) / axis.shift : 0;
            const int64_t source = taps.source[t] + before * axis.shift;
            x[t] = sources + source % axis.shift * batch.phase + source / axis.shift - before;
            weights[t] = static_cast<acc_t>(taps.weight[t]);
        }
        acc_t* to = axis.period > 1 ? batch.sums.data() + p * batch.phase : batch.target(axis, 0);
        weighted_sum(to, x, weights, taps.count, n);
    }
    if (axis.period > 1) join(batch.target(axis, 0), batch.sums.data(), axis.period, batch.phase, n);
}

// out[l, x] = sum over the taps of x of the batch's rows[l, x'].
template <typename out_t, typename acc_t>
void blur_along(Batch<acc_t>& batch, out_t* out, int64_t out_pitch, const Axis& axis, int64_t lines) {
    const int64_t size = axis.size(), pitch = axis.target_pitch();
    const bool dense = size == pitch && size == out_pitch;
    const int64_t copied = std::min(pitch, size + (out_pitch - size) / 2);  // whole vectors if half the gap allows it
    if (axis.is_regular()) {
        blur_regular(batch, axis, lines);
        for (int64_t line = 0; line < (dense ? 1 : lines); ++line) {
            copy(out + line * out_pitch, batch.target(axis, line), dense ? lines * size : copied);
        }
    }
    for (int64_t x = axis.begin > 0 ? 0 : axis.end; x < size; x = x + 1 == axis.begin ? axis.end : x + 1) {
        const Taps& taps = axis.taps[x];
        acc_t weights[kMaxFilterSize];
        for (int64_t t = 0; t < taps.count; ++t) weights[t] = static_cast<acc_t>(taps.weight[t]);
        for (int64_t line = 0; line < lines; ++line) {
            const acc_t* row = batch.row(axis, line);
            acc_t sum = 0;
            for (int64_t t = 0; t < taps.count; ++t) sum += weights[t] * row[taps.source[t]];
            out[line * out_pitch + x] = static_cast<out_t>(sum);
        }
    }
}

// out[x, :] = sum over taps_y and over the taps of x of rows[y', x', :], in channels_last. Pixels are summed along
// columns just before the sums along the row need them, while they are in the cache.
template <typename in_t, typename out_t, typename acc_t>
void blur_pixels(const in_t* const* rows,  // [count] rows [axis.sources, inner]
                 const acc_t* weights,     // [count]
                 int64_t count,
                 out_t* out,  // [axis.size(), inner]
                 const Axis& axis,
                 int64_t inner,
                 acc_t* blurred) {  // [axis.sources, inner]
    const int64_t ahead = 1024 / inner;
    int64_t done = 0;
    for (int64_t x = 0; x < axis.size(); ++x) {
        const Taps& taps = axis.taps[x];
        const acc_t* pixels[kMaxFilterSize];
        acc_t along[kMaxFilterSize];
        int64_t last = -1;
        for (int64_t t = 0; t < taps.count; ++t) {
            pixels[t] = blurred + taps.source[t] * inner;
            along[t] = static_cast<acc_t>(taps.weight[t]);
            last = std::max(last, taps.source[t]);
        }
        if (last >= done) {
            const int64_t next = std::min(axis.sources, std::max(last + 1, done + ahead));
            const in_t* from[kMaxFilterSize];
            for (int64_t t = 0; t < count; ++t) from[t] = rows[t] + done * inner;
            weighted_sum(blurred + done * inner, from, weights, count, (next - done) * inner);
            done = next;
        }
        weighted_sum(out + x * inner, pixels, along, taps.count, inner);
    }
}

// Lines [begin, end) of a target. Each has axis_x.size() pixels of `inner` channels. Lines of several channels are
// computed one by one, lines of one channel in batches. row(line, y') is source row y' of the plane of the line; lines
// are requested in order.
template <typename out_t, typename acc_t, typename Row>
void blur_lines(const Row& row,
                int64_t row_length,  // number of readable elements of a row, at least axis_x.sources * inner
                out_t* out,          // [end - begin, axis_x.size(), inner]
                int64_t out_pitch,
                const Axis& axis_y,
                const Axis& axis_x,
                int64_t inner,
                int64_t begin,
                int64_t end,
                Batch<acc_t>& batch) {
    const int64_t step = inner > 1 ? 1 : batch.lines;
    for (int64_t first = begin; first < end; first += step) {
        const int64_t lines = std::min(step, end - first);
        for (int64_t line = first; line < first + lines; ++line) {
            const Taps& taps = axis_y.taps[line % axis_y.size()];
            decltype(row(line, 0)) rows[kMaxFilterSize];
            acc_t weights[kMaxFilterSize];
            for (int64_t t = 0; t < taps.count; ++t) {
                rows[t] = row(line, taps.source[t]);
                weights[t] = static_cast<acc_t>(taps.weight[t]);
            }
            if (inner > 1) {
                blur_pixels(rows, weights, taps.count, out + (line - begin) * out_pitch, axis_x, inner,
                            batch.rows.data());
            } else {
                weighted_sum(batch.row(axis_x, line - first), rows, weights, taps.count,
                             std::min(row_length, axis_x.source_pitch()));
            }
        }
        if (inner == 1) blur_along(batch, out + (first - begin) * out_pitch, out_pitch, axis_x, lines);
    }
}

}  // namespace
}  // namespace cxrfast

// Connected components on the CPU, row by row. A row is a bit mask. Its runs, the maximal stretches of foreground, are
// the pairs of positions where the mask changes. Union-find works on labels, which runs inherit from the row above.
// There are far fewer labels than runs, and fewer runs than pixels. One thread processes one map.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/macros.h"
#include "math/components.h"

namespace cxrfast {

constexpr int64_t kWordBits = 64;
constexpr int64_t kPixelsAtOnce = 4096;  // bytes filled by one comparison: few enough to stay in the first-level cache

// One row: its runs, and what is needed to find those that touch a run of the next row.
struct Row {
    std::vector<uint64_t> mask, starts;      // [words] one bit per pixel: foreground; start of a run
    std::vector<int32_t> begin, end, label;  // [count], with space for one more run
    int64_t count = 0;

    // A background pixel follows the last pixel, so that every run ends. One extra run takes the writes past the last
    // index.
    void resize(int64_t width) {
        mask.resize(width / kWordBits + 1);
        starts.resize(mask.size());
        begin.resize(width / 2 + 2);
        end.resize(begin.size());
        label.resize(begin.size());
        count = 0;
    }
};

// Packs n bytes, each 0 or 1, into bits; the remaining bits of the last word are 0. Reads up to the next multiple of 8
// bytes.
CXRFAST_CPU_CLONES inline void pack(const uint8_t* bytes, int64_t n, uint64_t* words) {
    constexpr uint64_t kGather = 0x0102040810204080;  // the product has the bit of byte i at 56 + i
    for (int64_t at = 0; at <= n; at += kWordBits) {
        uint64_t word = 0;
        const int64_t bits = std::min(kWordBits, n - at);
        for (int64_t i = 0; i < bits; i += 8) {
            uint64_t eight;
            std::memcpy(&eight, bytes + at + i, 8);
            word |= (eight * kGather >> 56) << i;
        }
        *words++ = bits == kWordBits ? word : word & ((uint64_t(1) << bits) - 1);
    }
}

// Finds the starts, the extents and the number of runs from row.mask. The runs have no labels yet.
CXRFAST_CPU_CLONES inline void find_runs(Row& row) {
    int32_t *begin = row.begin.data(), *end = row.end.data();
    uint64_t before = 0;  // the last bit of the previous word
    for (size_t w = 0; w < row.mask.size(); ++w) {
        const uint64_t mask = row.mask[w], shifted = mask << 1 | before;
        const int32_t base = static_cast<int32_t>(w) * static_cast<int32_t>(kWordBits);
        row.starts[w] = mask & ~shifted;
        for (uint64_t bits = row.starts[w]; bits != 0; bits &= bits - 1) *begin++ = base + __builtin_ctzll(bits);
        for (uint64_t bits = shifted & ~mask; bits != 0; bits &= bits - 1) *end++ = base + __builtin_ctzll(bits);
        before = mask >> (kWordBits - 1);
    }
    row.count = begin - row.begin.data();
    std::fill_n(row.label.data(), row.count, -1);
}

// Gives every run of `row` the label of a run above that it touches, if any, and unites the labels of all these runs
// with labels.unite(a, b), which returns the root. Runs with 8-connectivity touch if they overlap after both are
// extended by one pixel at each end: [a, b) and [c, d) touch if a <= d and c <= b. An overlap begins where one of the
// two runs begins, so that it is one bit of a mask; the runs are found by counting the starts up to this bit.
template <typename Labels>
CXRFAST_CPU_CLONES void join_rows(const Row& above, Row& row, int64_t connectivity, Labels& labels) {
    const uint64_t reach = connectivity == 8 ? ~uint64_t(0) : 0;
    uint64_t above_before = 0, row_before = 0;
    int64_t above_count = -1, row_count = -1;  // starts in the previous words, minus one: an index
    for (size_t w = 0; w < row.mask.size(); ++w) {
        const uint64_t above_mask = above.mask[w], row_mask = row.mask[w];
        const uint64_t above_starts = above.starts[w], row_starts = row.starts[w];
        const uint64_t above_reached = above_mask | ((above_mask << 1 | above_before) & reach);
        const uint64_t row_reached = row_mask | ((row_mask << 1 | row_before) & reach);
        uint64_t touching = above_reached & row_reached & (above_starts | row_starts);
        for (; touching != 0; touching &= touching - 1) {
            const uint64_t up_to = touching ^ (touching - 1);  // the lowest bit and those below it
            const int64_t a = above_count + __builtin_popcountll(above_starts & up_to);
            const int64_t b = row_count + __builtin_popcountll(row_starts & up_to);
            const int32_t root = labels.root(above.label[a]);
            const int32_t own = row.label[b] < 0 ? root : row.label[b];
            row.label[b] = own == root ? root : labels.unite(own, root);
        }
        above_count += __builtin_popcountll(above_starts);
        row_count += __builtin_popcountll(row_starts);
        above_before = above_mask >> (kWordBits - 1);
        row_before = row_mask >> (kWordBits - 1);
    }
}

// Visits the rows of a map; reusable for further maps.
class RowScanner {
  public:
    RowScanner(int64_t height, int64_t width, int64_t connectivity)
        : height_(height),
          width_(width),
          connectivity_(connectivity),
          rows_at_once_(std::max<int64_t>(1, kPixelsAtOnce / width)) {
        above_.resize(width);
        row_.resize(width);
        bytes_.resize(rows_at_once_ * width + 8);
    }

    // compare(begin, n, bytes) writes for the pixels [begin, begin + n) whether they are foreground, 0 or 1. For every
    // row with foreground, from the first, labels.unite() is called for the labels that the row connects, and then
    // labels.add_row(y, row), which gives labels to runs without one (-1).
    template <typename Compare, typename Labels>
    void scan(const Compare& compare, Labels& labels) {
        above_.count = 0;
        const uint8_t* bytes = nullptr;
        for (int64_t y = 0, compared = 0; y < height_; ++y) {
            if (y == compared) {
                compared = std::min(y + rows_at_once_, height_);
                compare(y * width_, (compared - y) * width_, bytes_.data());
                bytes = bytes_.data();
            }
            pack(bytes, width_, row_.mask.data());
            bytes += width_;
            find_runs(row_);
            if (row_.count > 0) {
                if (above_.count > 0) join_rows(above_, row_, connectivity_, labels);
                labels.add_row(y, row_);
            }
            std::swap(above_, row_);
        }
    }

  private:
    int64_t height_, width_, connectivity_, rows_at_once_;
    Row above_, row_;
    std::vector<uint8_t> bytes_;
};

}  // namespace cxrfast

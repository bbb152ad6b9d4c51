// The weights of pac_conv2d and pac_crf in the order in which the tiles read them, and their gradients.
#pragma once

#include "cpu/pac_crf/dispatch.h"
#include "cpu/pac_crf/layout.h"

namespace cxrfast {
namespace {

// Matrices [taps, rows, columns], divided into tiles of columns, each [taps, rows, columns of the tile].
template <typename T>
class TiledMatrices {
  public:
    TiledMatrices() = default;
    TiledMatrices(int64_t taps, int64_t rows, int64_t columns)
        : taps_(taps), rows_(rows), columns_(columns), values_(taps * rows * columns) {}

    // value(tap, row, column)
    template <typename F>
    void fill(const F& value) {
        for_each_tile([&](int64_t first, int64_t width) {
            T* to = values_.data() + taps_ * rows_ * first;
            for (int64_t tap = 0; tap < taps_; ++tap) {
                for (int64_t r = 0; r < rows_; ++r) {
                    for (int64_t c = first; c < first + width; ++c) *to++ = value(tap, r, c);
                }
            }
        });
    }
    // Calls visit(first column, columns) for every tile.
    template <typename F>
    void for_each_tile(const F& visit) const {
        cxrfast::for_each_tile(columns_, tiles<T>().most_channels, visit);
    }
    const T* at(int64_t tap, int64_t first, int64_t width) const {
        return values_.data() + rows_ * (taps_ * first + tap * width);
    }
    int64_t rows() const { return rows_; }
    int64_t columns() const { return columns_; }

  private:
    int64_t taps_ = 0, rows_ = 0, columns_ = 0;
    std::vector<T> values_;
};

// The weights [O, C, k, k], or [1, 1, k, k] shared by all channels.
template <typename T>
struct Taps {
    bool shared;
    int64_t out, in;
    TiledMatrices<T> forward;                        // [tap][C, O]
    TiledMatrices<T> backward;                       // [tap][O, C], of the mirrored tap
    std::vector<T> shared_forward, shared_backward;  // [tap]

    Taps(const T* weight, int64_t out, int64_t in, bool shared, const Window& window)
        : shared(shared), out(out), in(in) {
        const int64_t taps = window.taps();
        if (shared) {
            shared_forward.assign(weight, weight + taps);
            shared_backward.assign(shared_forward.rbegin(), shared_forward.rend());
            return;
        }
        forward = TiledMatrices<T>(taps, in, out);
        backward = TiledMatrices<T>(taps, out, in);
        forward.fill([&](int64_t tap, int64_t c, int64_t o) { return weight[(o * in + c) * taps + tap]; });
        backward.fill(
            [&](int64_t tap, int64_t o, int64_t c) { return weight[(o * in + c) * taps + window.mirrored(tap)]; });
    }

    // Gradients are summed as [tap, C, O], or [tap] for shared weights.
    int64_t gradient_size(const Window& window) const { return window.taps() * (shared ? 1 : in * out); }

    // Writes such a sum to grad_weight [O, C, k, k] or [1, 1, k, k].
    void store_gradient(T* grad_weight, const std::vector<T>& sums, const Window& window) const {
        const int64_t taps = window.taps();
        if (shared) {
            std::copy(sums.begin(), sums.end(), grad_weight);
            return;
        }
        for (int64_t o = 0; o < out; ++o) {
            for (int64_t c = 0; c < in; ++c) {
                for (int64_t t = 0; t < taps; ++t) grad_weight[(o * in + c) * taps + t] = sums[(t * in + c) * out + o];
            }
        }
    }
};

// Sums to which several threads contribute one part each. The number of parts depends only on the shapes.
template <typename T>
class PartialSums {
  public:
    PartialSums() = default;
    PartialSums(int64_t size, const Layout& layout) : size_(size) {
        const int64_t affordable = kPartialBytes / (std::max<int64_t>(1, size) * sizeof(T));
        const int64_t most = std::clamp<int64_t>(affordable, 1, kMostPartials);
        parts_ = std::clamp<int64_t>(layout.rows() * layout.row_size() / kPartElements, 1,
                                     std::min(most, std::max<int64_t>(1, layout.rows())));
        values_.assign(parts_ * size, T(0));
    }
    int64_t parts() const { return parts_; }
    Range rows(int64_t part, const Layout& layout) const {
        return {layout.rows() * part / parts_, layout.rows() * (part + 1) / parts_};
    }
    T* part(int64_t part) { return values_.data() + part * size_; }
    std::vector<T> total() const {
        std::vector<T> sum(values_.begin(), values_.begin() + size_);
        for (int64_t part = 1; part < parts_; ++part) {
            for (int64_t i = 0; i < size_; ++i) sum[i] += values_[part * size_ + i];
        }
        return sum;
    }

  private:
    int64_t size_ = 0, parts_ = 1;
    std::vector<T> values_ = std::vector<T>(1);
};

}  // namespace
}  // namespace cxrfast

// What the pixel-adaptive filter works on, on the CPU: planes, the window over them, and the weights in loop order.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../math/pac_crf.h"
#include "pac_crf_loops.h"

namespace cxrfast {
namespace {

constexpr int64_t kBandPixels = 1024;         // a band of rows stays in the second-level cache
constexpr int64_t kChunkPixels = 4096;        // what is worth a thread
constexpr int64_t kMaxChunks = 16;            // of one image
constexpr int64_t kNarrow = 64;               // below this width, short rows would waste the vector unit
constexpr int64_t kAffinityBytes = 16 << 20;  // affinities (and their gradients) that are kept, per image in work
constexpr int64_t kPartialBytes = 32 << 20;   // partial weight gradients that are kept until they are summed

inline int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

// The channels of one image in the accumulation type, `pitch` apart. Starts as zeros.
template <typename T>
class Planes {
  public:
    Planes() = default;
    Planes(int64_t count, int64_t size) : pitch(pitch_of(size)), data_(count * pitch) {}
    static int64_t pitch_of(int64_t size) { return round_up(size, 16) + 16; }
    T* operator[](int64_t plane) { return data_.data() + plane * pitch; }
    const T* operator[](int64_t plane) const { return data_.data() + plane * pitch; }
    void zero() { std::fill(data_.begin(), data_.end(), T(0)); }
    double magnitude() const { return absolute_sum(data_.data(), data_.size()); }

    int64_t pitch = 0;

  private:
    std::vector<T> data_;
};

template <typename scalar_t, typename T>
void load(Planes<T>& planes,
          const scalar_t* source,  // [channels, size]
          int64_t channels,
          int64_t size) {
    for (int64_t c = 0; c < channels; ++c) {
        for (int64_t i = 0; i < size; ++i) planes[c][i] = static_cast<T>(source[c * size + i]);
    }
}

template <typename scalar_t, typename T>
void store(scalar_t* target,  // [channels, size]
           const Planes<T>& planes,
           int64_t channels,
           int64_t size) {
    for (int64_t c = 0; c < channels; ++c) {
        for (int64_t i = 0; i < size; ++i) target[c * size + i] = static_cast<scalar_t>(planes[c][i]);
    }
}

struct Rows {
    int64_t begin, end;
};

// The k x k dilated window sliding over an image.
struct Window {
    int64_t height, width, kernel, dilation;

    int64_t size() const { return height * width; }
    int64_t taps() const { return kernel * kernel; }
    int64_t centre() const { return taps() / 2; }
    int64_t mirrored(int64_t tap) const { return mirrored_tap(tap, kernel); }
    int64_t shift(int64_t tap) const {
        const Offset offset = window_offset(tap, kernel, dilation);
        return offset.dy * width + offset.dx;
    }

    // Work is cut by the shape alone, never by the number of threads, so that every sum has one order.
    int64_t chunks() const { return std::clamp<int64_t>(size() / kChunkPixels, 1, kMaxChunks); }

    // visit(chunk, rows) for bands of rows that together are the image; the chunks run in parallel.
    template <typename F>
    void for_each_band(int64_t chunks, const F& visit) const {
        const int64_t band = std::max<int64_t>(1, kBandPixels / std::max<int64_t>(width, 1));
        torch::stable::parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
            for (int64_t chunk = first; chunk < last; ++chunk) {
                const int64_t end = height * (chunk + 1) / chunks;
                for (int64_t row = height * chunk / chunks; row < end; row += band) {
                    visit(chunk, Rows{row, std::min(row + band, end)});
                }
            }
        });
    }

    // visit(first, n) for runs of pixels of `rows` whose neighbour `tap` lies inside the image. With `flat`, one run
    // from the first to the last of them: between rows it holds pixels whose neighbour's index is valid, but belongs to
    // another row. Their affinity is 0.
    template <typename F>
    void for_each_run(int64_t tap, Rows rows, bool flat, const F& visit) const {
        const Offset offset = window_offset(tap, kernel, dilation);
        const int64_t top = std::max(rows.begin, -offset.dy), bottom = std::min(rows.end, height - offset.dy);
        const int64_t left = std::max<int64_t>(0, -offset.dx), right = std::min(width, width - offset.dx);
        if (top >= bottom || left >= right) return;
        if (flat) {
            visit(top * width + left, (bottom - 1 - top) * width + right - left);
            return;
        }
        for (int64_t row = top; row < bottom; ++row) visit(row * width + left, right - left);
    }
};

// The weights [O, C, k, k], or [1, 1, k, k] for all channels alike, in the order of the loops.
template <typename T>
struct Taps {
    bool shared;
    int64_t out_channels, in_channels;  // even: padded with zeros
    int64_t padded_rows;                // of a gradient: in_channels as a multiple of 4
    std::vector<T> forward;             // [tap, O, C], or [tap]
    std::vector<T> backward;            // [tap, C, O] of the mirrored tap, or [tap]
    double magnitude = 0;

    Taps(const T* weight, int64_t out, int64_t in, bool shared, const Window& window)
        : shared(shared), out_channels(round_up(out, 2)), in_channels(round_up(in, 2)), padded_rows(round_up(in, 4)) {
        const int64_t taps = window.taps(), block = shared ? 1 : out_channels * in_channels;
        forward.resize(taps * block);
        backward.resize(taps * block);
        for (int64_t t = 0; t < taps; ++t) {
            const int64_t m = window.mirrored(t);
            if (shared) {
                forward[t] = backward[m] = weight[t];
                continue;
            }
            for (int64_t o = 0; o < out; ++o) {
                for (int64_t c = 0; c < in; ++c) {
                    const T w = weight[(o * in + c) * taps + t];
                    forward[t * block + o * in_channels + c] = w;
                    backward[m * block + c * out_channels + o] = w;
                }
            }
        }
        magnitude = absolute_sum(forward.data(), forward.size());
    }

    // A gradient is summed as [tap, padded_rows, out_channels] of the mirrored tap, or [tap].
    int64_t gradient_size(const Window& window) const {
        return window.taps() * (shared ? 1 : padded_rows * out_channels);
    }

    // Adds such a sum to grad_weight [O, C, k, k] (or [1, 1, k, k]).
    void add_gradient(T* grad_weight, const T* sums, int64_t out, int64_t in, const Window& window) const {
        const int64_t taps = window.taps();
        for (int64_t t = 0; t < taps; ++t) {
            const T* sum = sums + window.mirrored(t) * (shared ? 1 : padded_rows * out_channels);
            if (shared) {
                grad_weight[t] += *sum;
                continue;
            }
            for (int64_t o = 0; o < out; ++o) {
                for (int64_t c = 0; c < in; ++c) grad_weight[(o * in + c) * taps + t] += sum[c * out_channels + o];
            }
        }
    }
};

}  // namespace
}  // namespace cxrfast

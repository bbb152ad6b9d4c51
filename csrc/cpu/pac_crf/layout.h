// The layout of images in pac_conv2d and pac_crf on the CPU: the window, the planes, and the division of the work.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "math/pac_crf.h"

namespace cxrfast {
namespace {

constexpr int64_t kLanes = 16;                // images that are interleaved pixel by pixel, where this is faster
constexpr int64_t kMargin = 32;               // zeros between rows, in elements: at least the width of a tile's block
constexpr int64_t kWaveBytes = 96 << 20;      // limit for all planes of the images of a wave
constexpr int64_t kAffinityBytes = 16 << 20;  // for affinities (and their gradients), if they cannot all be stored
constexpr int64_t kPartialBytes = 8 << 20;    // for partial weight gradients before they are summed
constexpr int64_t kMostPartials = 16;
constexpr int64_t kPartElements = 4096;  // minimum size of a partial sum
constexpr int64_t kGrain = 1 << 15;      // minimum number of multiplications per thread

inline int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

// Calls body(first, last) for parts of [0, n); `work` is the cost of one item, in multiplications.
template <typename F>
void in_parallel(int64_t n, int64_t work, const F& body) {
    torch::stable::parallel_for(0, n, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work)), body);
}

// The k x k dilated window sliding over an image.
struct Window {
    int64_t height, width, kernel, dilation;

    int64_t size() const { return height * width; }
    int64_t taps() const { return kernel * kernel; }
    int64_t centre() const { return taps() / 2; }
    int64_t mirrored(int64_t tap) const { return mirrored_tap(tap, kernel); }
    Offset offset(int64_t tap) const { return window_offset(tap, kernel, dilation); }
};

// Rows of pixels. Each pixel has the `lanes` images of a group side by side. Zeros follow each row, so that neighbours
// left and right of an image read as 0. A wave is the groups that are processed together, one below the other.
struct Layout {
    Window window;
    int64_t lanes, groups;  // groups of a wave

    int64_t row_size() const { return window.width * lanes; }
    int64_t pitch() const { return round_up(row_size(), kMargin) + kMargin; }
    int64_t rows() const { return groups * window.height; }
    int64_t images() const { return groups * lanes; }
    // Whether the row dy rows below r belongs to the same image.
    bool has_row(int64_t r, int64_t dy) const {
        const int64_t y = r % window.height + dy;
        return y >= 0 && y < window.height;
    }
};

// Memory for numbers, not initialised.
template <typename T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(int64_t size)
        : data_(static_cast<T*>(std::aligned_alloc(64, round_up(std::max<int64_t>(1, size) * sizeof(T), 64)))) {
        if (!data_) throw std::bad_alloc();
    }
    T* data() const { return data_.get(); }

  private:
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T[], Free> data_;
};

// Channels of all rows, [rows, channels, pitch]. Margins and spare channels are 0; the rest is not initialised.
template <typename T>
class Planes {
  public:
    Planes() = default;
    Planes(const Layout& layout, int64_t channels, int64_t spare = 0)
        : pitch(layout.pitch()), stride((channels + spare) * pitch), buffer_(kMargin + layout.rows() * stride) {
        std::fill_n(buffer_.data(), kMargin, T(0));
        const int64_t filled = layout.row_size();
        in_parallel(layout.rows(), stride, [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r) {
                for (int64_t c = 0; c < channels; ++c) std::fill(row(r, c) + filled, row(r, c) + pitch, T(0));
                std::fill(row(r, channels), row(r, channels + spare), T(0));
            }
        });
    }
    T* row(int64_t r, int64_t channel = 0) const { return buffer_.data() + kMargin + r * stride + channel * pitch; }

    int64_t pitch = 0, stride = 0;  // between channels and between rows

  private:
    Buffer<T> buffer_;
};

// The location of the rows of an image tensor.
struct ImageRows {
    int64_t first_image, images;  // first image of the wave, number of images of the tensor
    int64_t channels;
};

// planes = source. Lanes without an image are 0.
template <typename scalar_t, typename T>
void load_row(const Planes<T>& planes,
              const scalar_t* source,  // [images, channels, H, W]
              const ImageRows& part,
              const Layout& layout,
              int64_t r) {
    const Window& window = layout.window;
    const int64_t first = part.first_image + r / window.height * layout.lanes, y = r % window.height;
    for (int64_t c = 0; c < part.channels; ++c) {
        T* to = planes.row(r, c);
        for (int64_t lane = 0; lane < layout.lanes; ++lane) {
            const int64_t image = first + lane;
            const scalar_t* from = source + ((image * part.channels + c) * window.height + y) * window.width;
            for (int64_t x = 0; x < window.width; ++x) {
                to[x * layout.lanes + lane] = image < part.images ? static_cast<T>(from[x]) : T(0);
            }
        }
    }
}

template <typename scalar_t, typename T>
void store_row(scalar_t* target,  // [images, channels, H, W]
               const Planes<T>& planes,
               const ImageRows& part,
               const Layout& layout,
               int64_t r) {
    const Window& window = layout.window;
    const int64_t first = part.first_image + r / window.height * layout.lanes, y = r % window.height;
    const int64_t lanes = std::min(layout.lanes, part.images - first);
    for (int64_t c = 0; c < part.channels; ++c) {
        const T* from = planes.row(r, c);
        for (int64_t lane = 0; lane < lanes; ++lane) {
            scalar_t* to = target + (((first + lane) * part.channels + c) * window.height + y) * window.width;
            for (int64_t x = 0; x < window.width; ++x) to[x] = static_cast<scalar_t>(from[x * layout.lanes + lane]);
        }
    }
}

// Sets lanes without an image to 0, so that they do not contribute to any sum.
template <typename T>
void clear_spare_lanes(const Planes<T>& planes, const ImageRows& part, const Layout& layout, int64_t r) {
    const int64_t first = part.first_image + r / layout.window.height * layout.lanes;
    for (int64_t lane = std::max<int64_t>(0, part.images - first); lane < layout.lanes; ++lane) {
        for (int64_t c = 0; c < part.channels; ++c) {
            for (int64_t x = 0; x < layout.window.width; ++x) planes.row(r, c)[x * layout.lanes + lane] = T(0);
        }
    }
}

// Taps of one row of the window, whose affinities are at a constant distance.
struct Segment {
    int64_t tap, taps;  // tap .. tap + taps - 1
    Offset offset;      // of the first
};

struct Range {
    int64_t begin, end;
};

// Those taps of a segment for which any of the elements [begin, end) of a row has a neighbour.
inline Range taps_inside(const Segment& segment, const Layout& layout, int64_t begin, int64_t end) {
    const int64_t step = layout.window.dilation * layout.lanes, start = segment.offset.dx * layout.lanes;
    end = std::min(end, layout.row_size());
    // begin + start + tap * step < row_size and end + start + tap * step > 0
    const int64_t low = end + start > 0 ? 0 : -(end + start) / step + 1;
    const int64_t left = layout.row_size() - begin - start;
    const int64_t high = left <= 0 ? 0 : (left + step - 1) / step;
    return {std::min(low, segment.taps), std::max(std::min(low, segment.taps), std::min(high, segment.taps))};
}

// The elements of a row that have a neighbour dx pixels to the right.
inline Range elements_inside(int64_t dx, const Layout& layout) {
    const int64_t begin = std::max<int64_t>(0, -dx) * layout.lanes;
    const int64_t end = layout.row_size() - std::max<int64_t>(0, dx) * layout.lanes;
    return begin < end ? Range{begin, end} : Range{0, 0};
}

// The division of `images` images into waves and groups. bytes(lanes) is the memory for one group.
template <typename F>
Layout layout_of(const Window& window, int64_t images, const F& bytes) {
    const int64_t interleaved = round_up(images, kLanes) * round_up(window.width * kLanes, kMargin) / kLanes;
    const bool pays = interleaved <= images * round_up(window.width, kMargin) && bytes(kLanes) <= kWaveBytes;
    const int64_t lanes = pays ? kLanes : 1, groups = (images + lanes - 1) / lanes;
    const int64_t affordable = kWaveBytes / std::max<int64_t>(1, bytes(lanes));
    return {window, lanes, std::clamp<int64_t>(affordable, 1, std::max<int64_t>(1, groups))};
}

}  // namespace
}  // namespace cxrfast

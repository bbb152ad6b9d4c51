// max_blur_pool2d on the CPU. Only rows of the map between maximum and blur exist, never the map. The backward finds
// the maxima again and gathers: a block of rows of x's gradient is one thread's, summed in one order, so it is
// deterministic.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "blur_pool.h"

namespace cxrfast {
namespace {

constexpr int64_t kBlock = 8;  // rows that share the maxima of the rows they have in common

struct Window {
    int64_t size, padding;
};

struct Range {
    int64_t begin, end;
};

// The positions x of the map whose window has its element `offset` inside the image, at x - padding + offset.
Range inside(int64_t offset, const Window& window, int64_t image_size, int64_t map_size) {
    return {std::max<int64_t>(0, window.padding - offset), std::min(map_size, image_size + window.padding - offset)};
}

// A plane is [height, width, inner]: `inner` is C in channels_last and 1 otherwise.
struct Geometry {
    int64_t planes, height, width, inner;
    Window window;

    int64_t map_height() const { return max_map_size(height, window.size, window.padding); }
    int64_t map_width() const { return max_map_size(width, window.size, window.padding); }
    int64_t row() const { return width * inner; }
    int64_t map_row() const { return map_width() * inner; }
};

template <typename scalar_t, typename acc_t>
CXRFAST_CPU_CLONES void take_maxima(acc_t* __restrict__ maxima, const scalar_t* __restrict__ x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const acc_t value = static_cast<acc_t>(x[i]);
        maxima[i] = replaces_maximum(value, maxima[i]) ? value : maxima[i];
    }
}

// Like `take_maxima`, and keeps which element of the window, `element`, is the maximum; -1 is none yet.
template <typename scalar_t, typename acc_t>
CXRFAST_CPU_CLONES void take_maxima_and_index(acc_t* __restrict__ maxima,
                                              int32_t* __restrict__ index,
                                              const scalar_t* __restrict__ x,
                                              int32_t element,
                                              int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const acc_t value = static_cast<acc_t>(x[i]);
        const bool replaces = replaces_maximum(value, maxima[i]) || index[i] < 0;
        maxima[i] = replaces ? value : maxima[i];
        index[i] = replaces ? element : index[i];
    }
}

template <typename acc_t>
CXRFAST_CPU_CLONES void add_where(acc_t* __restrict__ sum,
                                  const acc_t* __restrict__ x,
                                  const int32_t* __restrict__ index,
                                  int32_t element,
                                  int64_t n) {
    for (int64_t i = 0; i < n; ++i) sum[i] += index[i] == element ? x[i] : acc_t(0);
}

// Row y of the stride-1 maximum of a plane: down the columns into `columns` [width, inner], then along them.
template <typename scalar_t, typename acc_t>
void max_row(const scalar_t* plane, const Geometry& g, int64_t y, acc_t* columns, acc_t* maxima) {
    constexpr acc_t lowest = -std::numeric_limits<acc_t>::infinity();
    std::fill_n(columns, g.row(), lowest);
    std::fill_n(maxima, g.map_row(), lowest);
    for (int64_t dy = 0; dy < g.window.size; ++dy) {
        const int64_t source = y - g.window.padding + dy;
        if (source >= 0 && source < g.height) take_maxima(columns, plane + source * g.row(), g.row());
    }
    for (int64_t dx = 0; dx < g.window.size; ++dx) {
        const Range xs = inside(dx, g.window, g.width, g.map_width());
        const acc_t* from = columns + (xs.begin - g.window.padding + dx) * g.inner;
        take_maxima(maxima + xs.begin * g.inner, from, std::max<int64_t>(0, xs.end - xs.begin) * g.inner);
    }
}

// Row y of the index of each window's maximum: dy * size + dx of the first of them in raster order.
template <typename scalar_t, typename acc_t>
void argmax_row(const scalar_t* plane, const Geometry& g, int64_t y, acc_t* maxima, int32_t* index) {
    std::fill_n(maxima, g.map_row(), -std::numeric_limits<acc_t>::infinity());
    std::fill_n(index, g.map_row(), -1);
    for (int64_t dy = 0; dy < g.window.size; ++dy) {
        const int64_t source = y - g.window.padding + dy;
        if (source < 0 || source >= g.height) continue;
        for (int64_t dx = 0; dx < g.window.size; ++dx) {
            const Range xs = inside(dx, g.window, g.width, g.map_width());
            const scalar_t* from = plane + source * g.row() + (xs.begin - g.window.padding + dx) * g.inner;
            take_maxima_and_index(maxima + xs.begin * g.inner, index + xs.begin * g.inner, from,
                                  static_cast<int32_t>(dy * g.window.size + dx),
                                  std::max<int64_t>(0, xs.end - xs.begin) * g.inner);
        }
    }
}

// Calls body(plane, begin, end) for every block of at most kBlock of a plane's `rows` rows.
template <typename Body>
void for_each_block(int64_t planes, int64_t rows, int64_t row_length, const Body& body) {
    const int64_t blocks = (rows + kBlock - 1) / kBlock;
    const int64_t grain = std::max<int64_t>(1, 16384 / (kBlock * row_length + 1));
    torch::stable::parallel_for(0, planes * blocks, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t first = i % blocks * kBlock;
            body(i / blocks, first, std::min(rows, first + kBlock));
        }
    });
}

template <typename scalar_t>
void forward(const scalar_t* x,  // [planes, height, width, inner]
             scalar_t* out,      // [planes, |taps_y|, |taps_x|, inner]
             const Geometry& g,
             const Taps& taps_y,
             const Taps& taps_x) {
    using acc_t = accumulate_t<scalar_t>;
    const int64_t out_height = taps_y.size(), out_row = taps_x.size() * g.inner, map_row = g.map_row();
    const Taps uses = transposed(taps_y, g.map_height());
    for_each_block(g.planes, out_height, g.row(), [&](int64_t plane, int64_t begin, int64_t end) {
        std::vector<acc_t> columns(g.row()), maxima(map_row), blurred((end - begin) * map_row), pixel(g.inner);
        int64_t first = g.map_height(), last = -1;
        for (int64_t y = begin; y < end; ++y) {
            for (const Tap& tap : taps_y[y]) {
                first = std::min(first, tap.source);
                last = std::max(last, tap.source);
            }
        }
        for (int64_t y = first; y <= last; ++y) {
            max_row(x + plane * g.height * g.row(), g, y, columns.data(), maxima.data());
            for (const Tap& use : uses[y]) {
                if (use.source < begin || use.source >= end) continue;
                add_scaled(blurred.data() + (use.source - begin) * map_row, maxima.data(),
                           static_cast<acc_t>(use.weight), map_row);
            }
        }
        for (int64_t y = begin; y < end; ++y) {
            blur_row(blurred.data() + (y - begin) * map_row, out + (plane * out_height + y) * out_row, taps_x, pixel);
        }
    });
}

template <typename scalar_t>
void backward(const scalar_t* grad,  // [planes, |taps_y|, |taps_x|, inner], of the forward's taps
              const scalar_t* x,     // [planes, height, width, inner]
              scalar_t* grad_x,      // as x
              const Geometry& g,
              const Taps& taps_y,
              const Taps& taps_x) {
    using acc_t = accumulate_t<scalar_t>;
    const int64_t grad_height = taps_y.size(), grad_row = taps_x.size() * g.inner;
    const Taps back_y = transposed(taps_y, g.map_height()), back_x = transposed(taps_x, g.map_width());
    for_each_block(g.planes, g.height, g.row(), [&](int64_t plane, int64_t begin, int64_t end) {
        const scalar_t* source = x + plane * g.height * g.row();
        std::vector<acc_t> sums((end - begin) * g.row()), blurred(grad_row), map_grad(g.map_row()), maxima(g.map_row());
        std::vector<acc_t> pixel(g.inner);
        std::vector<int32_t> index(g.map_row());
        const int64_t first = std::max<int64_t>(0, begin + g.window.padding - g.window.size + 1);
        const int64_t last = std::min(g.map_height(), end + g.window.padding);
        for (int64_t y = first; y < last; ++y) {
            std::fill(blurred.begin(), blurred.end(), acc_t(0));
            for (const Tap& tap : back_y[y]) {
                add_scaled(blurred.data(), grad + (plane * grad_height + tap.source) * grad_row,
                           static_cast<acc_t>(tap.weight), grad_row);
            }
            blur_row(blurred.data(), map_grad.data(), back_x, pixel);
            argmax_row(source, g, y, maxima.data(), index.data());
            for (int64_t dy = 0; dy < g.window.size; ++dy) {
                const int64_t target = y - g.window.padding + dy;
                if (target < begin || target >= end) continue;
                for (int64_t dx = 0; dx < g.window.size; ++dx) {
                    const Range xs = inside(dx, g.window, g.width, g.map_width());
                    acc_t* to = sums.data() + (target - begin) * g.row() + (xs.begin - g.window.padding + dx) * g.inner;
                    add_where(to, map_grad.data() + xs.begin * g.inner, index.data() + xs.begin * g.inner,
                              static_cast<int32_t>(dy * g.window.size + dx),
                              std::max<int64_t>(0, xs.end - xs.begin) * g.inner);
                }
            }
        }
        scalar_t* out = grad_x + (plane * g.height + begin) * g.row();
        for (int64_t i = 0; i < static_cast<int64_t>(sums.size()); ++i) out[i] = static_cast<scalar_t>(sums[i]);
    });
}

Geometry geometry(const Tensor& x, bool channels_last, const Window& window) {
    return {channels_last ? x.size(0) : x.size(0) * x.size(1), x.size(2), x.size(3), channels_last ? x.size(1) : 1,
            window};
}

struct Axes {
    Taps y, x;
};

// Checks the options and returns the taps of the blur, which works on the map that the maximum leaves.
Axes checked_taps(const Tensor& x, const Window& window, int64_t filter_size, int64_t stride, int64_t padding_mode) {
    CXRFAST_CHECK(x.dim() == 4, "x must be [B, C, H, W]");
    CXRFAST_CHECK(window.size >= 1 && window.size < 32768, "kernel_size must be in 1..32767, got ", window.size);
    CXRFAST_CHECK(window.padding >= 0 && 2 * window.padding <= window.size,
                  "padding must be at most half of kernel_size, got ", window.padding);
    const int64_t height = max_map_size(x.size(2), window.size, window.padding);
    const int64_t width = max_map_size(x.size(3), window.size, window.padding);
    check_blur_options(height, width, filter_size, stride, padding_mode);
    const Padding padding = static_cast<Padding>(padding_mode);
    return {forward_taps(height, filter_size, stride, padding), forward_taps(width, filter_size, stride, padding)};
}

Tensor max_blur_pool2d(const Tensor& x,  // [B, C, H, W]
                       int64_t kernel_size,
                       int64_t filter_size,
                       int64_t stride,
                       int64_t padding_mode,
                       int64_t padding) {
    const Window window{kernel_size, padding};
    const Axes taps = checked_taps(x, window, filter_size, stride, padding_mode);
    const bool channels_last = is_channels_last(x);
    const Tensor source = channels_last ? x : torch::stable::contiguous(x);
    Tensor out = empty_image(x, x.size(0), x.size(1), taps.y.size(), taps.x.size(), channels_last);
    if (out.numel() == 0) return out;
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "max_blur_pool2d", [&] {
        forward(source.const_data_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>(), geometry(x, channels_last, window),
                taps.y, taps.x);
    });
    return out;
}

Tensor max_blur_pool2d_backward(const Tensor& grad,  // [B, C, H', W']
                                const Tensor& x,     // [B, C, H, W]
                                int64_t kernel_size,
                                int64_t filter_size,
                                int64_t stride,
                                int64_t padding_mode,
                                int64_t padding) {
    const Window window{kernel_size, padding};
    const Axes taps = checked_taps(x, window, filter_size, stride, padding_mode);
    CXRFAST_CHECK(grad.dim() == 4 && grad.scalar_type() == x.scalar_type() && grad.size(0) == x.size(0) &&
                      grad.size(1) == x.size(1) && grad.size(2) == static_cast<int64_t>(taps.y.size()) &&
                      grad.size(3) == static_cast<int64_t>(taps.x.size()),
                  "grad does not have max_blur_pool2d's output shape and dtype");
    using torch::headeronly::MemoryFormat;
    const bool channels_last = is_channels_last(x);
    const MemoryFormat format = channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
    const Tensor grads = torch::stable::contiguous(grad, format);
    const Tensor source = torch::stable::contiguous(x, format);
    Tensor grad_x = empty_image(x, x.size(0), x.size(1), x.size(2), x.size(3), channels_last);
    if (grad_x.numel() == 0) return grad_x;
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "_max_blur_pool2d_backward", [&] {
        backward(grads.const_data_ptr<scalar_t>(), source.const_data_ptr<scalar_t>(),
                 grad_x.mutable_data_ptr<scalar_t>(), geometry(x, channels_last, window), taps.y, taps.x);
    });
    return grad_x;
}

}  // namespace
}  // namespace cxrfast

STABLE_TORCH_LIBRARY_IMPL(cxrfast, CPU, m) {
    m.impl("max_blur_pool2d", TORCH_BOX(&cxrfast::max_blur_pool2d));
    m.impl("_max_blur_pool2d_backward", TORCH_BOX(&cxrfast::max_blur_pool2d_backward));
}

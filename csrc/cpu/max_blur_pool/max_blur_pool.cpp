// max_blur_pool2d on the CPU. The map between maximum and blur is never stored; only a few of its rows exist at a time.
// The backward recomputes the maxima and gathers: each row of the gradient of x is computed by one thread in a fixed
// order, so that it is deterministic.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "checks/max_blur_pool.h"
#include "cpu/blur_pool/lines.h"
#include "cpu/common/pages.h"
#include "cpu/max_blur_pool/window_maxima.h"

namespace cxrfast {
namespace {

struct Window {
    int64_t size, padding;
};

struct Range {
    int64_t begin, end;

    Range clamped(int64_t size) const { return {std::max<int64_t>(0, begin), std::min(size, end)}; }
};

// A plane is [height, width, inner]: `inner` is C in channels_last and 1 otherwise.
struct Geometry {
    int64_t planes, height, width, inner;
    Window window;

    int64_t map_height() const { return max_map_size(height, window.size, window.padding); }
    int64_t map_width() const { return max_map_size(width, window.size, window.padding); }
    int64_t row() const { return width * inner; }
    int64_t map_row() const { return map_width() * inner; }
    // Elements after a row that max_row may overwrite, so that it can process rows of the length of the image's.
    int64_t margin() const { return (window.size - 1 - window.padding) * inner; }

    // The elements of the image in the window at position `at` of the map, along one axis.
    Range window_at(int64_t at) const { return {at - window.padding, at - window.padding + window.size}; }
    // The positions of the map whose windows contain the element `at` of the image, along one axis.
    Range windows_of(int64_t at) const { return {at + window.padding - window.size + 1, at + window.padding + 1}; }
};

// Row y of the stride-1 maximum of a plane. With kIndex, also dy * size + dx of the first maximum of each window in
// raster order.
template <bool kIndex, typename scalar_t, typename acc_t>
void max_row(const scalar_t* plane,  // [height, width, inner]
             const Geometry& g,
             int64_t y,
             acc_t* maxima,          // [map_width, inner] and a margin
             index_t<acc_t>* index,  // [map_width, inner] and a margin, of -1
             std::vector<Element<scalar_t, acc_t>>& elements) {
    const Range ys = g.window_at(y).clamped(g.height);
    const int64_t padding = g.window.padding, map_width = g.map_width();
    // Positions x to `end`, whose windows contain the same columns relative to their left edges.
    const auto positions = [&](int64_t x, int64_t end) {
        const Range xs = g.window_at(x).clamped(g.width);
        elements.clear();
        for (int64_t row = ys.begin; row < ys.end; ++row) {
            for (int64_t column = xs.begin; column < xs.end; ++column) {
                const int64_t number = (row - y + padding) * g.window.size + column - x + padding;
                elements.push_back({plane + row * g.row() + column * g.inner, static_cast<index_t<acc_t>>(number)});
            }
        }
        take_maxima<kIndex>(maxima + x * g.inner, kIndex ? index + x * g.inner : nullptr, elements.data(),
                            elements.size(), (end - x) * g.inner);
    };
    const int64_t begin = std::min(padding, map_width), end = std::max(begin, map_width - padding);
    // If another row of the image follows, the width is a multiple of whole vectors.
    if (begin < end) positions(begin, g.inner == 1 && ys.end < g.height ? begin + g.width : end);
    for (int64_t x = begin > 0 ? 0 : end; x < map_width; x = x + 1 == begin ? end : x + 1) positions(x, x + 1);
    if (kIndex) std::fill_n(index + g.map_row(), g.margin(), -1);
}

// The last rows of the map that the blur of one line has requested.
template <typename scalar_t, typename acc_t>
struct MapRows {
    int64_t count, pitch, plane = -1, next = 0;
    std::vector<acc_t> rows;  // [count, pitch], row y at y % count
    std::vector<Element<scalar_t, acc_t>> elements;

    MapRows(const Geometry& g, const Axis& axis_y) : count(1), pitch(g.map_row() + g.margin()) {
        for (const Taps& taps : axis_y.taps) {
            const auto [lowest, highest] = std::minmax_element(taps.source, taps.source + taps.count);
            count = std::max(count, *highest - *lowest + 1);
        }
        rows.resize(count * pitch);
    }
};

// Lines [begin, end) of the lines of all output planes.
template <typename scalar_t, typename acc_t>
void forward(const scalar_t* x,  // [planes, height, width, inner]
             scalar_t* out,      // [planes, axis_y.size(), axis_x.size(), inner]
             const Geometry& g,
             const Axis& axis_y,
             const Axis& axis_x,
             int64_t begin,
             int64_t end,
             MapRows<scalar_t, acc_t>& map,
             Batch<acc_t>& batch) {
    const auto map_row = [&](int64_t line, int64_t y) {
        const Taps& taps = axis_y.taps[line % axis_y.size()];
        const int64_t lowest = *std::min_element(taps.source, taps.source + taps.count);
        const int64_t plane = line / axis_y.size();
        map.next = plane == map.plane ? std::max(map.next, lowest) : lowest;
        map.plane = plane;
        for (; map.next <= y; ++map.next) {
            max_row<false, scalar_t, acc_t>(x + plane * g.height * g.row(), g, map.next,
                                            map.rows.data() + map.next % map.count * map.pitch, nullptr, map.elements);
        }
        return static_cast<const acc_t*>(map.rows.data() + y % map.count * map.pitch);
    };
    const int64_t out_row = axis_x.size() * g.inner;
    blur_lines(map_row, map.pitch, out + begin * out_row, out_row, axis_y, axis_x, g.inner, begin, end, batch);
}

// The windows of consecutive rows of the map: the gradients of their maxima, and the positions of the maxima. Windows
// beyond the left and right edge of the map are in a margin and have no maximum.
template <typename scalar_t, typename acc_t>
struct WindowRows {
    int64_t margin, pitch, block, plane = -1, begin = 0, end = 0;  // the available rows of `plane`
    std::vector<acc_t> grad, maxima, sums;
    std::vector<index_t<acc_t>> index;
    std::vector<Element<scalar_t, acc_t>> elements;
    std::vector<Windows<acc_t>> windows;

    explicit WindowRows(const Geometry& g)
        : margin(g.margin()),
          pitch(g.map_row() + 2 * margin),
          block(std::clamp<int64_t>(16384 / g.row(), 2, 32)),
          grad(std::min(g.map_height(), block + g.window.size - 1) * pitch),
          maxima(g.map_row() + margin),
          sums(g.row()),
          index(grad.size(), -1) {}

    // Makes room for the rows [first, last) of a plane, and returns the first row that is not available yet.
    int64_t move_to(int64_t to_plane, int64_t first, int64_t last) {
        const bool overlaps = plane == to_plane && first >= begin && first < end;
        const int64_t kept = overlaps ? std::min(end, last) - first : 0;
        if (kept > 0) {
            std::copy_n(grad.begin() + (first - begin) * pitch, kept * pitch, grad.begin());
            std::copy_n(index.begin() + (first - begin) * pitch, kept * pitch, index.begin());
        }
        plane = to_plane;
        begin = first;
        end = last;
        return first + kept;
    }
};

// Row y of the gradient of x, from windows that are all available.
template <typename scalar_t, typename acc_t>
void gather_row(WindowRows<scalar_t, acc_t>& rows, const Geometry& g, int64_t y, scalar_t* out) {
    const Range ys = g.windows_of(y).clamped(g.map_height());
    rows.windows.clear();
    for (int64_t row = ys.begin; row < ys.end; ++row) {
        const int64_t dy = y - g.window_at(row).begin;
        for (int64_t dx = 0; dx < g.window.size; ++dx) {
            const int64_t from = (row - rows.begin) * rows.pitch + (g.window.size - 1 - dx) * g.inner;
            rows.windows.push_back({rows.grad.data() + from, rows.index.data() + from,
                                    static_cast<index_t<acc_t>>(dy * g.window.size + dx)});
        }
    }
    gather(rows.sums.data(), rows.windows.data(), rows.windows.size(), g.row());
    copy(out, rows.sums.data(), g.row());
}

// Rows [begin, end) of the rows of all planes of the gradient of x.
template <typename scalar_t, typename acc_t>
void backward(const scalar_t* grad,  // [planes, back_y.sources, back_x.sources, inner]
              const scalar_t* x,     // [planes, height, width, inner]
              scalar_t* grad_x,      // as x
              const Geometry& g,
              const Axis& back_y,
              const Axis& back_x,
              int64_t begin,
              int64_t end,
              WindowRows<scalar_t, acc_t>& rows,
              Batch<acc_t>& batch) {
    const int64_t grad_row = back_x.sources * g.inner, map_height = g.map_height();
    const auto source_row = [&](int64_t line, int64_t y) {
        return grad + (line / map_height * back_y.sources + y) * grad_row;
    };
    while (begin < end) {
        const int64_t plane = begin / g.height, y = begin % g.height;
        const int64_t block_end = std::min({g.height, y + rows.block, y + end - begin});
        const Range needed = Range{g.windows_of(y).begin, g.windows_of(block_end - 1).end}.clamped(map_height);
        const int64_t first = rows.move_to(plane, needed.begin, std::max(needed.begin, needed.end));
        if (first < rows.end) {
            acc_t* to = rows.grad.data() + (first - rows.begin) * rows.pitch + rows.margin;
            blur_lines(source_row, grad_row, to, rows.pitch, back_y, back_x, g.inner, plane * map_height + first,
                       plane * map_height + rows.end, batch);
        }
        for (int64_t row = first; row < rows.end; ++row) {
            max_row<true>(x + plane * g.height * g.row(), g, row, rows.maxima.data(),
                          rows.index.data() + (row - rows.begin) * rows.pitch + rows.margin, rows.elements);
        }
        for (int64_t row = y; row < block_end; ++row) {
            gather_row(rows, g, row, grad_x + (plane * g.height + row) * g.row());
        }
        begin += block_end - y;
    }
}

Geometry geometry(const Tensor& x, bool channels_last, const Window& window) {
    return {channels_last ? x.size(0) : x.size(0) * x.size(1), x.size(2), x.size(3), channels_last ? x.size(1) : 1,
            window};
}

// Minimum number of lines per thread.
int64_t grain(const Geometry& g) {
    return std::max<int64_t>(1, 16384 / (g.row() * std::min<int64_t>(g.window.size, 8)));
}

struct Axes {
    Axis y, x;
};

// Checks the options and returns the taps of the blur of the map that results from the maximum.
Axes checked_axes(const Tensor& x, const Window& window, int64_t filter_size, int64_t stride, int64_t padding_mode) {
    const MapSize map = checked_map_size(x, window.size, window.padding, filter_size, stride, padding_mode);
    const Padding padding = static_cast<Padding>(padding_mode);
    return {forward_axis(map.height, filter_size, stride, padding),
            forward_axis(map.width, filter_size, stride, padding)};
}

Tensor max_blur_pool2d(const Tensor& x,  // [B, C, H, W]
                       int64_t kernel_size,
                       int64_t filter_size,
                       int64_t stride,
                       int64_t padding_mode,
                       int64_t padding) {
    const Window window{kernel_size, padding};
    const Axes axes = checked_axes(x, window, filter_size, stride, padding_mode);
    const bool channels_last = is_channels_last(x);
    const Tensor source = channels_last ? x : torch::stable::contiguous(x);
    Tensor out = on_large_pages(empty_image(x, x.size(0), x.size(1), axes.y.size(), axes.x.size(), channels_last));
    if (out.numel() == 0) return out;
    const Geometry g = geometry(x, channels_last, window);
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "max_blur_pool2d", [&] {
        using acc_t = accumulate_t<scalar_t>;
        const scalar_t* from = source.const_data_ptr<scalar_t>();
        scalar_t* to = out.mutable_data_ptr<scalar_t>();
        torch::stable::parallel_for(0, g.planes * axes.y.size(), grain(g), [&](int64_t begin, int64_t end) {
            MapRows<scalar_t, acc_t> map(g, axes.y);
            Batch<acc_t> batch(axes.x, g.inner);
            forward(from, to, g, axes.y, axes.x, begin, end, map, batch);
        });
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
    const Axes axes = checked_axes(x, window, filter_size, stride, padding_mode);
    check_max_blur_grad(grad, x, axes.y.size(), axes.x.size());
    using torch::headeronly::MemoryFormat;
    const bool channels_last = is_channels_last(x);
    const MemoryFormat format = channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
    const Tensor grads = torch::stable::contiguous(grad, format);
    const Tensor source = torch::stable::contiguous(x, format);
    Tensor grad_x = on_large_pages(empty_image(x, x.size(0), x.size(1), x.size(2), x.size(3), channels_last));
    if (grad_x.numel() == 0) return grad_x;
    const Geometry g = geometry(x, channels_last, window);
    const Axis back_y = transposed(axes.y), back_x = transposed(axes.x);
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "_max_blur_pool2d_backward", [&] {
        using acc_t = accumulate_t<scalar_t>;
        const scalar_t* from = grads.const_data_ptr<scalar_t>();
        const scalar_t* maximised = source.const_data_ptr<scalar_t>();
        scalar_t* to = grad_x.mutable_data_ptr<scalar_t>();
        torch::stable::parallel_for(0, g.planes * g.height, grain(g), [&](int64_t begin, int64_t end) {
            WindowRows<scalar_t, acc_t> rows(g);
            Batch<acc_t> batch(back_x, g.inner);
            backward(from, maximised, to, g, back_y, back_x, begin, end, rows, batch);
        });
    });
    return grad_x;
}

}  // namespace
}  // namespace cxrfast

STABLE_TORCH_LIBRARY_IMPL(cxrfast, CPU, m) {
    m.impl("max_blur_pool2d", TORCH_BOX(&cxrfast::max_blur_pool2d));
    m.impl("_max_blur_pool2d_backward", TORCH_BOX(&cxrfast::max_blur_pool2d_backward));
}

// blur_pool2d on the CPU. The blur is separable and linear, so that forward and backward are the same sweep with two
// tables of taps, one per axis. The tables of the backward are transposed. All sums are gathered, so that the result is
// deterministic.
#include "cpu/blur_pool/lines.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <vector>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/tensor.h"
#include "cpu/common/pages.h"

namespace cxrfast {
namespace {

// target[p, y, x, :] = sum over taps of source[p, y', x', :], for lines [begin, end) of the lines of all planes.
// `inner` is C in channels_last and 1 otherwise.
template <typename scalar_t, typename acc_t>
void sweep(const scalar_t* source,  // [planes, axis_y.sources, axis_x.sources, inner]
           scalar_t* target,        // [planes, axis_y.size(), axis_x.size(), inner]
           const Axis& axis_y,
           const Axis& axis_x,
           int64_t inner,
           int64_t begin,
           int64_t end,
           Batch<acc_t>& batch) {
    const int64_t row = axis_x.sources * inner, target_row = axis_x.size() * inner;
    const auto source_row = [&](int64_t line, int64_t y) {
        return source + (line / axis_y.size() * axis_y.sources + y) * row;
    };
    blur_lines(source_row, row, target + begin * target_row, target_row, axis_y, axis_x, inner, begin, end, batch);
}

Tensor apply(const Tensor& x, const Axis& axis_y, const Axis& axis_x) {
    const bool channels_last = is_channels_last(x);
    const Tensor source = channels_last ? x : torch::stable::contiguous(x);
    Tensor target = on_large_pages(empty_image(x, x.size(0), x.size(1), axis_y.size(), axis_x.size(), channels_last));
    if (target.numel() == 0) return target;
    const int64_t planes = channels_last ? x.size(0) : x.size(0) * x.size(1);
    const int64_t inner = channels_last ? x.size(1) : 1;
    const int64_t grain = std::max<int64_t>(1, 16384 / (std::max(axis_x.sources, axis_x.size()) * inner));
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "blur_pool2d", [&] {
        const scalar_t* from = source.const_data_ptr<scalar_t>();
        scalar_t* to = target.mutable_data_ptr<scalar_t>();
        torch::stable::parallel_for(0, planes * axis_y.size(), grain, [&](int64_t begin, int64_t end) {
            Batch<accumulate_t<scalar_t>> batch(axis_x, inner);
            sweep(from, to, axis_y, axis_x, inner, begin, end, batch);
        });
    });
    return target;
}

Tensor blur_pool2d(const Tensor& x,  // [B, C, H, W]
                   int64_t filter_size,
                   int64_t stride,
                   int64_t padding_mode) {
    CXRFAST_CHECK(x.dim() == 4, "x must be [B, C, H, W]");
    check_blur_options(x.size(2), x.size(3), filter_size, stride, padding_mode);
    const Padding padding = static_cast<Padding>(padding_mode);
    return apply(x, forward_axis(x.size(2), filter_size, stride, padding),
                 forward_axis(x.size(3), filter_size, stride, padding));
}

Tensor blur_pool2d_backward(const Tensor& grad,  // [B, C, H', W']
                            int64_t height,
                            int64_t width,
                            int64_t filter_size,
                            int64_t stride,
                            int64_t padding_mode) {
    CXRFAST_CHECK(grad.dim() == 4, "grad must be [B, C, H', W']");
    check_blur_options(height, width, filter_size, stride, padding_mode);
    const Padding padding = static_cast<Padding>(padding_mode);
    const Axis axis_y = forward_axis(height, filter_size, stride, padding);
    const Axis axis_x = forward_axis(width, filter_size, stride, padding);
    CXRFAST_CHECK(grad.size(2) == axis_y.size() && grad.size(3) == axis_x.size(),
                  "grad does not have blur_pool2d's output size");
    return apply(grad, transposed(axis_y), transposed(axis_x));
}

}  // namespace
}  // namespace cxrfast

STABLE_TORCH_LIBRARY_IMPL(cxrfast, CPU, m) {
    m.impl("blur_pool2d", TORCH_BOX(&cxrfast::blur_pool2d));
    m.impl("_blur_pool2d_backward", TORCH_BOX(&cxrfast::blur_pool2d_backward));
}

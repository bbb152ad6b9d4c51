// blur_pool2d on the CPU. The blur is separable and linear, so forward and backward are the same sweep over two tables
// of taps, one per axis; the backward's are the forward's transposed. Nothing is scattered: the result is
// deterministic.
#include "blur_pool.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <vector>

#include "../common/check.h"
#include "../common/dispatch.h"
#include "../common/tensor.h"

namespace cxrfast {
namespace {

// target[p, y, x, :] = sum over taps of source[p, y', x', :]; `inner` is C in channels_last and 1 otherwise.
template <typename scalar_t>
void sweep(const scalar_t* source,  // [planes, source_height, source_width, inner]
           scalar_t* target,        // [planes, |taps_y|, |taps_x|, inner]
           const Taps& taps_y,
           const Taps& taps_x,
           int64_t planes,
           int64_t source_height,
           int64_t source_width,
           int64_t inner) {
    using acc_t = accumulate_t<scalar_t>;
    const int64_t height = taps_y.size(), width = taps_x.size(), row = source_width * inner;
    torch::stable::parallel_for(
        0, planes * height, std::max<int64_t>(1, 16384 / (row + 1)), [&](int64_t begin, int64_t end) {
            std::vector<acc_t> blurred(row), pixel(inner);
            for (int64_t line = begin; line < end; ++line) {
                const scalar_t* plane = source + line / height * source_height * row;
                std::fill(blurred.begin(), blurred.end(), acc_t(0));
                for (const Tap& tap : taps_y[line % height]) {
                    add_scaled(blurred.data(), plane + tap.source * row, static_cast<acc_t>(tap.weight), row);
                }
                blur_row(blurred.data(), target + line * width * inner, taps_x, pixel);
            }
        });
}

Tensor apply(const Tensor& x, const Taps& taps_y, const Taps& taps_x) {
    const bool channels_last = is_channels_last(x);
    const Tensor source = channels_last ? x : torch::stable::contiguous(x);
    Tensor target = empty_image(x, x.size(0), x.size(1), taps_y.size(), taps_x.size(), channels_last);
    const int64_t planes = channels_last ? x.size(0) : x.size(0) * x.size(1);
    const int64_t inner = channels_last ? x.size(1) : 1;
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "blur_pool2d", [&] {
        sweep(source.const_data_ptr<scalar_t>(), target.mutable_data_ptr<scalar_t>(), taps_y, taps_x, planes, x.size(2),
              x.size(3), inner);
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
    return apply(x, forward_taps(x.size(2), filter_size, stride, padding),
                 forward_taps(x.size(3), filter_size, stride, padding));
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
    const Taps taps_y = forward_taps(height, filter_size, stride, padding);
    const Taps taps_x = forward_taps(width, filter_size, stride, padding);
    CXRFAST_CHECK(
        grad.size(2) == static_cast<int64_t>(taps_y.size()) && grad.size(3) == static_cast<int64_t>(taps_x.size()),
        "grad does not have blur_pool2d's output size");
    return apply(grad, transposed(taps_y, height), transposed(taps_x, width));
}

}  // namespace
}  // namespace cxrfast

STABLE_TORCH_LIBRARY_IMPL(cxrfast, CPU, m) {
    m.impl("blur_pool2d", TORCH_BOX(&cxrfast::blur_pool2d));
    m.impl("_blur_pool2d_backward", TORCH_BOX(&cxrfast::blur_pool2d_backward));
}

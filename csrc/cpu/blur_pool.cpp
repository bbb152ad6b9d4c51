// blur_pool2d on the CPU. The blur is separable and linear, so forward and backward are the same sweep over two tables
// of taps, one per axis; the backward's are the forward's transposed. Nothing is scattered: the result is
// deterministic.
#include "../math/blur_pool.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <vector>

#include "../common/check.h"
#include "../common/dispatch.h"
#include "../common/tensor.h"

namespace cxrfast {
namespace {

struct Tap {
    int64_t source;
    double weight;
};
using Taps = std::vector<std::vector<Tap>>;  // [target] -> the sources that it is a sum of

Taps forward_taps(int64_t n, int64_t filter_size, int64_t stride, Padding padding) {
    Taps taps(blur_pool_output_size(n, stride));
    for (int64_t out = 0; out < static_cast<int64_t>(taps.size()); ++out) {
        for (int64_t t = 0; t < filter_size; ++t) {
            const int64_t source = padded_index(out * stride - padding_before(filter_size) + t, n, padding);
            if (source >= 0) taps[out].push_back({source, binomial_tap(filter_size, t)});
        }
    }
    return taps;
}

Taps transposed(const Taps& taps, int64_t n) {
    Taps result(n);
    for (int64_t out = 0; out < static_cast<int64_t>(taps.size()); ++out) {
        for (const Tap& tap : taps[out]) result[tap.source].push_back({out, tap.weight});
    }
    return result;
}

template <typename scalar_t, typename acc_t>
CXRFAST_CPU_CLONES void add_scaled(acc_t* __restrict__ sum, const scalar_t* __restrict__ x, acc_t weight, int64_t n) {
    for (int64_t i = 0; i < n; ++i) sum[i] += weight * static_cast<acc_t>(x[i]);
}

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
                scalar_t* out = target + line * width * inner;
                for (int64_t x = 0; x < width; ++x) {
                    std::fill(pixel.begin(), pixel.end(), acc_t(0));
                    for (const Tap& tap : taps_x[x]) {
                        const acc_t weight = static_cast<acc_t>(tap.weight);
                        const acc_t* from = blurred.data() + tap.source * inner;
                        for (int64_t c = 0; c < inner; ++c) pixel[c] += weight * from[c];
                    }
                    for (int64_t c = 0; c < inner; ++c) out[x * inner + c] = static_cast<scalar_t>(pixel[c]);
                }
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

void check_options(int64_t height, int64_t width, int64_t filter_size, int64_t stride, int64_t padding_mode) {
    CXRFAST_CHECK(filter_size >= 1 && filter_size <= kMaxFilterSize, "filter_size must be in 1..7, got ", filter_size);
    CXRFAST_CHECK(stride >= 1, "stride must be positive, got ", stride);
    CXRFAST_CHECK(padding_mode >= 0 && padding_mode <= 2, "unknown padding_mode ", padding_mode);
    const bool reflects = padding_mode == static_cast<int64_t>(Padding::kReflect);
    CXRFAST_CHECK(!reflects || (height > filter_size / 2 && width > filter_size / 2) || height * width == 0,
                  "reflect padding needs an image larger than filter_size / 2");
}

Tensor blur_pool2d(const Tensor& x,  // [B, C, H, W]
                   int64_t filter_size,
                   int64_t stride,
                   int64_t padding_mode) {
    CXRFAST_CHECK(x.dim() == 4, "x must be [B, C, H, W]");
    check_options(x.size(2), x.size(3), filter_size, stride, padding_mode);
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
    check_options(height, width, filter_size, stride, padding_mode);
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

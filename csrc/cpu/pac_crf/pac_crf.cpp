// pac_conv2d and pac_crf on the CPU, in waves of images whose rows are processed in parallel. Sums over images are
// divided into parts whose number depends only on the shapes, so that results do not depend on the number of threads.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "checks/pac_crf.h"
#include "common/check.h"
#include "common/dispatch.h"
#include "common/tensor.h"
#include "cpu/pac_crf/steps.h"

namespace cxrfast {
namespace {

// Calls visit(part, layout) for every wave of images.
template <typename F>
void for_each_wave(const Layout& layout, int64_t images, int64_t channels, const F& visit) {
    for (int64_t first = 0; first < images; first += layout.images()) {
        Layout wave = layout;
        wave.groups = std::min(layout.groups, (images - first + layout.lanes - 1) / layout.lanes);
        visit(ImageRows{first, images, channels}, wave);
    }
}

template <typename T, typename scalar_t>
std::vector<T> values(const Tensor& x) {  // contiguous
    const scalar_t* from = x.const_data_ptr<scalar_t>();
    return std::vector<T>(from, from + x.numel());
}

template <typename T, typename scalar_t>
void fill(Tensor& x, const std::vector<T>& from) {  // contiguous
    scalar_t* to = x.mutable_data_ptr<scalar_t>();
    for (size_t i = 0; i < from.size(); ++i) to[i] = static_cast<scalar_t>(from[i]);
}

Tensor empty_like_contiguous(const Tensor& x) {
    return torch::stable::new_empty(x, x.sizes());
}

// A dilation of at least the longer side of the image leaves only the centre tap. It is limited so that offsets do not
// overflow.
Window window_of(const Tensor& x, const Tensor& weight, int64_t dilation) {
    const int64_t longest = std::max<int64_t>({1, x.size(2), x.size(3)});
    return {x.size(2), x.size(3), weight.size(2), std::min(dilation, longest)};
}

// Memory for one group of images if all affinities are stored.
template <typename T>
int64_t conv_bytes(const Layout& layout, int64_t in, int64_t out, int64_t guides, bool with_gradients) {
    const int64_t planes = with_gradients ? 2 * in + out + 1 : in + out;
    const int64_t size = layout.window.height * layout.pitch() * planes;
    return (Affinities<T>::size(layout, guides, with_gradients) + size) * sizeof(T);
}

Tensor pac_conv2d(const Tensor& x,             // [B, C, H, W]
                  const Tensor& guide,         // [B, G, H, W]
                  const Tensor& weight,        // [O, C, k, k] or [1, 1, k, k]
                  std::optional<Tensor> bias,  // [O]
                  int64_t dilation) {
    check_pac_inputs(x, guide, weight, dilation);
    const bool shared = is_shared(weight);
    const int64_t images = x.size(0), in = x.size(1), out = shared ? in : weight.size(0), guides = guide.size(1);
    CXRFAST_CHECK(!bias || (bias->numel() == out && bias->scalar_type() == x.scalar_type()), "bias must be [O]");
    const Window window = window_of(x, weight, dilation);
    const Tensor x_ = torch::stable::contiguous(x), guide_ = torch::stable::contiguous(guide);
    const Tensor weight_ = torch::stable::contiguous(weight);
    Tensor result = torch::stable::new_empty(x, {images, out, window.height, window.width});
    if (result.numel() == 0) return result;
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "pac_conv2d", [&] {
        using T = accumulate_t<scalar_t>;
        const Taps<T> taps(values<T, scalar_t>(weight_).data(), out, in, shared, window);
        std::vector<T> offset(out);
        if (bias) offset = values<T, scalar_t>(torch::stable::contiguous(*bias));
        const auto bytes = [&](int64_t lanes) { return conv_bytes<T>({window, lanes, 1}, in, out, guides, false); };
        const Layout layout = layout_of(window, images, bytes);
        PixelAdaptiveFilter<T> filter(layout, guides, bytes(layout.lanes) <= kWaveBytes, false);
        const Planes<T> source(layout, in), target(layout, out);
        const scalar_t *from = x_.const_data_ptr<scalar_t>(), *guide_from = guide_.const_data_ptr<scalar_t>();
        scalar_t* to = result.mutable_data_ptr<scalar_t>();
        for_each_wave(layout, images, in, [&](const ImageRows& part, const Layout& wave) {
            filter.begin_wave(guide_from, {part.first_image, images, guides}, wave);
            in_parallel(wave.rows(), source.stride, [&](int64_t first, int64_t last) {
                for (int64_t r = first; r < last; ++r) {
                    load_row(source, from, part, wave, r);
                    for (int64_t o = 0; o < out; ++o) std::fill_n(target.row(r, o), target.pitch, offset[o]);
                }
            });
            filter.apply(taps, source, target,
                         [&](int64_t r) { store_row(to, target, {part.first_image, images, out}, wave, r); });
        });
    });
    return result;
}

std::tuple<Tensor, Tensor, Tensor> pac_conv2d_backward(const Tensor& grad,    // [B, O, H, W]
                                                       const Tensor& x,       // [B, C, H, W]
                                                       const Tensor& guide,   // [B, G, H, W]
                                                       const Tensor& weight,  // [O, C, k, k] or [1, 1, k, k]
                                                       int64_t dilation) {
    check_pac_inputs(x, guide, weight, dilation);
    const bool shared = is_shared(weight);
    const int64_t images = x.size(0), in = x.size(1), out = shared ? in : weight.size(0), guides = guide.size(1);
    const Window window = window_of(x, weight, dilation);
    CXRFAST_CHECK(grad.dim() == 4 && grad.numel() == images * out * window.size(), "grad must be [B, O, H, W]");
    CXRFAST_CHECK(grad.scalar_type() == x.scalar_type(), "grad must have x's dtype");
    const Tensor grad_ = torch::stable::contiguous(grad), x_ = torch::stable::contiguous(x);
    const Tensor guide_ = torch::stable::contiguous(guide), weight_ = torch::stable::contiguous(weight);
    Tensor grad_x = empty_like_contiguous(x), grad_guide = empty_like_contiguous(guide);
    Tensor grad_weight = empty_like_contiguous(weight);
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "pac_conv2d_backward", [&] {
        using T = accumulate_t<scalar_t>;
        const Taps<T> taps(values<T, scalar_t>(weight_).data(), out, in, shared, window);
        const auto bytes = [&](int64_t lanes) { return conv_bytes<T>({window, lanes, 1}, in, out, guides, true); };
        const Layout layout = layout_of(window, images, bytes);
        const scalar_t *grad_from = grad_.const_data_ptr<scalar_t>(), *from = x_.const_data_ptr<scalar_t>();
        const scalar_t* guide_from = guide_.const_data_ptr<scalar_t>();
        scalar_t *to = grad_x.mutable_data_ptr<scalar_t>(), *guide_to = grad_guide.mutable_data_ptr<scalar_t>();
        PartialSums<T> sums(taps.gradient_size(window), layout);
        if (images * window.size() > 0) {
            PixelAdaptiveFilter<T> filter(layout, guides, bytes(layout.lanes) <= kWaveBytes, true);
            const Planes<T> source(layout, in, in % 2), grad_source(layout, in), grad_target(layout, out);
            for_each_wave(layout, images, in, [&](const ImageRows& part, const Layout& wave) {
                const ImageRows out_part{part.first_image, images, out}, guide_part{part.first_image, images, guides};
                filter.begin_wave(guide_from, guide_part, wave);
                filter.begin_gradients();
                in_parallel(wave.rows(), source.stride, [&](int64_t first, int64_t last) {
                    for (int64_t r = first; r < last; ++r) {
                        load_row(source, from, part, wave, r);
                        load_row(grad_target, grad_from, out_part, wave, r);
                        std::fill_n(grad_source.row(r), in * grad_source.pitch, T(0));
                    }
                });
                filter.apply_backward(taps, source, grad_target, grad_source, sums);
                in_parallel(wave.rows(), source.stride, [&](int64_t first, int64_t last) {
                    for (int64_t r = first; r < last; ++r) store_row(to, grad_source, part, wave, r);
                });
                filter.end_gradients(taps, sums, guide_to, guide_part);
            });
        }
        std::vector<T> total(weight.numel());
        taps.store_gradient(total.data(), sums.total(), window);
        fill<T, scalar_t>(grad_weight, total);
    });
    return {grad_x, grad_guide, grad_weight};
}

// The compatibility [K, K] (or the identity) multiplied into weight [K, K, k, k].
template <typename T>
std::vector<T> folded(const std::vector<T>& compatibility, const std::vector<T>& weight, int64_t labels) {
    if (compatibility.empty()) return weight;
    const int64_t row = weight.size() / labels;
    std::vector<T> result(weight.size());
    for (int64_t m = 0; m < labels; ++m) {
        for (int64_t o = 0; o < labels; ++o) {
            combine(&result[m * row], T(1), &weight[o * row], compatibility[m * labels + o], row);
        }
    }
    return result;
}

// Converts the gradient of folded() to those of its operands.
template <typename T>
void folded_backward(std::vector<T>& grad,  // [K, K, k, k], replaced by that of the weight
                     std::vector<T>& grad_compatibility,
                     const std::vector<T>& compatibility,
                     const std::vector<T>& weight,
                     int64_t labels) {
    const int64_t row = weight.size() / labels;
    std::vector<T> grad_weight(weight.size());
    for (int64_t m = 0; m < labels; ++m) {
        for (int64_t o = 0; o < labels; ++o) {
            combine(&grad_weight[o * row], T(1), &grad[m * row], compatibility[m * labels + o], row);
            grad_compatibility[m * labels + o] = inner_product(&grad[m * row], &weight[o * row], row);
        }
    }
    grad = grad_weight;
}

template <typename T>
MeanField<T> mean_field(const Window& window,
                        int64_t labels,
                        bool shared,
                        const std::vector<T>& weight,
                        const std::vector<T>& compatibility,
                        T unary_weight,
                        int64_t steps,
                        int64_t activation) {
    const bool mixes = shared && !compatibility.empty();
    const std::vector<T> taps = shared ? weight : folded(compatibility, weight, labels);
    TiledMatrices<T> matrix, transposed;
    if (mixes) {
        matrix = transposed = TiledMatrices<T>(1, labels, labels);
        matrix.fill([&](int64_t, int64_t from, int64_t to) { return compatibility[to * labels + from]; });
        transposed.fill([&](int64_t, int64_t from, int64_t to) { return compatibility[from * labels + to]; });
    }
    return {window,
            labels,
            steps,
            unary_weight,
            static_cast<Activation>(activation),
            Taps<T>(taps.data(), labels, labels, shared, window),
            mixes,
            matrix,
            transposed};
}

template <typename T>
auto crf_bytes(const MeanField<T>& field, int64_t guides, bool with_gradients) {
    return [&field, guides, with_gradients](int64_t lanes) {
        return sizeof(T) * MeanFieldWave<T>::size({field.window, lanes, 1}, field.labels, field.steps, field.mixes,
                                                  guides, with_gradients);
    };
}

Tensor pac_crf(const Tensor& unary,                  // [B, K, H, W]
               const Tensor& guide,                  // [B, G, H, W]
               const Tensor& weight,                 // [K, K, k, k] or [1, 1, k, k]
               std::optional<Tensor> compatibility,  // [K, K]
               const Tensor& unary_weight,           // [], float32 or float64
               int64_t steps,
               int64_t dilation,
               int64_t activation) {
    check_pac_inputs(unary, guide, weight, dilation);
    check_pac_crf(unary, weight, compatibility, unary_weight, steps, activation);
    const int64_t images = unary.size(0), labels = unary.size(1), guides = guide.size(1);
    const Window window = window_of(unary, weight, dilation);
    const Tensor unary_ = torch::stable::contiguous(unary), guide_ = torch::stable::contiguous(guide);
    const Tensor weight_ = torch::stable::contiguous(weight);
    Tensor result = empty_like_contiguous(unary);
    if (result.numel() == 0) return result;
    CXRFAST_DISPATCH_FLOATING(unary.scalar_type(), "pac_crf", [&] {
        using T = accumulate_t<scalar_t>;
        std::vector<T> mixing;
        if (compatibility) mixing = values<T, scalar_t>(torch::stable::contiguous(*compatibility));
        const MeanField<T> field = mean_field(window, labels, is_shared(weight), values<T, scalar_t>(weight_), mixing,
                                              unary_weight.const_data_ptr<T>()[0], steps, activation);
        const auto bytes = crf_bytes(field, guides, false);
        const Layout layout = layout_of(window, images, bytes);
        MeanFieldWave<T> work(field, layout, guides, bytes(layout.lanes) <= kWaveBytes, false);
        for_each_wave(layout, images, labels, [&](const ImageRows& part, const Layout& wave) {
            work.forward(unary_.const_data_ptr<scalar_t>(), guide_.const_data_ptr<scalar_t>(),
                         result.mutable_data_ptr<scalar_t>(), part, wave);
        });
    });
    return result;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> pac_crf_backward(const Tensor& grad,    // [B, K, H, W]
                                                                    const Tensor& unary,   // [B, K, H, W]
                                                                    const Tensor& guide,   // [B, G, H, W]
                                                                    const Tensor& weight,  // [K, K, k, k], [1, 1, k, k]
                                                                    std::optional<Tensor> compatibility,  // [K, K]
                                                                    const Tensor& unary_weight,           // []
                                                                    int64_t steps,
                                                                    int64_t dilation,
                                                                    int64_t activation) {
    check_pac_inputs(unary, guide, weight, dilation);
    check_pac_crf(unary, weight, compatibility, unary_weight, steps, activation);
    CXRFAST_CHECK(grad.dim() == 4 && grad.numel() == unary.numel(), "grad must have unary's shape");
    CXRFAST_CHECK(grad.scalar_type() == unary.scalar_type(), "grad must have unary's dtype");
    const int64_t images = unary.size(0), labels = unary.size(1), guides = guide.size(1);
    const bool shared = is_shared(weight);
    const Window window = window_of(unary, weight, dilation);
    const Tensor grad_ = torch::stable::contiguous(grad), unary_ = torch::stable::contiguous(unary);
    const Tensor guide_ = torch::stable::contiguous(guide), weight_ = torch::stable::contiguous(weight);
    Tensor grad_unary = empty_like_contiguous(unary), grad_guide = empty_like_contiguous(guide);
    Tensor grad_weight = empty_like_contiguous(weight), grad_unary_weight = empty_like_contiguous(unary_weight);
    Tensor grad_compatibility = compatibility ? empty_like_contiguous(*compatibility)  //
                                              : torch::stable::new_empty(unary, {0});
    CXRFAST_DISPATCH_FLOATING(unary.scalar_type(), "pac_crf_backward", [&] {
        using T = accumulate_t<scalar_t>;
        const std::vector<T> filter_weight = values<T, scalar_t>(weight_);
        std::vector<T> mixing;
        if (compatibility) mixing = values<T, scalar_t>(torch::stable::contiguous(*compatibility));
        const MeanField<T> field = mean_field(window, labels, shared, filter_weight, mixing,
                                              unary_weight.const_data_ptr<T>()[0], steps, activation);
        const auto bytes = crf_bytes(field, guides, true);
        const Layout layout = layout_of(window, images, bytes);
        MeanFieldGradients<T> sums(field, layout);
        if (images * window.size() > 0) {
            MeanFieldWave<T> work(field, layout, guides, bytes(layout.lanes) <= kWaveBytes, true);
            for_each_wave(layout, images, labels, [&](const ImageRows& part, const Layout& wave) {
                work.backward(grad_.const_data_ptr<scalar_t>(), unary_.const_data_ptr<scalar_t>(),
                              guide_.const_data_ptr<scalar_t>(), grad_unary.mutable_data_ptr<scalar_t>(),
                              grad_guide.mutable_data_ptr<scalar_t>(), sums, part, wave);
            });
        }
        std::vector<T> weight_sum(weight.numel()), mixing_sum(mixing.size());
        field.taps.store_gradient(weight_sum.data(), sums.taps.total(), window);
        if (field.mixes) {
            const std::vector<T> products = sums.compatibility.total();
            for (int64_t i = 0; i < labels * labels; ++i) mixing_sum[i] = products[i % labels * labels + i / labels];
        } else if (!mixing.empty()) {
            folded_backward(weight_sum, mixing_sum, mixing, filter_weight, labels);
        }
        fill<T, scalar_t>(grad_weight, weight_sum);
        fill<T, scalar_t>(grad_compatibility, mixing_sum);
        grad_unary_weight.mutable_data_ptr<T>()[0] = sums.unary_weight;
    });
    return {grad_unary, grad_guide, grad_weight, grad_compatibility, grad_unary_weight};
}

}  // namespace
}  // namespace cxrfast

STABLE_TORCH_LIBRARY_IMPL(cxrfast, CPU, m) {
    m.impl("pac_conv2d", TORCH_BOX(&cxrfast::pac_conv2d));
    m.impl("_pac_conv2d_backward", TORCH_BOX(&cxrfast::pac_conv2d_backward));
    m.impl("pac_crf", TORCH_BOX(&cxrfast::pac_crf));
    m.impl("_pac_crf_backward", TORCH_BOX(&cxrfast::pac_crf_backward));
}

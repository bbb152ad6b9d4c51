// pac_conv2d and pac_crf on CUDA. Half-precision tensors are widened on entry and rounded on exit; kernels use float
// and double. All sums have a fixed order, which depends only on the shapes.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "checks/pac_crf.h"
#include "cuda/pac_crf/mean_field.h"

namespace cxrfast {
namespace {

Tensor zeros_like(const Tensor& x) {
    return torch::stable::new_zeros(x, x.sizes());
}

// The dispatcher accepts tensors on other devices if one tensor is on this one.
template <typename... Tensors>
void check_devices(const Tensor& x, const Tensors&... others) {
    CXRFAST_CHECK(((others.device() == x.device()) && ...), "all tensors must be on one device");
}

Tensor narrowed(const Tensor& x, ScalarType type) {
    return torch::stable::to(x, type);
}

template <typename T>
void conv(const Tensor& x,
          const Tensor& guide,
          const Tensor& weight,
          const std::optional<Tensor>& bias,
          int64_t dilation,
          Tensor& result) {
    const ScalarType wide = accumulate_type(x.scalar_type());
    const int64_t out = result.size(1), together = images_together<T>(x, weight, dilation, false);
    const Tensor bias_ = bias ? widened(*bias) : Tensor();
    FilterShape<T> shape{};
    shape.shared = is_shared(weight);
    shape.forward = arrange<T>(widened(weight), window_of(x, weight, dilation, 1), shape.shared, false);
    for_each_images(x.size(0), together, [&](Images images) {
        const Window window = window_of(x, weight, dilation, images.count);
        PixelAdaptiveFilter<T> filter(shape, window, load_planes(guide, images, wide), false);
        const Tensor planes = load_planes(x, images, wide);
        const SplitSums<T> sums = filter.apply(planes.const_data_ptr<T>(), static_cast<int>(out));
        Tensor sum = torch::stable::new_empty(planes, {out, window.size()});
        launch_sum(sums, out, window.size(), bias ? bias_.const_data_ptr<T>() : nullptr, sum.mutable_data_ptr<T>(), x);
        store_planes(result, sum, images);
    });
}

Tensor pac_conv2d(const Tensor& x,             // [B, C, H, W]
                  const Tensor& guide,         // [B, G, H, W]
                  const Tensor& weight,        // [O, C, k, k] or [1, 1, k, k]
                  std::optional<Tensor> bias,  // [O]
                  int64_t dilation) {
    check_pac_inputs(x, guide, weight, dilation);
    check_devices(x, guide, weight, bias.value_or(x));
    const int64_t out = is_shared(weight) ? x.size(1) : weight.size(0);
    CXRFAST_CHECK(!bias || (bias->numel() == out && bias->scalar_type() == x.scalar_type()), "bias must be [O]");
    const DeviceGuard guard(x);
    Tensor result = torch::stable::new_empty(x, {x.size(0), out, x.size(2), x.size(3)});
    if (result.numel() == 0) return result;
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "pac_conv2d",
                              [&] { conv<accumulate_t<scalar_t>>(x, guide, weight, bias, dilation, result); });
    return result;
}

template <typename T>
void conv_backward(const Tensor& grad,
                   const Tensor& x,
                   const Tensor& guide,
                   const Tensor& weight,
                   int64_t dilation,
                   Tensor& grad_x,
                   Tensor& grad_guide,
                   Tensor& grad_weight) {  // in T, zeros
    const ScalarType wide = accumulate_type(x.scalar_type());
    const int64_t channels = x.size(1), together = images_together<T>(x, weight, dilation, true);
    FilterShape<T> shape{};
    shape.shared = is_shared(weight);
    shape.backward = arrange<T>(widened(weight), window_of(x, weight, dilation, 1), shape.shared, true);
    for_each_images(x.size(0), together, [&](Images images) {
        const Window window = window_of(x, weight, dilation, images.count);
        PixelAdaptiveFilter<T> filter(shape, window, load_planes(guide, images, wide), true);
        const Tensor planes = load_planes(x, images, wide), grad_planes = load_planes(grad, images, wide);
        const T *in = planes.const_data_ptr<T>(), *out = grad_planes.const_data_ptr<T>();
        const SplitSums<T> sums = filter.apply_backward(in, out, static_cast<int>(channels), grad_weight);
        Tensor sum = torch::stable::new_empty(planes, {channels, window.size()});
        launch_sum<T>(sums, channels, window.size(), nullptr, sum.mutable_data_ptr<T>(), x);
        store_planes(grad_x, sum, images);
        store_planes(grad_guide, filter.finish(1, in, out, grad_weight), images);
    });
}

std::tuple<Tensor, Tensor, Tensor> pac_conv2d_backward(const Tensor& grad,    // [B, O, H, W]
                                                       const Tensor& x,       // [B, C, H, W]
                                                       const Tensor& guide,   // [B, G, H, W]
                                                       const Tensor& weight,  // [O, C, k, k] or [1, 1, k, k]
                                                       int64_t dilation) {
    check_pac_inputs(x, guide, weight, dilation);
    check_devices(x, grad, guide, weight);
    const int64_t out = is_shared(weight) ? x.size(1) : weight.size(0);
    CXRFAST_CHECK(grad.dim() == 4 && grad.size(0) == x.size(0) && grad.size(1) == out && grad.size(2) == x.size(2) &&
                      grad.size(3) == x.size(3),
                  "grad must be [B, O, H, W]");
    CXRFAST_CHECK(grad.scalar_type() == x.scalar_type(), "grad must have x's dtype");
    const DeviceGuard guard(x);
    Tensor grad_x = zeros_like(x), grad_guide = zeros_like(guide);
    Tensor grad_weight = torch::stable::new_zeros(weight, weight.sizes(), accumulate_type(weight.scalar_type()));
    if (grad.numel() > 0 && x.numel() > 0) {
        CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "pac_conv2d_backward", [&] {
            conv_backward<accumulate_t<scalar_t>>(grad, x, guide, weight, dilation, grad_x, grad_guide, grad_weight);
        });
    }
    return {grad_x, grad_guide, narrowed(grad_weight, weight.scalar_type())};
}

// The inputs of pac_crf that all images share, in T, and values derived from them.
template <typename T>
struct CrfParameters {
    Tensor weight, unary_weight;
    std::optional<Tensor> compatibility;  // [K, K, 1, 1]
    MeanField<T> field;

    CrfParameters(const Tensor& unary,
                  const Tensor& weight_,
                  const std::optional<Tensor>& compatibility_,
                  const Tensor& unary_weight_,
                  int64_t steps,
                  int64_t dilation,
                  int64_t activation,
                  bool with_gradients)
        : weight(widened(weight_)), unary_weight(torch::stable::contiguous(unary_weight_)) {
        const int64_t labels = unary.size(1);
        const bool shared = is_shared(weight);
        const Window window = window_of(unary, weight, dilation, 1);
        if (compatibility_) compatibility = torch::stable::view(widened(*compatibility_), {labels, labels, 1, 1});
        field = {};
        field.apart = shared && compatibility;
        field.labels = static_cast<int>(labels);
        field.steps = static_cast<int>(steps);
        field.activation = static_cast<Activation>(activation);
        field.unary_weight = unary_weight.template const_data_ptr<T>();
        const Tensor taps = is_folded() ? folded(false, weight) : weight;
        field.filter.forward = arrange<T>(taps, window, shared, false);
        if (with_gradients) field.filter.backward = arrange<T>(taps, window, shared, true);
        field.filter.shared = shared;
        field.filter.sign = -1;
        if (field.apart) {
            const Window point = point_window(1, 1);
            field.mixing = arrange<T>(*compatibility, point, false, false);
            field.mixing_transposed = arrange<T>(*compatibility, point, false, true);
        }
    }

    // A filter commutes with the compatibility; a full filter contains it in its weights.
    bool is_folded() const { return compatibility && !field.apart; }

    // The compatibility (or its transpose) times x [K, K, k, k].
    Tensor folded(bool transposed, const Tensor& x) const {
        const FilterWeight<T> matrix = arrange<T>(*compatibility, point_window(1, 1), false, transposed);
        const int64_t kernel = x.size(2);
        const SplitSums<T> result = mix<T>(matrix, field.labels, kernel * kernel, x.template const_data_ptr<T>());
        return torch::stable::view(result.sums, x.sizes());
    }

    // Converts the gradients of the folded weights to those of the weights and the compatibility.
    void unfold_gradients(MeanFieldGradients& sums) const {
        const int64_t kernel = weight.size(2);
        mix_gradient<T>(field.labels, kernel * kernel, 1, sums.weight.template const_data_ptr<T>(),
                        weight.template const_data_ptr<T>(), T(1), sums.compatibility);
        sums.weight = folded(true, sums.weight);
    }
};

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
    check_devices(unary, guide, weight, compatibility.value_or(unary), unary_weight);
    const DeviceGuard guard(unary);
    Tensor result = torch::stable::new_empty(unary, unary.sizes());
    if (result.numel() == 0) return result;
    if (steps == 0) return torch::stable::copy_(result, unary);
    CXRFAST_DISPATCH_FLOATING(unary.scalar_type(), "pac_crf", [&] {
        using T = accumulate_t<scalar_t>;
        const ScalarType wide = accumulate_type(unary.scalar_type());
        const CrfParameters<T> parameters(unary, weight, compatibility, unary_weight, steps, dilation, activation,
                                          false);
        for_each_images(unary.size(0), images_together<T>(unary, weight, dilation, false), [&](Images images) {
            MeanFieldImages<T> field(parameters.field, window_of(unary, weight, dilation, images.count),
                                     load_planes(unary, images, wide), load_planes(guide, images, wide), false);
            store_planes(result, field.forward(), images);
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
    check_devices(unary, grad, guide, weight, compatibility.value_or(unary), unary_weight);
    CXRFAST_CHECK(grad.dim() == 4 && grad.size(0) == unary.size(0) && grad.size(1) == unary.size(1) &&
                      grad.size(2) == unary.size(2) && grad.size(3) == unary.size(3),
                  "grad must have unary's shape");
    CXRFAST_CHECK(grad.scalar_type() == unary.scalar_type(), "grad must have unary's dtype");
    const DeviceGuard guard(unary);
    const ScalarType type = unary.scalar_type(), wide = accumulate_type(type);
    const int64_t labels = compatibility ? unary.size(1) : 0;
    Tensor grad_unary = zeros_like(unary), grad_guide = zeros_like(guide);
    MeanFieldGradients sums{torch::stable::new_zeros(weight, weight.sizes(), wide),
                            torch::stable::new_zeros(unary, {labels, labels, 1, 1}, wide),
                            torch::stable::new_zeros(unary, {1, 1, 1, 1}, wide)};
    if (steps == 0) torch::stable::copy_(grad_unary, grad);
    if (steps > 0 && unary.numel() > 0) {
        CXRFAST_DISPATCH_FLOATING(type, "pac_crf_backward", [&] {
            using T = accumulate_t<scalar_t>;
            const CrfParameters<T> parameters(unary, weight, compatibility, unary_weight, steps, dilation, activation,
                                              true);
            for_each_images(unary.size(0), images_together<T>(unary, weight, dilation, true), [&](Images images) {
                MeanFieldImages<T> field(parameters.field, window_of(unary, weight, dilation, images.count),
                                         load_planes(unary, images, wide), load_planes(guide, images, wide), true);
                const auto gradients = field.backward(load_planes(grad, images, wide), sums);
                store_planes(grad_unary, gradients.unary, images);
                store_planes(grad_guide, gradients.guide, images);
            });
            if (parameters.is_folded()) parameters.unfold_gradients(sums);
        });
    }
    const Tensor grad_compatibility = compatibility ? torch::stable::view(sums.compatibility, {labels, labels})
                                                    : torch::stable::view(sums.compatibility, {0});
    return {grad_unary, grad_guide, narrowed(sums.weight, type), narrowed(grad_compatibility, type),
            torch::stable::view(sums.unary_weight, unary_weight.sizes())};
}

}  // namespace
}  // namespace cxrfast

CXRFAST_CUDA_IMPL(m) {
    m.impl("pac_conv2d", TORCH_BOX(&cxrfast::pac_conv2d));
    m.impl("_pac_conv2d_backward", TORCH_BOX(&cxrfast::pac_conv2d_backward));
    m.impl("pac_crf", TORCH_BOX(&cxrfast::pac_crf));
    m.impl("_pac_crf_backward", TORCH_BOX(&cxrfast::pac_crf_backward));
}

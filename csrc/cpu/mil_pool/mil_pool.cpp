// mil_pool and mil_pool_ragged on the CPU: bags.h turns every bag into a contiguous row, quick.h pools it. Bags are
// independent, so that the result is deterministic.
#include "math/mil_pool.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>

#include "checks/mil_pool.h"
#include "common/check.h"
#include "common/dispatch.h"
#include "common/mil_pool.h"
#include "common/tensor.h"
#include "cpu/common/bags.h"
#include "cpu/common/pages.h"
#include "cpu/mil_pool/quick.h"

namespace cxrfast {
namespace {

template <typename scalar_t, typename Bags>
void pool(const scalar_t* logits,
          const accumulate_t<scalar_t>* sharpness,  // [K], or nullptr
          scalar_t* out,                            // [B, K]
          int64_t bags,                             // B·K
          const Bags& instances_of,
          MilPool mode) {
    using acc_t = accumulate_t<scalar_t>;
    const int64_t longest = instances_of.longest(), classes = instances_of.classes;
    torch::stable::parallel_for(0, bags, grain(longest), [&](int64_t begin, int64_t end) {
        const std::unique_ptr<acc_t[]> scratch(new acc_t[3 * longest]);
        acc_t *copy = scratch.get(), *u = copy + longest, *v = u + longest;
        for (int64_t i = begin; i < end; ++i) {
            const Instances instances = instances_of(i);
            const acc_t s = sharpness == nullptr ? acc_t(0) : sharpness[i % classes];
            Bag<acc_t> bag{nullptr, instances.count, s, u, v};
            if constexpr (std::is_same_v<scalar_t, acc_t>) bag.x = logits + instances.first;
            if (!is_direct<scalar_t>(instances)) {
                bag.count = gather(logits, instances, copy);
                bag.x = copy;
            }
            out[i] = static_cast<scalar_t>(bag.count == 0 ? empty_bag<acc_t>(mode) : pool_bag(mode, bag));
        }
    });
}

template <typename scalar_t, typename Bags>
void pool_backward(const scalar_t* grad,  // [B, K]
                   const scalar_t* logits,
                   const accumulate_t<scalar_t>* sharpness,  // [K], or nullptr
                   scalar_t* grad_logits,
                   accumulate_t<scalar_t>* grad_sharpness,  // [B, K], or nullptr
                   int64_t bags,
                   const Bags& instances_of,
                   MilPool mode) {
    using acc_t = accumulate_t<scalar_t>;
    const int64_t longest = instances_of.longest(), classes = instances_of.classes;
    torch::stable::parallel_for(0, bags, grain(longest), [&](int64_t begin, int64_t end) {
        const std::unique_ptr<acc_t[]> scratch(new acc_t[4 * longest]);
        acc_t *copy = scratch.get(), *u = copy + longest, *v = u + longest, *local = v + longest;
        for (int64_t i = begin; i < end; ++i) {
            const Instances instances = instances_of(i);
            const bool direct = is_direct<scalar_t>(instances);
            const acc_t s = sharpness == nullptr ? acc_t(0) : sharpness[i % classes];
            const acc_t upstream = static_cast<acc_t>(grad[i]);
            Bag<acc_t> bag{nullptr, instances.count, s, u, v};
            acc_t* to = nullptr;
            if constexpr (std::is_same_v<scalar_t, acc_t>) {
                bag.x = logits + instances.first;
                to = grad_logits + instances.first;
            }
            if (!direct) {
                bag.count = gather(logits, instances, copy);
                bag.x = copy;
                to = local;
            }
            acc_t slope = 0;
            if (bag.count > 0) slope = pool_bag_backward(mode, bag, upstream, grad_sharpness != nullptr, to);
            if (grad_sharpness != nullptr) grad_sharpness[i] = bag.count == 0 ? acc_t(0) : upstream * slope;
            if (!direct) scatter(to, instances, grad_logits);
        }
    });
}

Tensor empty(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType type) {
    return torch::stable::empty(shape, type, like.layout(), like.device());
}

template <typename acc_t>
const acc_t* data_or_null(const std::optional<Tensor>& x) {
    return x.has_value() ? x->const_data_ptr<acc_t>() : nullptr;
}

template <typename Bags>
Tensor forward(
    const Tensor& logits, const std::optional<Tensor>& sharpness, int64_t mode, int64_t b, const Bags& bags) {
    const std::optional<Tensor> r = checked_sharpness(sharpness, logits, mode);
    const Tensor x = dense(logits);
    Tensor out = empty(logits, {b, logits.size(1)}, logits.scalar_type());
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "mil_pool", [&] {
        pool(x.const_data_ptr<scalar_t>(), data_or_null<accumulate_t<scalar_t>>(r), out.mutable_data_ptr<scalar_t>(),
             b * logits.size(1), bags, static_cast<MilPool>(mode));
    });
    return out;
}

template <typename Bags>
std::tuple<Tensor, Tensor> backward(const Tensor& grad,
                                    const Tensor& logits,
                                    const std::optional<Tensor>& sharpness,
                                    int64_t mode,
                                    bool sharpness_gradient,
                                    int64_t b,
                                    const Bags& bags) {
    const int64_t classes = logits.size(1);
    CXRFAST_CHECK(grad.dim() == 2 && grad.size(0) == b && grad.size(1) == classes, "grad must be [B, K]");
    CXRFAST_CHECK(grad.scalar_type() == logits.scalar_type(), "grad must have the logits' dtype");
    const std::optional<Tensor> r = checked_sharpness(sharpness, logits, mode);
    const Tensor x = dense(logits), dense_grad = dense(grad);
    Tensor grad_logits = on_large_pages(torch::stable::new_empty(x, x.sizes()));
    const bool wanted = sharpness_gradient && r.has_value();
    Tensor grad_sharpness = empty(logits, {wanted ? b : 0, classes}, accumulate_type(logits.scalar_type()));
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "mil_pool_backward", [&] {
        using acc_t = accumulate_t<scalar_t>;
        pool_backward(dense_grad.const_data_ptr<scalar_t>(), x.const_data_ptr<scalar_t>(), data_or_null<acc_t>(r),
                      grad_logits.mutable_data_ptr<scalar_t>(),
                      wanted ? grad_sharpness.mutable_data_ptr<acc_t>() : nullptr, b * classes, bags,
                      static_cast<MilPool>(mode));
    });
    return {grad_logits, grad_sharpness};
}

Tensor mil_pool_ragged(const Tensor& logits,                    // [N, K]
                       const Tensor& offsets,                   // [B + 1]
                       const std::optional<Tensor>& sharpness,  // [K], accumulation dtype
                       int64_t mode) {
    const Tensor dense_offsets = dense(offsets);
    return forward(logits, sharpness, mode, offsets.size(0) - 1, ragged_bags(logits, dense_offsets));
}

std::tuple<Tensor, Tensor> mil_pool_ragged_backward(const Tensor& grad,     // [B, K]
                                                    const Tensor& logits,   // [N, K]
                                                    const Tensor& offsets,  // [B + 1]
                                                    const std::optional<Tensor>& sharpness,
                                                    int64_t mode,
                                                    bool sharpness_gradient) {
    const Tensor dense_offsets = dense(offsets);
    return backward(grad, logits, sharpness, mode, sharpness_gradient, offsets.size(0) - 1,
                    ragged_bags(logits, dense_offsets));
}

}  // namespace

Tensor mil_pool(const Tensor& logits,                    // [B, K, N]
                const std::optional<Tensor>& mask,       // [B or 1, K or 1, N] bool
                const std::optional<Tensor>& sharpness,  // [K], accumulation dtype
                int64_t mode) {
    return forward(logits, sharpness, mode, logits.size(0), dense_bags(logits, mask));
}

std::tuple<Tensor, Tensor> mil_pool_backward(const Tensor& grad,    // [B, K]
                                             const Tensor& logits,  // [B, K, N]
                                             const std::optional<Tensor>& mask,
                                             const std::optional<Tensor>& sharpness,
                                             int64_t mode,
                                             bool sharpness_gradient) {
    return backward(grad, logits, sharpness, mode, sharpness_gradient, logits.size(0), dense_bags(logits, mask));
}

}  // namespace cxrfast

STABLE_TORCH_LIBRARY_IMPL(cxrfast, CPU, m) {
    m.impl("mil_pool", TORCH_BOX(&cxrfast::mil_pool));
    m.impl("_mil_pool_backward", TORCH_BOX(&cxrfast::mil_pool_backward));
    m.impl("mil_pool_ragged", TORCH_BOX(&cxrfast::mil_pool_ragged));
    m.impl("_mil_pool_ragged_backward", TORCH_BOX(&cxrfast::mil_pool_ragged_backward));
}

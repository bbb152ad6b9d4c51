// mil_pool and mil_pool_ragged on the device: check, allocate, launch. Kernels: mil_pool.cuh.
#include "cuda/mil_pool/mil_pool.cuh"

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "checks/mil_pool.h"
#include "common/mask.h"
#include "common/mil_pool.h"
#include "cuda/mil_pool/exponential.cuh"

namespace cxrfast {
namespace {

constexpr int64_t kLast = 2;
const torch::headeronly::IntHeaderOnlyArrayRef kLastDimension(&kLast, 1);

// The tensors of a call, which keep the memory of the kernels' pointers alive.
struct Call {
    Tensor x;                         // [B, K, N], or ragged [N, K]
    std::optional<RowMask> mask;      // [B or 1, K or 1, N]
    std::optional<Tensor> offsets;    // [B + 1]
    std::optional<Tensor> sharpness;  // [K]
    MilPool mode;

    bool ragged() const { return offsets.has_value(); }
    int64_t images() const { return ragged() ? offsets->size(0) - 1 : x.size(0); }
    int64_t classes() const { return x.size(1); }
    int64_t length() const { return x.size(ragged() ? 0 : 2); }
    int64_t parts() const {
        return ragged() || length() <= kPartLength ? 1 : (length() + kPartLength - 1) / kPartLength;
    }
    int team_size() const {
        const int64_t typical = ragged() ? length() / std::max<int64_t>(1, images()) : length();
        return typical <= kWarpBag ? kWarp : kRowThreads;
    }
    Grid grid() const { return {blocks_for(images() * classes() * parts(), kRowThreads / team_size()), kRowThreads}; }
};

Call dense_call(const Tensor& logits,
                const std::optional<Tensor>& mask,
                const std::optional<Tensor>& sharpness,
                int64_t mode) {
    CXRFAST_CHECK(logits.dim() == 3, "logits must be [B, K, N]");
    Call call{torch::stable::contiguous(logits), std::nullopt, std::nullopt, checked_sharpness(sharpness, logits, mode),
              static_cast<MilPool>(mode)};
    if (mask.has_value()) call.mask = row_mask(*mask, logits);
    return call;
}

// The values of the offsets stay on the device. A bag outside the logits gets NaN from the kernel.
Call ragged_call(const Tensor& logits, const Tensor& offsets, const std::optional<Tensor>& sharpness, int64_t mode) {
    CXRFAST_CHECK(logits.dim() == 2, "logits must be [N, K]");
    CXRFAST_CHECK(offsets.dim() == 1 && offsets.size(0) >= 1 && offsets.scalar_type() == ScalarType::Long,
                  "offsets must be [B + 1] int64");
    return {torch::stable::contiguous(logits), std::nullopt, torch::stable::contiguous(offsets),
            checked_sharpness(sharpness, logits, mode), static_cast<MilPool>(mode)};
}

template <typename scalar_t>
Bags<scalar_t> bags_of(const Call& call) {
    using acc_t = accumulate_t<scalar_t>;
    const scalar_t* x = call.x.const_data_ptr<scalar_t>();
    const uint8_t* mask = call.mask.has_value() ? call.mask->data : nullptr;
    Bags<scalar_t> bags{};
    bags.x = x;
    bags.mask = mask;
    bags.offsets = call.ragged() ? call.offsets->const_data_ptr<int64_t>() : nullptr;
    bags.sharpness_of = call.sharpness.has_value() ? call.sharpness->const_data_ptr<acc_t>() : nullptr;
    bags.bags = call.images() * call.classes();
    bags.classes = call.classes();
    bags.length = call.length();
    bags.parts = call.parts();
    if (call.mask.has_value()) {
        bags.mask_image_stride = call.mask->image_stride;
        bags.mask_class_stride = call.mask->class_stride;
    }
    bags.empty = empty_bag<acc_t>(call.mode);
    bags.packed = !call.ragged() && rows_are_packed(x, bags.length) && rows_are_packed(mask, bags.length);
    return bags;
}

// Calls body(launch number and workspace) for every launch that the bags need.
template <typename Pooling, typename Body>
void for_each_launch(const Call& call, const Body& body) {
    using Total = Counted<typename Pooling::Total>;
    if (call.images() * call.classes() == 0) return;
    if (call.parts() == 1) {
        body(PartTotals<Pooling>{nullptr, Pooling::kRounds});
        return;
    }
    const int64_t totals = Pooling::kRounds * call.images() * call.classes() * call.parts();
    Tensor workspace = torch::stable::empty({totals * static_cast<int64_t>(sizeof(Total))}, ScalarType::Byte,
                                            call.x.layout(), call.x.device());
    Total* partial = reinterpret_cast<Total*>(workspace.mutable_data_ptr<uint8_t>());
    for (int launch = 0; launch <= Pooling::kRounds; ++launch) body(PartTotals<Pooling>{partial, launch});
}

template <typename T>
struct Type {
    using type = T;
};

// Calls body(Type<pooling of the mode>).
template <typename acc_t, typename Body>
void with_pooling(MilPool mode, const Body& body) {
    switch (mode) {
        case MilPool::kNoisyOr:
            return body(Type<NoisyOrPooling<acc_t>>());
        case MilPool::kMax:
            return body(Type<MaxPooling<acc_t>>());
        case MilPool::kLse:
            return body(Type<LsePooling<acc_t>>());
        case MilPool::kGeneralizedMean:
            return body(Type<GeneralizedMeanPooling<acc_t>>());
        default:
            return body(Type<WeightedMeanPooling<acc_t>>());
    }
}

template <typename scalar_t>
void launch_forward(const Call& call, Tensor& out) {
    const Bags<scalar_t> bags = bags_of<scalar_t>(call);
    with_pooling<accumulate_t<scalar_t>>(call.mode, [&](auto type) {
        using Pooling = typename decltype(type)::type;
        for_each_launch<Pooling>(call, [&](const PartTotals<Pooling>& partial) {
            launch(&pool_bags<Pooling, scalar_t>, call.grid(), call.x, bags, call.mode,
                   out.mutable_data_ptr<scalar_t>(), partial, call.team_size());
        });
    });
}

template <typename scalar_t>
void launch_backward(const Call& call, const PoolGradients<scalar_t>& gradients) {
    const Bags<scalar_t> bags = bags_of<scalar_t>(call);
    with_pooling<accumulate_t<scalar_t>>(call.mode, [&](auto type) {
        using Pooling = typename decltype(type)::type;
        for_each_launch<Pooling>(call, [&](const PartTotals<Pooling>& partial) {
            launch(&pool_bags_backward<Pooling, scalar_t>, call.grid(), call.x, bags, call.mode, gradients, partial,
                   call.team_size());
        });
    });
}

Tensor forward(const Call& call) {
    const DeviceGuard guard(call.x);
    Tensor out =
        torch::stable::empty({call.images(), call.classes()}, call.x.scalar_type(), call.x.layout(), call.x.device());
    CXRFAST_DISPATCH_FLOATING(call.x.scalar_type(), "mil_pool", [&] { launch_forward<scalar_t>(call, out); });
    return out;
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Call& call, bool sharpness_gradient) {
    CXRFAST_CHECK(grad.dim() == 2 && grad.size(0) == call.images() && grad.size(1) == call.classes(),
                  "grad must be [B, K]");
    CXRFAST_CHECK(grad.scalar_type() == call.x.scalar_type(), "grad must have the logits' dtype");
    const DeviceGuard guard(call.x);
    const Tensor dense_grad = torch::stable::contiguous(grad);
    Tensor grad_x = torch::stable::new_empty(call.x, call.x.sizes());
    const bool wanted = sharpness_gradient && call.sharpness.has_value();
    Tensor by_part = torch::stable::empty({wanted ? call.images() : 0, call.classes(), call.parts()},
                                          accumulate_type(call.x.scalar_type()), call.x.layout(), call.x.device());
    CXRFAST_DISPATCH_FLOATING(call.x.scalar_type(), "mil_pool_backward", [&] {
        using acc_t = accumulate_t<scalar_t>;
        launch_backward<scalar_t>(call, {dense_grad.const_data_ptr<scalar_t>(), grad_x.mutable_data_ptr<scalar_t>(),
                                         wanted ? by_part.mutable_data_ptr<acc_t>() : nullptr});
    });
    return {grad_x, call.parts() == 1 ? torch::stable::reshape(by_part, {by_part.size(0), call.classes()})
                                      : torch::stable::sum(by_part, kLastDimension)};
}

Tensor mil_pool_ragged(const Tensor& logits,                    // [N, K]
                       const Tensor& offsets,                   // [B + 1]
                       const std::optional<Tensor>& sharpness,  // [K], accumulation dtype
                       int64_t mode) {
    return forward(ragged_call(logits, offsets, sharpness, mode));
}

std::tuple<Tensor, Tensor> mil_pool_ragged_backward(const Tensor& grad,     // [B, K]
                                                    const Tensor& logits,   // [N, K]
                                                    const Tensor& offsets,  // [B + 1]
                                                    const std::optional<Tensor>& sharpness,
                                                    int64_t mode,
                                                    bool sharpness_gradient) {
    return backward(grad, ragged_call(logits, offsets, sharpness, mode), sharpness_gradient);
}

}  // namespace

Tensor mil_pool(const Tensor& logits,                    // [B, K, N]
                const std::optional<Tensor>& mask,       // [B or 1, K or 1, N] bool
                const std::optional<Tensor>& sharpness,  // [K], accumulation dtype
                int64_t mode) {
    return forward(dense_call(logits, mask, sharpness, mode));
}

std::tuple<Tensor, Tensor> mil_pool_backward(const Tensor& grad,    // [B, K]
                                             const Tensor& logits,  // [B, K, N]
                                             const std::optional<Tensor>& mask,
                                             const std::optional<Tensor>& sharpness,
                                             int64_t mode,
                                             bool sharpness_gradient) {
    return backward(grad, dense_call(logits, mask, sharpness, mode), sharpness_gradient);
}

}  // namespace cxrfast

CXRFAST_CUDA_IMPL(m) {
    m.impl("mil_pool", TORCH_BOX(&cxrfast::mil_pool));
    m.impl("_mil_pool_backward", TORCH_BOX(&cxrfast::mil_pool_backward));
    m.impl("mil_pool_ragged", TORCH_BOX(&cxrfast::mil_pool_ragged));
    m.impl("_mil_pool_ragged_backward", TORCH_BOX(&cxrfast::mil_pool_ragged_backward));
}

// self_guided_sums, self_guided_sums_ragged and self_guided_pool on the device: check, allocate, launch. Kernels:
// self_guiding.cuh.
#include "cuda/self_guiding/self_guiding.cuh"

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "checks/self_guiding.h"
#include "common/mask.h"
#include "common/mil_pool.h"

namespace cxrfast {
namespace {

constexpr int64_t kStagedBytes = 32 << 10;  // per block: several blocks fit on a multiprocessor

// The tensors of a call, which keep the memory of the kernels' pointers alive.
struct Call {
    Tensor x;                       // [B, K, N], or ragged [N, K]
    std::optional<RowMask> mask;    // [B or 1, K or 1, N]
    std::optional<Tensor> offsets;  // [B + 1]
    Tensor positive;                // [B, K]
    GuideOptions options;

    bool ragged() const { return offsets.has_value(); }
    int64_t images() const { return positive.size(0); }
    int64_t classes() const { return positive.size(1); }
    int64_t length() const { return x.size(ragged() ? 0 : 2); }
    int team_size() const {
        const int64_t typical = ragged() ? length() / std::max<int64_t>(1, images()) : length();
        return typical <= kWarpBag ? kWarp : kRowThreads;
    }
    // Maximum number of elements of a bag that a team may stage.
    int64_t staged(int64_t element_size) const { return kStagedBytes / element_size / (kRowThreads / team_size()); }
    Grid grid() const { return {blocks_for(images() * classes(), kRowThreads / team_size()), kRowThreads}; }
};

Call dense_call(const Tensor& logits,
                const Tensor& positive,
                const std::optional<Tensor>& mask,
                const GuideOptions& options) {
    CXRFAST_CHECK(logits.dim() == 3, "logits must be [B, K, N]");
    Call call{torch::stable::contiguous(logits), std::nullopt, std::nullopt,
              checked_positive(positive, logits.size(0), logits.size(1)), options};
    if (mask.has_value()) call.mask = row_mask(*mask, logits);
    return call;
}

// The values of the offsets stay on the device. A bag outside the logits gets NaN from the kernel.
Call ragged_call(const Tensor& logits, const Tensor& offsets, const Tensor& positive, const GuideOptions& options) {
    CXRFAST_CHECK(logits.dim() == 2, "logits must be [N, K]");
    CXRFAST_CHECK(offsets.dim() == 1 && offsets.size(0) >= 1 && offsets.scalar_type() == ScalarType::Long,
                  "offsets must be [B + 1] int64");
    return {torch::stable::contiguous(logits), std::nullopt, torch::stable::contiguous(offsets),
            checked_positive(positive, offsets.size(0) - 1, logits.size(1)), options};
}

template <typename scalar_t>
GuidedBags<scalar_t> bags_of(const Call& call) {
    GuidedBags<scalar_t> bags{};
    bags.x = call.x.const_data_ptr<scalar_t>();
    bags.mask = call.mask.has_value() ? call.mask->data : nullptr;
    bags.offsets = call.ragged() ? call.offsets->const_data_ptr<int64_t>() : nullptr;
    bags.positive = boolean_bytes(call.positive);
    bags.bags = call.images() * call.classes();
    bags.classes = call.classes();
    bags.length = call.length();
    if (call.mask.has_value()) {
        bags.mask_image_stride = call.mask->image_stride;
        bags.mask_class_stride = call.mask->class_stride;
    }
    bags.staged = call.staged(sizeof(accumulate_t<scalar_t>));
    bags.delta = call.options.delta;
    bags.rescale = call.options.rescale;
    bags.mean_of_middle = call.options.mean_of_middle;
    return bags;
}

std::tuple<Tensor, Tensor> forward(const Call& call) {
    const DeviceGuard guard(call.x);
    Tensor sums = empty_rows(call.x, kGuidedSums, call.images());
    Tensor statistics = empty_rows(call.x, kGuidedStatistics, call.images());
    if (call.images() * call.classes() == 0) return {sums, statistics};
    CXRFAST_DISPATCH_FLOATING(call.x.scalar_type(), "self_guided_sums", [&] {
        using acc_t = accumulate_t<scalar_t>;
        Grid grid = call.grid();
        grid.shared_bytes = kStagedBytes;
        launch(&sum_guided_bags<scalar_t>, grid, call.x, bags_of<scalar_t>(call), sums.mutable_data_ptr<acc_t>(),
               statistics.mutable_data_ptr<acc_t>(), call.team_size());
    });
    return {sums, statistics};
}

// With `add`, adds to the values in grad_x.
void backward_into(Tensor& grad_x, const Call& call, const Tensor& grad, const Tensor& statistics, bool add) {
    const DeviceGuard guard(call.x);
    const Tensor dense_grad = checked_rows(grad, call.x, kGuidedSums, call.images());
    const Tensor dense_statistics = checked_rows(statistics, call.x, kGuidedStatistics, call.images());
    if (call.images() * call.classes() == 0) return;
    CXRFAST_DISPATCH_FLOATING(call.x.scalar_type(), "self_guided_sums_backward", [&] {
        using acc_t = accumulate_t<scalar_t>;
        launch(&differentiate_guided_bags<scalar_t>, call.grid(), call.x, bags_of<scalar_t>(call),
               dense_grad.const_data_ptr<acc_t>(), dense_statistics.const_data_ptr<acc_t>(),
               grad_x.mutable_data_ptr<scalar_t>(), add, call.team_size());
    });
}

Tensor backward(const Call& call, const Tensor& grad, const Tensor& statistics) {
    Tensor grad_x = torch::stable::new_empty(call.x, call.x.sizes());
    backward_into(grad_x, call, grad, statistics, false);
    return grad_x;
}

std::tuple<Tensor, Tensor> self_guided_sums(const Tensor& logits,               // [B, K, N]
                                            const Tensor& positive,             // [B, K] bool
                                            const std::optional<Tensor>& mask,  // [B or 1, K or 1, N] bool
                                            double delta,
                                            bool rescale,
                                            int64_t median) {
    return forward(dense_call(logits, positive, mask, checked_options(delta, rescale, median)));
}

Tensor self_guided_sums_backward(const Tensor& grad,      // [kGuidedSums, B, K], accumulation dtype
                                 const Tensor& logits,    // [B, K, N]
                                 const Tensor& positive,  // [B, K] bool
                                 const std::optional<Tensor>& mask,
                                 const Tensor& statistics,  // [kGuidedStatistics, B, K], accumulation dtype
                                 double delta,
                                 bool rescale) {
    return backward(dense_call(logits, positive, mask, checked_options(delta, rescale, 0)), grad, statistics);
}

std::tuple<Tensor, Tensor> self_guided_sums_ragged(const Tensor& logits,    // [N, K]
                                                   const Tensor& offsets,   // [B + 1]
                                                   const Tensor& positive,  // [B, K] bool
                                                   double delta,
                                                   bool rescale,
                                                   int64_t median) {
    return forward(ragged_call(logits, offsets, positive, checked_options(delta, rescale, median)));
}

Tensor self_guided_sums_ragged_backward(const Tensor& grad,        // [kGuidedSums, B, K], accumulation dtype
                                        const Tensor& logits,      // [N, K]
                                        const Tensor& offsets,     // [B + 1]
                                        const Tensor& positive,    // [B, K] bool
                                        const Tensor& statistics,  // [kGuidedStatistics, B, K], accumulation dtype
                                        double delta,
                                        bool rescale) {
    return backward(ragged_call(logits, offsets, positive, checked_options(delta, rescale, 0)), grad, statistics);
}

// Writes both gradients to one tensor; autograd would allocate two and add them.
std::tuple<Tensor, Tensor, Tensor> self_guided_pool(const Tensor& logits,    // [B, K, N]
                                                    const Tensor& positive,  // [B, K] bool
                                                    const std::optional<Tensor>& mask,
                                                    const std::optional<Tensor>& sharpness,  // [K]
                                                    int64_t mode,
                                                    double delta,
                                                    bool rescale,
                                                    int64_t median) {
    const auto [sums, statistics] = self_guided_sums(logits, positive, mask, delta, rescale, median);
    return {mil_pool(logits, mask, sharpness, mode), sums, statistics};
}

Tensor self_guided_pool_backward(const Tensor& grad_pooled,  // [B, K]
                                 const Tensor& grad_sums,    // [kGuidedSums, B, K], accumulation dtype
                                 const Tensor& logits,       // [B, K, N]
                                 const Tensor& positive,     // [B, K] bool
                                 const std::optional<Tensor>& mask,
                                 const std::optional<Tensor>& sharpness,  // [K]
                                 const Tensor& statistics,  // [kGuidedStatistics, B, K], accumulation dtype
                                 int64_t mode,
                                 double delta,
                                 bool rescale) {
    Tensor grad_logits = std::get<0>(mil_pool_backward(grad_pooled, logits, mask, sharpness, mode, false));
    backward_into(grad_logits, dense_call(logits, positive, mask, checked_options(delta, rescale, 0)), grad_sums,
                  statistics, true);
    return grad_logits;
}

}  // namespace
}  // namespace cxrfast

CXRFAST_CUDA_IMPL(m) {
    m.impl("self_guided_sums", TORCH_BOX(&cxrfast::self_guided_sums));
    m.impl("_self_guided_sums_backward", TORCH_BOX(&cxrfast::self_guided_sums_backward));
    m.impl("self_guided_sums_ragged", TORCH_BOX(&cxrfast::self_guided_sums_ragged));
    m.impl("_self_guided_sums_ragged_backward", TORCH_BOX(&cxrfast::self_guided_sums_ragged_backward));
    m.impl("self_guided_pool", TORCH_BOX(&cxrfast::self_guided_pool));
    m.impl("_self_guided_pool_backward", TORCH_BOX(&cxrfast::self_guided_pool_backward));
}

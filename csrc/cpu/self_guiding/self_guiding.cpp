// self_guided_sums, self_guided_sums_ragged and self_guided_pool on the CPU: bags.h turns every bag into a contiguous
// row, rows.h computes its sums while it is in the cache. Bags are independent, so that the result is deterministic.
#include "cpu/self_guiding/rows.h"

#include <torch/csrc/stable/library.h>

#include <limits>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>

#include "checks/self_guiding.h"
#include "common/mil_pool.h"
#include "cpu/common/bags.h"
#include "cpu/common/pages.h"

namespace cxrfast {
namespace {

// Calls body(bag, its contiguous instances) for every bag.
template <typename scalar_t, typename Bags, typename Body>
void for_each_bag(const scalar_t* logits, const Bags& instances_of, int64_t scratch_rows, const Body& body) {
    using acc_t = accumulate_t<scalar_t>;
    const int64_t longest = instances_of.longest();
    torch::stable::parallel_for(0, instances_of.images * instances_of.classes, grain(longest),
                                [&](int64_t begin, int64_t end) {
                                    const std::unique_ptr<acc_t[]> scratch(new acc_t[scratch_rows * longest]);
                                    for (int64_t bag = begin; bag < end; ++bag) {
                                        const Instances instances = instances_of(bag);
                                        const acc_t* x = scratch.get();
                                        int64_t n = instances.count;
                                        if constexpr (std::is_same_v<scalar_t, acc_t>) x = logits + instances.first;
                                        if (!is_direct<scalar_t>(instances)) {
                                            n = gather(logits, instances, scratch.get());
                                            x = scratch.get();
                                        }
                                        body(bag, instances, x, n, scratch.get() + (scratch_rows - 1) * longest);
                                    }
                                });
}

template <typename scalar_t, typename Bags>
void sum_bags(const scalar_t* logits,
              const uint8_t* positive,             // [bags]
              accumulate_t<scalar_t>* sums,        // [kGuidedSums, bags]
              accumulate_t<scalar_t>* statistics,  // [kGuidedStatistics, bags]
              const Bags& instances_of,
              const GuideOptions& options) {
    using acc_t = accumulate_t<scalar_t>;
    const int64_t bags = instances_of.images * instances_of.classes;
    for_each_bag(logits, instances_of, 1, [&](int64_t bag, const Instances&, const acc_t* x, int64_t n, acc_t*) {
        constexpr acc_t kNan = std::numeric_limits<acc_t>::quiet_NaN();
        const bool is_positive = positive[bag] != 0;
        const Extremes<acc_t> range = n == 0 ? Extremes<acc_t>{kNan, kNan} : extremes(x, n);
        GuidedTotals total{};
        if (n > 0 && is_positive) {
            total = positive_bag(x, n, Guide<acc_t>::of_bag(range.least, range.most, options.delta, options.rescale));
        } else {
            total.negative = softplus_sum<false, acc_t>(x, n, nullptr);
            total.negative_count = static_cast<double>(n);
        }
        const auto put = [&](acc_t* rows, int row, double value) {
            rows[row * bags + bag] = static_cast<acc_t>(value);
        };
        put(sums, kNegative, total.negative);
        put(sums, kSoft, total.soft);
        put(sums, kPositive, total.positive);
        put(sums, kSquares, total.squares);
        put(statistics, kNegativeCount, total.negative_count);
        put(statistics, kSoftCount, total.soft_count);
        put(statistics, kPositiveCount, total.positive_count);
        put(statistics, kLeast, range.least);
        put(statistics, kMost, range.most);
        put(statistics, kCertainty, certainty(x, n, range, is_positive, options.mean_of_middle));
    });
}

// With ADD, adds to the values in grad_logits.
template <bool ADD, typename scalar_t, typename Bags>
void differentiate_bags(const accumulate_t<scalar_t>* grad,  // [kGuidedSums, bags]
                        const scalar_t* logits,
                        const uint8_t* positive,                   // [bags]
                        const accumulate_t<scalar_t>* statistics,  // [kGuidedStatistics, bags]
                        scalar_t* grad_logits,
                        const Bags& instances_of,
                        const GuideOptions& options) {
    using acc_t = accumulate_t<scalar_t>;
    const int64_t bags = instances_of.images * instances_of.classes;
    for_each_bag(
        logits, instances_of, 2, [&](int64_t bag, const Instances& instances, const acc_t* x, int64_t n, acc_t* local) {
            acc_t* to = local;
            const bool direct = is_direct<scalar_t>(instances);
            if constexpr (std::is_same_v<scalar_t, acc_t>) to = direct ? grad_logits + instances.first : local;
            if (ADD && !direct) gather(grad_logits, instances, local);
            const auto at = [&](int row) { return grad[row * bags + bag]; };
            if (positive[bag] != 0) {
                const acc_t least = statistics[kLeast * bags + bag], most = statistics[kMost * bags + bag];
                positive_bag_backward<ADD>(x, n, Guide<acc_t>::of_bag(least, most, options.delta, options.rescale),
                                           {at(kNegative), at(kSoft), at(kPositive), at(kSquares)}, to);
            } else {
                negative_gradient<ADD>(x, n, at(kNegative), to);
            }
            if (!direct) scatter(to, instances, grad_logits);
        });
}

template <typename Bags>
std::tuple<Tensor, Tensor> forward(const Tensor& logits,
                                   const Tensor& positive,
                                   const Bags& bags,
                                   const GuideOptions& options) {
    const Tensor x = dense(logits), labels = checked_positive(positive, bags.images, bags.classes);
    Tensor sums = empty_rows(logits, kGuidedSums, bags.images);
    Tensor statistics = empty_rows(logits, kGuidedStatistics, bags.images);
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "self_guided_sums", [&] {
        using acc_t = accumulate_t<scalar_t>;
        sum_bags(x.const_data_ptr<scalar_t>(), boolean_bytes(labels), sums.mutable_data_ptr<acc_t>(),
                 statistics.mutable_data_ptr<acc_t>(), bags, options);
    });
    return {sums, statistics};
}

template <bool ADD, typename Bags>
void backward_into(Tensor& grad_logits,
                   const Tensor& grad,
                   const Tensor& logits,
                   const Tensor& positive,
                   const Tensor& statistics,
                   const Bags& bags,
                   const GuideOptions& options) {
    const Tensor x = dense(logits), labels = checked_positive(positive, bags.images, bags.classes);
    const Tensor dense_grad = checked_rows(grad, logits, kGuidedSums, bags.images);
    const Tensor dense_statistics = checked_rows(statistics, logits, kGuidedStatistics, bags.images);
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "self_guided_sums_backward", [&] {
        using acc_t = accumulate_t<scalar_t>;
        differentiate_bags<ADD>(dense_grad.const_data_ptr<acc_t>(), x.const_data_ptr<scalar_t>(), boolean_bytes(labels),
                                dense_statistics.const_data_ptr<acc_t>(), grad_logits.mutable_data_ptr<scalar_t>(),
                                bags, options);
    });
}

template <typename Bags>
Tensor backward(const Tensor& grad,
                const Tensor& logits,
                const Tensor& positive,
                const Tensor& statistics,
                const Bags& bags,
                const GuideOptions& options) {
    Tensor grad_logits = on_large_pages(torch::stable::new_empty(logits, logits.sizes()));
    backward_into<false>(grad_logits, grad, logits, positive, statistics, bags, options);
    return grad_logits;
}

std::tuple<Tensor, Tensor> self_guided_sums(const Tensor& logits,               // [B, K, N]
                                            const Tensor& positive,             // [B, K] bool
                                            const std::optional<Tensor>& mask,  // [B or 1, K or 1, N] bool
                                            double delta,
                                            bool rescale,
                                            int64_t median) {
    return forward(logits, positive, dense_bags(logits, mask), checked_options(delta, rescale, median));
}

Tensor self_guided_sums_backward(const Tensor& grad,      // [kGuidedSums, B, K], accumulation dtype
                                 const Tensor& logits,    // [B, K, N]
                                 const Tensor& positive,  // [B, K] bool
                                 const std::optional<Tensor>& mask,
                                 const Tensor& statistics,  // [kGuidedStatistics, B, K], accumulation dtype
                                 double delta,
                                 bool rescale) {
    return backward(grad, logits, positive, statistics, dense_bags(logits, mask), checked_options(delta, rescale, 0));
}

std::tuple<Tensor, Tensor> self_guided_sums_ragged(const Tensor& logits,    // [N, K]
                                                   const Tensor& offsets,   // [B + 1]
                                                   const Tensor& positive,  // [B, K] bool
                                                   double delta,
                                                   bool rescale,
                                                   int64_t median) {
    const Tensor dense_offsets = dense(offsets);
    return forward(logits, positive, ragged_bags(logits, dense_offsets), checked_options(delta, rescale, median));
}

Tensor self_guided_sums_ragged_backward(const Tensor& grad,        // [kGuidedSums, B, K], accumulation dtype
                                        const Tensor& logits,      // [N, K]
                                        const Tensor& offsets,     // [B + 1]
                                        const Tensor& positive,    // [B, K] bool
                                        const Tensor& statistics,  // [kGuidedStatistics, B, K], accumulation dtype
                                        double delta,
                                        bool rescale) {
    const Tensor dense_offsets = dense(offsets);
    return backward(grad, logits, positive, statistics, ragged_bags(logits, dense_offsets),
                    checked_options(delta, rescale, 0));
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
    backward_into<true>(grad_logits, grad_sums, logits, positive, statistics, dense_bags(logits, mask),
                        checked_options(delta, rescale, 0));
    return grad_logits;
}

}  // namespace
}  // namespace cxrfast

STABLE_TORCH_LIBRARY_IMPL(cxrfast, CPU, m) {
    m.impl("self_guided_sums", TORCH_BOX(&cxrfast::self_guided_sums));
    m.impl("_self_guided_sums_backward", TORCH_BOX(&cxrfast::self_guided_sums_backward));
    m.impl("self_guided_sums_ragged", TORCH_BOX(&cxrfast::self_guided_sums_ragged));
    m.impl("_self_guided_sums_ragged_backward", TORCH_BOX(&cxrfast::self_guided_sums_ragged_backward));
    m.impl("self_guided_pool", TORCH_BOX(&cxrfast::self_guided_pool));
    m.impl("_self_guided_pool_backward", TORCH_BOX(&cxrfast::self_guided_pool_backward));
}

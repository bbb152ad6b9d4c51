// Pools a bag from the vectorised sums of sums.h if they are accurate, which holds for all but extreme logits and
// sharpness. Otherwise, it uses the logarithms of bag.h. Formulas: math/mil_pool.h.
#pragma once

#include <cmath>

#include "cpu/mil_pool/bag.h"
#include "cpu/mil_pool/sums.h"
#include "math/mil_pool.h"

namespace cxrfast {

constexpr double kSharpest = 80;  // above, exp(±sharpness/2) is outside the range of float

template <typename T>
PooledSums conclude(MilPool mode, const PairOfSums& sums, int64_t n, T sharpness) {
    const auto kept = [](double sum) { return sum >= kLeastSum<T> && std::isfinite(sum); };
    if (!kept(sums.a)) return {};
    if (mode == MilPool::kLse) return pooled_lse(sums.a, n, sharpness);
    if (mode == MilPool::kGeneralizedMean) return pooled_generalized_mean(sums.a, n, sharpness);
    return kept(sums.b) ? pooled_weighted_mean(mode, sums.a, sums.b, sharpness) : PooledSums{};
}

// False for NaN.
template <typename T>
bool is_quick(MilPool mode, T sharpness) {
    if (!has_sharpness(mode)) return mode != MilPool::kMax;
    const T least = mode == MilPool::kLse ? T(1) : mode == MilPool::kGeneralizedMean ? T(0.5) : T(0);
    return std::abs(sharpness) >= least && std::abs(sharpness) <= T(kSharpest);
}

template <bool GRADIENT, typename T>
PairOfSums sums_of_mode(MilPool mode, const T* x, int64_t n, T sharpness, const Parts<T>& parts) {
    switch (mode) {
        case MilPool::kSoftmax:
            return sums_of_terms<SoftmaxTerms, GRADIENT>(x, n, sharpness, parts);
        case MilPool::kLinearSoftmax:
            return sums_of_terms<LinearSoftmaxTerms, GRADIENT>(x, n, sharpness, parts);
        case MilPool::kLse:
            return sums_of_terms<LseTerms, GRADIENT>(x, n, sharpness, parts);
        case MilPool::kGeneralizedMean:
            return sums_of_terms<GeneralizedMeanTerms, GRADIENT>(x, n, sharpness, parts);
        default:
            return sums_of_terms<MeanTerms, GRADIENT>(x, n, sharpness, parts);
    }
}

template <typename T>
T pool_bag(MilPool mode, const Bag<T>& bag) {
    if (mode == MilPool::kNoisyOr) {
        const double energy = softplus_sum<false, T>(bag.x, bag.count, nullptr);
        if (!(energy < kLeastSum<T>)) return static_cast<T>(log_expm1(energy));
    } else if (is_quick(mode, bag.sharpness)) {
        const PairOfSums sums = sums_of_mode<false, T>(mode, bag.x, bag.count, bag.sharpness, {});
        const PooledSums conclusion = conclude(mode, sums, bag.count, bag.sharpness);
        if (conclusion.valid) return static_cast<T>(conclusion.logit);
    }
    return exact_pool(mode, bag);
}

// d softmax pooling / ds, from that pair of sums which has less cancellation.
template <typename T>
double softmax_slope(const Bag<T>& bag, const PairOfSums& sums) {
    if (sums.a < sums.b) {
        const PairOfSums s =
            sums_of_terms<SoftmaxSlopeTerms<false>, false>(bag.x, bag.count, bag.sharpness, Parts<T>{});
        return s.a / sums.a - s.b / sums.b;
    }
    const PairOfSums s = sums_of_terms<SoftmaxSlopeTerms<true>, false>(bag.x, bag.count, bag.sharpness, Parts<T>{});
    return s.a / sums.b - s.b / sums.a;
}

// Fills grad[count] with upstream · d pool / dx. Returns d pool / d sharpness, 0 if there is no sharpness or it is not
// requested.
template <typename T>
T pool_bag_backward(MilPool mode, const Bag<T>& bag, T upstream, bool sharpness_gradient, T* grad) {
    if (mode == MilPool::kNoisyOr) {
        const double energy = softplus_sum<true>(bag.x, bag.count, grad);
        if (!(energy < kLeastSum<T>)) {
            scale(grad, bag.count, static_cast<T>(-upstream / std::expm1(-energy)));  // upstream / P
            return 0;
        }
    } else if (is_quick(mode, bag.sharpness) && (mode == MilPool::kSoftmax || !sharpness_gradient)) {
        const PairOfSums sums = sums_of_mode<true, T>(mode, bag.x, bag.count, bag.sharpness, {grad, bag.u, bag.v});
        const PooledSums c = conclude(mode, sums, bag.count, bag.sharpness);
        if (c.valid && c.c1 == 0 && c.c2 == 0) scale(grad, bag.count, static_cast<T>(upstream * c.c0));
        if (c.valid && (c.c1 != 0 || c.c2 != 0)) {
            scale_linearly(grad, bag.u, bag.v, bag.count, static_cast<T>(upstream * c.c0),
                           static_cast<T>(upstream * c.c1), static_cast<T>(upstream * c.c2));
        }
        if (c.valid) return sharpness_gradient ? static_cast<T>(softmax_slope(bag, sums)) : T(0);
    }
    const T slope = exact_pool_backward(mode, bag, sharpness_gradient, grad);
    scale(grad, bag.count, upstream);
    return slope;
}

}  // namespace cxrfast

// Pools a bag from the vectorised sums of sums.h where they keep its digits, which they do for all but extreme
// logits and sharpness, and from the logarithms of bag.h where they do not. Formulas: math/mil_pool.h.
#pragma once

#include <cmath>

#include "cpu/mil_pool/bag.h"
#include "cpu/mil_pool/sums.h"
#include "math/mil_pool.h"

namespace cxrfast {

constexpr double kSharpest = 80;  // beyond it exp(±sharpness/2) leaves float's range

// What the sums say: the pooled logit, and the factor c0 + c1·p + c2·q that turns g (Terms) into a gradient.
struct Conclusion {
    bool valid;
    double logit, c0, c1, c2;
};

inline Conclusion weighted_mean_conclusion(MilPool mode, double sum_p, double sum_q, double s) {
    const double p = 1 / sum_p, q = 1 / sum_q, logit = std::log(sum_p * q);
    if (mode == MilPool::kSoftmax) return {true, logit, p + q, s * p, -s * q};
    if (mode == MilPool::kLinearSoftmax) return {true, logit, 0, 2 * p + q, -q};
    return {true, logit, p + q, 0, 0};
}

// Where p̄ is neither near 0 nor near 1: there E_r by itself has digits enough.
inline Conclusion lse_conclusion(double sum, int64_t n, double r) {
    const double above_half = std::log(sum / static_cast<double>(n)) / r;  // p̄ − ½
    if (!(std::abs(above_half) <= 0.45)) return {};
    const double p = 0.5 + above_half, q = 0.5 - above_half;
    return {true, std::log(p / q), 1 / (sum * p * q), 0, 0};
}

inline Conclusion generalized_mean_conclusion(double sum, int64_t n, double r) {
    const double surprise = -std::log(sum / static_cast<double>(n)) / r;  // −log p̄
    if (!(surprise >= 0.05)) return {};
    return {true, -log_expm1(surprise), -1 / (sum * std::expm1(-surprise)), 0, 0};
}

template <typename T>
Conclusion conclude(MilPool mode, const PairOfSums& sums, int64_t n, T sharpness) {
    const auto kept = [](double sum) { return sum >= kLeastSum<T> && std::isfinite(sum); };
    if (!kept(sums.a)) return {};
    if (mode == MilPool::kLse) return lse_conclusion(sums.a, n, sharpness);
    if (mode == MilPool::kGeneralizedMean) return generalized_mean_conclusion(sums.a, n, sharpness);
    return kept(sums.b) ? weighted_mean_conclusion(mode, sums.a, sums.b, sharpness) : Conclusion{};
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
        const Conclusion conclusion = conclude(mode, sums, bag.count, bag.sharpness);
        if (conclusion.valid) return static_cast<T>(conclusion.logit);
    }
    return exact_pool(mode, bag);
}

// d softmax pooling / ds from the two sums that it has less to cancel between.
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

// Fills grad[count] with upstream · d pool / dx and returns d pool / d sharpness (0 where there is none or it is not
// asked for).
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
        const Conclusion c = conclude(mode, sums, bag.count, bag.sharpness);
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

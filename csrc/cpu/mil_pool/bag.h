// One bag on the CPU, with its instances contiguous in `x`. Elements have the precision acc_t; sums are double, so that
// they stay accurate for a million instances. Formulas: math/mil_pool.h.
//
// quick.h pools most bags. The functions in this file are accurate for all, including extreme logits and sharpness.
#pragma once

#include <algorithm>

#include "cpu/mil_pool/sums.h"
#include "math/mil_pool.h"

namespace cxrfast {

template <typename acc_t>
struct Bag {
    const acc_t* x;   // [count] logits
    int64_t count;    // at least 1
    acc_t sharpness;  // s or r of the formulas
    acc_t* u;         // [count] scratch
    acc_t* v;         // [count] scratch
};

// log Σ exp(u) = max + log(sum). The two are kept separately, because at u = ±1000 the shares need the exact max.
template <typename acc_t>
struct LogSum {
    acc_t max;
    acc_t sum;
    acc_t value() const { return max + std::log(sum); }
    acc_t share(acc_t u) const { return sum == acc_t(0) ? acc_t(0) : std::exp(u - max) / sum; }
};

// A NaN counts as the largest number, so that it is propagated.
template <typename acc_t, typename At>
acc_t largest(int64_t n, At at) {
    acc_t max = at(0);
    for (int64_t i = 1; i < n; ++i) {
        const acc_t value = at(i);
        max = value > max || std::isnan(value) ? value : max;
    }
    return max;
}

template <typename acc_t>
acc_t largest(const acc_t* u, int64_t n) {
    return largest<acc_t>(n, [u](int64_t i) { return u[i]; });
}

template <typename acc_t, typename At>
LogSum<acc_t> log_sum(int64_t n, At at) {
    const acc_t max = largest<acc_t>(n, at);
    if (max == -std::numeric_limits<acc_t>::infinity()) return {max, acc_t(0)};
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(at(i) - max);
    return {max, static_cast<acc_t>(sum)};
}

template <typename acc_t>
LogSum<acc_t> log_sum(const acc_t* u, int64_t n) {
    return log_sum<acc_t>(n, [u](int64_t i) { return u[i]; });
}

// noisy-OR

// In this tail, softplus(x) is e^x for every instance, so that the logit is log Σ e^x.
template <typename acc_t>
acc_t noisy_or_tail(const Bag<acc_t>& bag) {
    return log_sum(bag.x, bag.count).value();
}

template <typename acc_t>
void noisy_or_tail_backward(const Bag<acc_t>& bag, acc_t* grad) {
    const LogSum<acc_t> total = log_sum(bag.x, bag.count);
    for (int64_t i = 0; i < bag.count; ++i) grad[i] = total.share(bag.x[i]);
}

// max: the first of equal instances counts, and a NaN counts as the largest.

template <typename acc_t>
int64_t first_maximum(const Bag<acc_t>& bag) {
    constexpr int64_t kStretch = 256;
    const acc_t value = maximum(bag.x, bag.count);
    int64_t first = 0;
    while (!contains(bag.x + first, std::min(kStretch, bag.count - first), value)) first += kStretch;
    while (bag.x[first] != value && !(std::isnan(value) && std::isnan(bag.x[first]))) ++first;
    return first;
}

// weighted means

template <typename acc_t>
void log_weighted(MilPool mode, const Bag<acc_t>& bag) {  // u = log(w p), v = log(w q)
    for (int64_t i = 0; i < bag.count; ++i) {
        const acc_t weight = log_weight(mode, bag.sharpness, bag.x[i]);
        bag.u[i] = weight + log_sigmoid(bag.x[i]);
        bag.v[i] = weight + log_sigmoid(-bag.x[i]);
    }
}

template <typename acc_t>
acc_t weighted_mean(MilPool mode, const Bag<acc_t>& bag) {
    constexpr acc_t kInfinity = std::numeric_limits<acc_t>::infinity();
    log_weighted(mode, bag);
    const acc_t log_p = log_sum(bag.u, bag.count).value(), log_q = log_sum(bag.v, bag.count).value();
    return log_p == -kInfinity && log_q == -kInfinity ? -kInfinity : log_p - log_q;  // all p = 0, and so all weights p
}

// Returns d logit p̄ / d sharpness = Σ (P − Q)·p, where P and Q are the shares of an instance in Σ w p and Σ w q.
template <typename acc_t>
acc_t weighted_mean_backward(MilPool mode, const Bag<acc_t>& bag, acc_t* grad) {
    log_weighted(mode, bag);
    const LogSum<acc_t> sum_p = log_sum(bag.u, bag.count), sum_q = log_sum(bag.v, bag.count);
    double with_p = 0, with_q = 0;
    for (int64_t i = 0; i < bag.count; ++i) {
        const acc_t x = bag.x[i], share_p = sum_p.share(bag.u[i]), share_q = sum_q.share(bag.v[i]);
        grad[i] = weighted_mean_gradient(mode, bag.sharpness, x, share_p, share_q);
        with_p += static_cast<double>(share_p - share_q) * sigmoid(x);
        with_q -= static_cast<double>(share_p - share_q) * sigmoid(-x);
    }
    // Both forms are equal, because the shares sum to one. The smaller of p and q has less cancellation.
    return static_cast<acc_t>(sum_p.value() < sum_q.value() ? with_p : with_q);
}

// exponential means

template <typename acc_t>
struct ExponentialMean {
    acc_t value;
    acc_t log_value;  // accurate where value underflows
};

// The element with the largest r·c, relative to which exponentials are computed.
template <typename acc_t>
acc_t pivot(const acc_t* c, int64_t n, acc_t r) {
    acc_t best = c[0];
    for (int64_t i = 1; i < n; ++i) best = (r < acc_t(0) ? c[i] < best : c[i] > best) ? c[i] : best;
    return best;
}

// E_r(c), accurate to its last digits for any size. log_c(i) is only used where all r·c are so small that exp(r·c) is
// linear.
template <typename acc_t, typename LogC>
ExponentialMean<acc_t> exponential_mean(const acc_t* c, int64_t n, acc_t r, LogC log_c) {
    if (std::abs(r) * largest(c, n) <= acc_t(kLinearExponent)) {
        const acc_t log_mean = log_sum<acc_t>(n, log_c).value() - std::log(static_cast<acc_t>(n));
        return {std::exp(log_mean), log_mean};
    }
    double mean = 0;
    for (int64_t i = 0; i < n; ++i) mean += std::expm1(r * c[i]);
    mean /= static_cast<double>(n);
    double value;
    if (mean >= -0.5 && mean <= 1.0) {
        value = std::log1p(mean) / r;
    } else {  // far from 0, the logarithm of a sum of exponentials is well conditioned
        const acc_t reference = pivot(c, n, r);
        double sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += std::exp(r * (c[i] - reference));
        const bool infinite = std::isinf(reference) && !std::isnan(largest(c, n));
        value = infinite ? reference : reference + std::log(sum / static_cast<double>(n)) / r;
    }
    return {static_cast<acc_t>(value), static_cast<acc_t>(std::log(value))};
}

// weight[i] = dE_r/dc_i = exp(r·c_i) / Σ exp(r·c_j)
template <typename acc_t>
void exponential_mean_weights(const acc_t* c, int64_t n, acc_t r, acc_t* weight) {
    const acc_t reference = pivot(c, n, r);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += weight[i] = std::exp(r * (c[i] - reference));
    const acc_t scale = static_cast<acc_t>(1.0 / sum);
    for (int64_t i = 0; i < n; ++i) weight[i] *= scale;
}

// (dE_r/dr) / E, from d_i = c_i − E = E·expm1(log c_i − log E), which is accurate where c underflows.
template <typename acc_t, typename LogC>
acc_t exponential_mean_slope(int64_t n, acc_t r, const ExponentialMean<acc_t>& mean, LogC log_c) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        const acc_t relative = std::expm1(log_c(i) - mean.log_value);
        sum += static_cast<double>(relative) * relative * exponential_mean_curvature(r * mean.value * relative);
    }
    return static_cast<acc_t>(sum / static_cast<double>(n)) * mean.value;
}

template <typename acc_t>
struct LsePool {
    ExponentialMean<acc_t> p, q;  // p̄ and 1 − p̄
};

template <typename acc_t>
LsePool<acc_t> lse_pool(const Bag<acc_t>& bag) {  // stores p in u, q in v
    for (int64_t i = 0; i < bag.count; ++i) {
        bag.u[i] = sigmoid(bag.x[i]);
        bag.v[i] = sigmoid(-bag.x[i]);
    }
    return {exponential_mean(bag.u, bag.count, bag.sharpness, [&](int64_t i) { return log_sigmoid(bag.x[i]); }),
            exponential_mean(bag.v, bag.count, -bag.sharpness, [&](int64_t i) { return log_sigmoid(-bag.x[i]); })};
}

// d logit p̄ / dx_i = W_i·p_i q_i / (p̄ q̄). Returns d logit p̄ / dr = (dE_r/dr) / (p̄ q̄).
template <typename acc_t>
acc_t lse_pool_backward(const Bag<acc_t>& bag, bool sharpness_gradient, acc_t* grad) {
    const LsePool<acc_t> pooled = lse_pool(bag);
    const acc_t r = bag.sharpness, log_variance = pooled.p.log_value + pooled.q.log_value;
    exponential_mean_weights(bag.u, bag.count, r, grad);
    for (int64_t i = 0; i < bag.count; ++i) {
        grad[i] *= std::exp(log_sigmoid(bag.x[i]) + log_sigmoid(-bag.x[i]) - log_variance);
    }
    if (!sharpness_gradient) return 0;
    // Uses the smaller of p̄ and q̄; q̄(r) = E_{−r}(q) has the slope −dp̄/dr.
    if (pooled.p.log_value < pooled.q.log_value) {
        return exponential_mean_slope(bag.count, r, pooled.p, [&](int64_t i) { return log_sigmoid(bag.x[i]); }) /
               pooled.q.value;
    }
    return exponential_mean_slope(bag.count, -r, pooled.q, [&](int64_t i) { return log_sigmoid(-bag.x[i]); }) /
           pooled.p.value;
}

template <typename acc_t>
ExponentialMean<acc_t> surprise(const Bag<acc_t>& bag) {  // −log p̄; stores −log p in u
    for (int64_t i = 0; i < bag.count; ++i) bag.u[i] = softplus(-bag.x[i]);
    return exponential_mean(bag.u, bag.count, -bag.sharpness, [&](int64_t i) { return log_softplus(-bag.x[i]); });
}

template <typename acc_t>
acc_t generalized_mean(const Bag<acc_t>& bag) {
    const ExponentialMean<acc_t> c = surprise(bag);
    return c.value <= acc_t(kLinearExponent) ? -c.log_value : -log_expm1(c.value);
}

// With c̄ = −log p̄: d logit p̄ / dx_i = W_i·q_i / q̄. Returns d logit p̄ / dr = (dE/dρ at ρ = −r) / q̄.
template <typename acc_t>
acc_t generalized_mean_backward(const Bag<acc_t>& bag, bool sharpness_gradient, acc_t* grad) {
    const ExponentialMean<acc_t> c = surprise(bag);
    const bool tail = c.value <= acc_t(kLinearExponent);
    const acc_t log_q = tail ? c.log_value : std::log(-std::expm1(-c.value));
    exponential_mean_weights(bag.u, bag.count, -bag.sharpness, grad);
    for (int64_t i = 0; i < bag.count; ++i) grad[i] *= std::exp(log_sigmoid(-bag.x[i]) - log_q);
    if (!sharpness_gradient) return 0;
    const acc_t slope =
        exponential_mean_slope(bag.count, -bag.sharpness, c, [&](int64_t i) { return log_softplus(-bag.x[i]); });
    return tail ? slope : slope * c.value / -std::expm1(-c.value);
}

// the table of modes

template <typename acc_t>
acc_t exact_pool(MilPool mode, const Bag<acc_t>& bag) {
    switch (mode) {
        case MilPool::kNoisyOr:
            return noisy_or_tail(bag);
        case MilPool::kMax:
            return maximum(bag.x, bag.count);
        case MilPool::kLse: {
            const LsePool<acc_t> pooled = lse_pool(bag);
            return pooled.p.log_value - pooled.q.log_value;
        }
        case MilPool::kGeneralizedMean:
            return generalized_mean(bag);
        default:
            return weighted_mean(mode, bag);
    }
}

// Fills grad[count] with d pool / dx. Returns d pool / d sharpness, 0 if there is no sharpness or it is not requested.
template <typename acc_t>
acc_t exact_pool_backward(MilPool mode, const Bag<acc_t>& bag, bool sharpness_gradient, acc_t* grad) {
    switch (mode) {
        case MilPool::kNoisyOr:
            noisy_or_tail_backward(bag, grad);
            return 0;
        case MilPool::kMax:
            std::fill(grad, grad + bag.count, acc_t(0));
            grad[first_maximum(bag)] = 1;
            return 0;
        case MilPool::kLse:
            return lse_pool_backward(bag, sharpness_gradient, grad);
        case MilPool::kGeneralizedMean:
            return generalized_mean_backward(bag, sharpness_gradient, grad);
        default:
            return weighted_mean_backward(mode, bag, grad);
    }
}

}  // namespace cxrfast

// Multiple-instance pooling: the formulas of one bag, for all back ends. With p = σ(x) and q = 1 − p, three families:
//
//   noisy-OR          logit P = log(expm1(Σ softplus(x)))
//   weighted means    p̄ = Σ w p / Σ w, so logit p̄ = log Σ exp(log w + log p) − log Σ exp(log w + log q),
//                     with log w = 0 (mean), s·p (softmax, auto), log p (linear softmax)
//   exponential means E_r(c) = 1/r · log mean exp(r·c) of numbers c ≥ 0:
//                     lse: p̄ = E_r(p) and 1 − p̄ = E_{−r}(q);  generalised mean: −log p̄ = E_{−r}(−log p)
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "math/sigmoid.h"

namespace cxrfast {

enum class MilPool : int64_t {
    kNoisyOr = 0,
    kMean = 1,
    kMax = 2,
    kLse = 3,
    kSoftmax = 4,
    kLinearSoftmax = 5,
    kGeneralizedMean = 6,
};

constexpr int64_t kMilPools = 7;

CXRFAST_HOST_DEVICE bool has_sharpness(MilPool mode) {
    return mode == MilPool::kLse || mode == MilPool::kSoftmax || mode == MilPool::kGeneralizedMean;
}

// Below this logit, softplus(x) is e^x in double precision. Sums over such instances are computed as logarithms,
// because their terms may underflow.
constexpr double kTailLogit = -40.0;

// For |r·c| below this, exp(r·c) is linear in double precision, and E_r(c) is the arithmetic mean, also at r = 0.
constexpr double kLinearExponent = 1e-17;

// Results for a bag without instances: the logit of probability 0; and NaN for means.
template <typename T>
CXRFAST_HOST_DEVICE T empty_bag(MilPool mode) {
    const bool zero = mode == MilPool::kNoisyOr || mode == MilPool::kMax;
    return zero ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::quiet_NaN();
}

// log w of the weighted means
template <typename T>
CXRFAST_HOST_DEVICE T log_weight(MilPool mode, T sharpness, T x) {
    if (mode == MilPool::kSoftmax) return sharpness * sigmoid(x);
    return mode == MilPool::kLinearSoftmax ? log_sigmoid(x) : T(0);
}

// d logit p̄ / dx, from the shares P and Q of the instance in Σ w p and Σ w q.
template <typename T>
CXRFAST_HOST_DEVICE T weighted_mean_gradient(MilPool mode, T sharpness, T x, T share_p, T share_q) {
    const T p = sigmoid(x), q = sigmoid(-x);
    T slope = 0;  // d log w / dx
    if (mode == MilPool::kSoftmax) slope = sharpness * p * q;
    if (mode == MilPool::kLinearSoftmax) slope = q;
    return share_p * (slope + q) - share_q * (slope - p);
}

// ∫₀¹ t·exp(δt) dt = (δ·e^δ − e^δ + 1) / δ². With δ_i = r·(c_i − E):
// dE_r/dr = mean of (c_i − E)²·exponential_mean_curvature(δ_i), a sum without cancellation, at r = 0 too.
template <typename T>
CXRFAST_HOST_DEVICE T exponential_mean_curvature(T delta) {
    if (std::abs(delta) >= T(0.1)) return (delta * std::exp(delta) - std::expm1(delta)) / (delta * delta);
    T sum = 0, power = 1;  // Σ δ^j / (j!·(j + 2))
    for (int j = 0; j < 12; ++j) {
        sum += power / T(j + 2);
        power *= delta / T(j + 1);
    }
    return sum;
}

// The terms of the direct sums, for all modes except noisy-OR and max: an instance adds a and b to two sums. Its
// gradient is g·(c₀ + c₁·p + c₂·q), where the factors c follow from the sums (PooledSums). Terms may underflow where
// the logarithmic formulas above do not.
template <typename T>
struct Terms {
    T a, b, g, p, q;
};

struct MeanTerms {
    static constexpr bool kConstantFactor = true;  // c₁ = c₂ = 0
    template <typename F, typename T>
    static CXRFAST_FORMULA Terms<T> at(T x, T) {
        const Odds<T> o = odds<F>(x);
        return {o.p, o.q, o.p * o.q, o.p, o.q};
    }
};

// Weights are w = exp(s·(p − ½)); the constant factor e^−½ˢ cancels.
struct SoftmaxTerms {
    static constexpr bool kConstantFactor = false;
    template <typename F, typename T>
    static CXRFAST_FORMULA Terms<T> at(T x, T s) {
        const Odds<T> o = odds<F>(x);
        const T w = F::exp(s * (o.p - T(0.5))), wp = w * o.p;
        return {wp, w * o.q, wp * o.q, o.p, o.q};
    }
};

// Two sums of d log(Σ w p / Σ w q) / ds = Σ w p² / Σ w p − Σ w p q / Σ w q, or the same with p and q exchanged.
template <bool EXCHANGED>
struct SoftmaxSlopeTerms {
    static constexpr bool kConstantFactor = true;
    template <typename F, typename T>
    static CXRFAST_FORMULA Terms<T> at(T x, T s) {
        const Odds<T> o = odds<F>(x);
        const T w = F::exp(s * (o.p - T(0.5))), smaller = EXCHANGED ? o.q : o.p;
        return {w * smaller * smaller, w * o.p * o.q, T(0), o.p, o.q};
    }
};

struct LinearSoftmaxTerms {
    static constexpr bool kConstantFactor = false;
    template <typename F, typename T>
    static CXRFAST_FORMULA Terms<T> at(T x, T) {
        const Odds<T> o = odds<F>(x);
        return {o.p * o.p, o.p * o.q, o.p * o.q, o.p, o.q};
    }
};

struct LseTerms {
    static constexpr bool kConstantFactor = true;
    template <typename F, typename T>
    static CXRFAST_FORMULA Terms<T> at(T x, T r) {
        const Odds<T> o = odds<F>(x);
        const T w = F::exp(r * (o.p - T(0.5)));
        return {w, T(0), w * o.p * o.q, o.p, o.q};
    }
};

struct GeneralizedMeanTerms {
    static constexpr bool kConstantFactor = true;
    template <typename F, typename T>
    static CXRFAST_FORMULA Terms<T> at(T x, T r) {
        const Odds<T> o = odds<F>(x);
        const T log_p = (x > T(0) ? T(0) : x) - F::log1p_unit(o.e), w = F::exp(r * log_p);
        return {w, T(0), w * o.q, o.p, o.q};
    }
};

// Results of direct sums: the pooled logit, and the factor c0 + c1·p + c2·q of an instance's g in its gradient.
struct PooledSums {
    bool valid;
    double logit, c0, c1, c2;
};

// weighted_mean_gradient with P = w p / Σ w p and Q = w q / Σ w q, ordered by powers of p and q.
CXRFAST_HOST_DEVICE PooledSums pooled_weighted_mean(MilPool mode, double sum_p, double sum_q, double s) {
    const double p = 1 / sum_p, q = 1 / sum_q, logit = std::log(sum_p * q);
    if (mode == MilPool::kSoftmax) return {true, logit, p + q, s * p, -s * q};
    if (mode == MilPool::kLinearSoftmax) return {true, logit, 0, 2 * p + q, -q};
    return {true, logit, p + q, 0, 0};
}

// For p̄ neither near 0 nor near 1, where E_r is accurate without logarithms.
CXRFAST_HOST_DEVICE PooledSums pooled_lse(double sum, int64_t n, double r) {
    const double above_half = std::log(sum / static_cast<double>(n)) / r;  // p̄ − ½
    if (!(std::abs(above_half) <= 0.45)) return {};
    const double p = 0.5 + above_half, q = 0.5 - above_half;
    return {true, std::log(p / q), 1 / (sum * p * q), 0, 0};
}

CXRFAST_HOST_DEVICE PooledSums pooled_generalized_mean(double sum, int64_t n, double r) {
    const double surprise = -std::log(sum / static_cast<double>(n)) / r;  // −log p̄
    if (!(surprise >= 0.05)) return {};
    return {true, -log_expm1(surprise), -1 / (sum * std::expm1(-surprise)), 0, 0};
}

}  // namespace cxrfast

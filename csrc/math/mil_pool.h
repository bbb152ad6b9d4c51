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

// Below this logit softplus(x) is e^x to double precision; sums over such instances are carried as logarithms, because
// the terms may underflow.
constexpr double kTailLogit = -40.0;

// Where |r·c| is below this, exp(r·c) is linear to double precision and E_r(c) is the arithmetic mean, at r = 0 too.
constexpr double kLinearExponent = 1e-17;

// The log-odds of nothing: no instance supports the class; and no average exists.
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

// d logit p̄ / dx, from the instance's shares P of Σ w p and Q of Σ w q.
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

}  // namespace cxrfast

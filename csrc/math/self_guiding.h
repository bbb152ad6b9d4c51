// The targets that a bag provides for its instances (Seibold et al. 2020, Eq. 5 and 6), for all back ends.
#pragma once

#include <cstdint>

#include "math/sigmoid.h"

namespace cxrfast {

// Rows of an operator's results, [kGuidedSums, bags] and [kGuidedStatistics, bags].
enum GuidedSum { kNegative, kSoft, kPositive, kSquares, kGuidedSums };
enum GuidedStatistic {
    kNegativeCount,
    kSoftCount,
    kPositiveCount,
    kLeast,  // logit
    kMost,   // logit
    kCertainty,
    kGuidedStatistics
};

// Below this logit, σ(x) is e^x in double precision.
constexpr double kLowLogit = -40.0;

enum class Theta { kPrediction, kRescaled, kRescaledLow };  // θ = p; Eq. 5; Eq. 5 with a low largest logit

// θ of Eq. 5 from logits. Where all predictions are close to 1, or to 0, no digit of p − min p would be left, so with
// a ≥ b: σ(a) − σ(b) = σ(a)·σ(−b)·(1 − e^(b−a)), and
//
//   θ = (σ(x) − σ(least)) / (σ(most) − σ(least)) = σ(x)/σ(most) · (1 − e^(least−x)) / (1 − e^(least−most))
//
// in which σ(x)/σ(most) is e^(x−most) where `most` is low.
template <typename T>
struct Guide {
    T least, most;  // logits
    T span;         // 1 − e^(least−most)
    T scale;        // 1 / σ(most); 1 where `most` is low
    T delta_low, delta_high;
    bool rescale, low;

    static CXRFAST_HOST_DEVICE Guide of_bag(T least, T most, double delta, bool rescale) {
        const bool low = most <= T(kLowLogit);
        return {least,
                most,
                -std::expm1(least - most),
                low ? T(1) : T(1) / sigmoid(most),
                static_cast<T>(delta),
                static_cast<T>(1.0 - delta),
                rescale,
                low};
    }

    // Eq. 5 is 0/0: all instances are equal. (False for NaN.)
    CXRFAST_HOST_DEVICE bool is_silent() const { return rescale && least == most; }

    CXRFAST_HOST_DEVICE Theta kind() const {
        if (!rescale) return Theta::kPrediction;
        return low ? Theta::kRescaledLow : Theta::kRescaled;
    }

    template <typename F = StandardFunctions>
    CXRFAST_FORMULA T theta(Theta kind, T x, T p) const {
        if (kind == Theta::kPrediction) return p;
        const T ratio = kind == Theta::kRescaledLow ? F::exp(x - most) : p * scale;
        const T below = x == least ? T(0) : least - x;  // not NaN where both are -inf
        const T theta = ratio * (-F::expm1(below) / span);
        return theta > T(1) ? T(1) : theta;
    }
};

// The contribution of an instance of a positive bag to the four sums: its binary cross-entropy, to the sum that its
// target M selects (Eq. 6: 0 below δ_l, 1 above δ_h, else θ), and p² if M is not 0.
template <typename T>
struct GuidedTerms {
    T negative, soft, positive, squares;
    bool is_soft, is_positive;
};

template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA GuidedTerms<T> guided_terms(const Guide<T>& guide, Theta kind, T x) {
    const Odds<T> o = odds<F>(x);
    const T theta = guide.template theta<F>(kind, x, o.p);
    const T above = x > T(0) ? x : T(0), below = x > T(0) ? T(0) : -x;
    const bool zero = theta<guide.delta_low, one = theta> guide.delta_high, soft = !(zero | one);
    // −log max(p, q). −log q is larger by `above`, −log p is larger by `below`
    const T log_larger = F::log1p_unit(o.e), mixed = theta * below + (T(1) - theta) * above;
    return {F::only(zero, log_larger + above),
            F::only(soft, log_larger + mixed),
            F::only(one, log_larger + below),
            F::only(!zero, o.p * o.p),
            soft,
            one};
}

// The gradients of the four sums.
template <typename T>
struct GuidedSlopes {
    T negative, soft, positive, squares;
};

// d BCE(p, M) / dx = p − M and d p² / dx = 2 p²·(1 − p)
template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA T guided_gradient(const Guide<T>& guide, Theta kind, const GuidedSlopes<T>& slopes, T x) {
    const Odds<T> o = odds<F>(x);
    const T theta = guide.template theta<F>(kind, x, o.p);
    const bool zero = theta<guide.delta_low, one = theta> guide.delta_high;
    const T slope = zero ? slopes.negative : (one ? slopes.positive : slopes.soft);
    const T residual = zero ? o.p : (one ? -o.q : o.p - theta);
    return slope * residual + (zero ? T(0) : T(2) * slopes.squares) * o.p * o.p * o.q;
}

}  // namespace cxrfast

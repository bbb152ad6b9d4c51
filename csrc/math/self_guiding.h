// The targets that a bag makes for its instances (Seibold et al. 2020, Eq. 5 and 6), for all back ends.
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

// Below this logit σ(x) is e^x to double precision.
constexpr double kLowLogit = -40.0;

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

    // Eq. 5 is 0/0: the bag says nothing about its instances. (Not so for NaN.)
    CXRFAST_HOST_DEVICE bool is_silent() const { return rescale && least == most; }

    CXRFAST_HOST_DEVICE T theta(T x) const {
        if (!rescale) return sigmoid(x);
        const T ratio = low ? std::exp(x - most) : sigmoid(x) * scale;
        const T theta = ratio * (-std::expm1(least - x) / span);
        return theta > T(1) ? T(1) : theta;
    }
};

}  // namespace cxrfast

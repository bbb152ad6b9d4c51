// Σ softplus(x), with one logarithm for many terms, for all back ends.
#pragma once

#include "math/sigmoid.h"

namespace cxrfast {

// softplus(x) = max(x, 0) + log(1 + e) with e = exp(−|x|), so that Σ softplus = Σ max(x, 0) + log Π (1 + e). The
// product is stored as Π − 1, which grows by e·Π. This is a sum of positive terms, accurate for terms of any size. At
// most 64 terms.
template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA void add_softplus(T x, T& positive, T& product_minus_one) {
    const T e = F::exp_minus_abs(x);
    positive += x > T(0) ? x : T(0);
    product_minus_one += e + product_minus_one * e;
}

template <typename T>
struct SoftplusSum {
    T positive = 0;
    T product_minus_one = 0;

    CXRFAST_HOST_DEVICE void add(T x) { add_softplus(x, positive, product_minus_one); }
    CXRFAST_HOST_DEVICE T value() const { return positive + std::log1p(product_minus_one); }
};

}  // namespace cxrfast

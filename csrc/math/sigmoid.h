// σ and its logarithms, exact in both tails: p = σ(x) and q = 1 − p = σ(−x) are never computed from one another.
#pragma once

#include <cmath>

#include "common/macros.h"
#include "math/functions.h"

namespace cxrfast {

template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA T sigmoid(T x) {
    const T e = F::exp_minus_abs(x);
    return (x >= T(0) ? T(1) : e) / (T(1) + e);
}

// σ(x) and σ(−x), neither from the other, and e^-|x|, from one exponential.
template <typename T>
struct Odds {
    T p, q, e;
};

template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA Odds<T> odds(T x) {
    const T e = F::exp_minus_abs(x), larger = F::reciprocal_one_plus(e), smaller = e * larger;
    return {x >= T(0) ? larger : smaller, x >= T(0) ? smaller : larger, e};
}

// p·(1 − p), which is dσ/dx.
template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA T sigmoid_gradient(T x) {
    const T e = F::exp_minus_abs(x), d = T(1) + e;
    return e / (d * d);
}

// log(1 + e^x) = −log σ(−x)
template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA T softplus(T x) {
    return (x > T(0) ? x : T(0)) + F::log1p_unit(F::exp_minus_abs(x));
}

template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA T log_sigmoid(T x) {
    return -softplus<F>(-x);
}

// log(log(1 + e^x)), also where softplus itself underflows: softplus(x) = e^x·(1 − e^x/2 + …).
template <typename T>
CXRFAST_HOST_DEVICE T log_softplus(T x) {
    return x < T(-40) ? x : std::log(softplus(x));
}

// log(e^s − 1) for s ≥ 0; −inf at 0.
template <typename T>
CXRFAST_HOST_DEVICE T log_expm1(T s) {
    return s + std::log(-std::expm1(-s));
}

}  // namespace cxrfast

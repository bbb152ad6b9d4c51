// σ and its logarithms, accurate in both tails: p = σ(x) and q = 1 − p = σ(−x) are never computed from each other.
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

// σ(x), σ(−x) and e^-|x| from one exponential; neither σ is computed from the other.
template <typename T>
struct Odds {
    T p, q, e;
};

template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA Odds<T> odds(T x) {
    const T e = F::exp_minus_abs(x), larger = F::reciprocal_one_plus(e), smaller = e * larger;
    return {x >= T(0) ? larger : smaller, x >= T(0) ? smaller : larger, e};
}

// p·(1 − p) = dσ/dx.
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

// log(log(1 + e^x)), also where softplus underflows: softplus(x) = e^x·(1 − e^x/2 + …).
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

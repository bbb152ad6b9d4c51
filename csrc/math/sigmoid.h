// σ and its logarithms, exact in both tails: p = σ(x) and q = 1 − p = σ(−x) are never computed from one another.
#pragma once

#include <cmath>

#include "common/macros.h"

namespace cxrfast {

template <typename T>
CXRFAST_HOST_DEVICE T sigmoid(T x) {
    const T e = std::exp(-std::abs(x));
    return (x >= T(0) ? T(1) : e) / (T(1) + e);
}

// p·(1 − p), which is dσ/dx.
template <typename T>
CXRFAST_HOST_DEVICE T sigmoid_gradient(T x) {
    const T e = std::exp(-std::abs(x));
    return e / ((T(1) + e) * (T(1) + e));
}

// log(1 + e^x) = −log σ(−x)
template <typename T>
CXRFAST_HOST_DEVICE T softplus(T x) {
    return (x > T(0) ? x : T(0)) + std::log1p(std::exp(-std::abs(x)));
}

template <typename T>
CXRFAST_HOST_DEVICE T log_sigmoid(T x) {
    return -softplus(-x);
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

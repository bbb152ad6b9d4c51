// The contribution of a patch to the region losses of Li et al. 2018 and Rozenberg et al. 2019, for all back ends.
#pragma once

#include "math/sigmoid.h"

namespace cxrfast {

// Li et al. map probabilities from [0, 1] to [floor, 1] before multiplication: floor + span·σ(x).
template <typename T>
struct Floor {
    T floor, span;

    static CXRFAST_FORMULA Floor of(double floor) { return {static_cast<T>(floor), static_cast<T>(1.0 - floor)}; }
    CXRFAST_FORMULA bool is_zero() const { return floor == T(0); }
};

// Patches inside the box are evidence for the finding, others evidence against it (Li et al. 2018, Eq. 1). A patch adds
// log σ(y), with y = x inside the box and y = −x outside; gradients change their sign accordingly.
template <typename T>
CXRFAST_FORMULA T signed_by_box(T x, bool in_box) {
    return in_box ? x : -x;
}

// log(floor + span·σ(x)) for floor ≠ 0. Because span is 1 − floor, the value is also 1 − span·σ(−x).
template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA T log_floored_sigmoid(T x, const Floor<T>& f) {
    const Odds<T> o = odds<F>(x);
    return F::log_of_complement(f.floor + f.span * o.p, f.span * o.q);
}

// span·σ'(x) / (floor + span·σ(x)), with e = e^-|x| and d = 1 + e, expanded to need only one division.
template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA T log_floored_sigmoid_gradient(T x, const Floor<T>& f) {
    const T e = F::exp_minus_abs(x), d = T(1) + e;
    return f.span * e / (d * (f.floor * d + f.span * (x < T(0) ? e : T(1))));
}

template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA T patch_log_likelihood(T x, bool in_box, const Floor<T>& f) {
    const T y = signed_by_box(x, in_box);
    return f.is_zero() ? log_sigmoid<F>(y) : log_floored_sigmoid<F>(y, f);
}

// d log σ(y) / dy = σ(−y), for floor = 0.
template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA T patch_log_likelihood_gradient(T x, bool in_box, const Floor<T>& f) {
    const T y = signed_by_box(x, in_box);
    const T gradient = f.is_zero() ? sigmoid<F>(-y) : log_floored_sigmoid_gradient<F>(y, f);
    return signed_by_box(gradient, in_box);
}

}  // namespace cxrfast

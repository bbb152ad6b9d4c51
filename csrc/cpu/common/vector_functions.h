// The sets of functions (math/functions.h) for vectorised formulas, inside functions with CXRFAST_CPU_CLONES.
#pragma once

#include <cmath>

#include "common/macros.h"
#include "cpu/common/vector_math.h"
#include "math/functions.h"

namespace cxrfast {

struct VectorFunctions {
    template <typename T>
    static CXRFAST_FORMULA T exp(T x) {
        return simd::exp(x);
    }

    template <typename T>
    static CXRFAST_FORMULA T expm1(T x) {
        return simd::expm1(x);
    }

    template <typename T>
    static CXRFAST_FORMULA T exp_minus_abs(T x) {
        return simd::exp(-std::abs(x));
    }

    template <typename T>
    static CXRFAST_FORMULA T log1p_unit(T e) {
        return simd::log1p_inside(e);
    }

    template <typename T>
    static CXRFAST_FORMULA T reciprocal_one_plus(T e) {
        return T(1) / (T(1) + e);
    }

    // The argument is chosen before the only logarithm: value, or 1 − lost with its rounding error. Both are normal
    // numbers.
    template <typename T>
    static CXRFAST_FORMULA T log_of_complement(T value, T lost) {
        const T complement = T(1) - lost;
        const bool low = value < T(0.5);
        return simd::log_of_sum(low ? value : complement, low ? T(0) : (T(1) - complement) - lost);
    }

    // Uses a mask, because g++ turns several conditional expressions into branches and then does not vectorise.
    template <typename T>
    static CXRFAST_FORMULA T only(bool condition, T x) {
        return simd::only(simd::where<T>(condition), x);
    }
};

// Within 4 units in the last place. Results below the smallest normal number may be 0.
struct QuickFunctions : VectorFunctions {
    template <typename T>
    static CXRFAST_FORMULA T exp(T x) {
        return simd::exp_normal(x);
    }

    template <typename T>
    static CXRFAST_FORMULA T exp_minus_abs(T x) {
        return simd::exp_normal_minus_abs(x);
    }

    template <typename T>
    static CXRFAST_FORMULA T log1p_unit(T e) {
        return simd::log1p_unit(e);
    }

    template <typename T>
    static CXRFAST_FORMULA T reciprocal_one_plus(T e) {
        return simd::reciprocal_one_plus(e);
    }
};

}  // namespace cxrfast

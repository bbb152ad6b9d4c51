// The elementary functions of the formulas in csrc/math. A formula has them as its template parameter F, so that the
// same code serves CUDA threads, scalars on the CPU, and vectorised loops:
//
//   StandardFunctions  <cmath>'s; what a formula uses unless told otherwise
//   VectorFunctions    without branch, table or call, to the last digits      (cpu/common/vector_functions.h)
//   QuickFunctions     cheaper, for terms of sums and gradients                (the same file)
#pragma once

#include <cmath>

#include "common/macros.h"

namespace cxrfast {

struct StandardFunctions {
    template <typename T>
    static CXRFAST_FORMULA T exp(T x) {
        return std::exp(x);
    }

    template <typename T>
    static CXRFAST_FORMULA T expm1(T x) {
        return std::expm1(x);
    }

    // e^-|x|
    template <typename T>
    static CXRFAST_FORMULA T exp_minus_abs(T x) {
        return std::exp(-std::abs(x));
    }

    // log(1 + e) for e in [0, 1]
    template <typename T>
    static CXRFAST_FORMULA T log1p_unit(T e) {
        return std::log1p(e);
    }

    // 1 / (1 + e) for e in [0, 1]
    template <typename T>
    static CXRFAST_FORMULA T reciprocal_one_plus(T e) {
        return T(1) / (T(1) + e);
    }

    // log(value), where value = 1 − lost, from whichever of the two is more accurate.
    template <typename T>
    static CXRFAST_FORMULA T log_of_complement(T value, T lost) {
        return value < T(0.5) ? std::log(value) : std::log1p(-lost);
    }

    // x if the condition holds, else 0, also for infinities and NaN.
    template <typename T>
    static CXRFAST_FORMULA T only(bool condition, T x) {
        return condition ? x : T(0);
    }
};

}  // namespace cxrfast

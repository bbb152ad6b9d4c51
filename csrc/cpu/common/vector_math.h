// exp, log and their relatives for the inner loops of the CPU kernels: no branch, no table, no call, so that the
// compiler vectorises a loop over them (inside CXRFAST_CPU_CLONES, for every vector unit).
//
// They are for float and double, over the whole range. Infinities, NaN and denormal numbers are as in <cmath>, except
// for signs of zero. Errors are below 2.5 units in the last place (tests/ops/test_vector_math.py). The polynomials are
// minimax fits (Remez exchange in 60 digits). The comment beside each states the function that it fits, and the
// relative error in the result.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "common/macros.h"

namespace cxrfast::simd {

template <typename T>
struct Constants;

template <>
struct Constants<float> {
    using Bits = uint32_t;
    static constexpr int kMantissa = 23;
    static constexpr Bits kBias = 127;
    static constexpr Bits kSqrtHalf = 0x3f3504f3;                // bits of √½
    static constexpr float kRound = 0x1.8p23f;                   // x + kRound has no fractional bits
    static constexpr float kLn2High = 0x1.62e4p-1f;              // 15 bits: products with any exponent are exact
    static constexpr float kLn2Low = 1.4286068203e-6f;           // ln 2 − kLn2High
    static constexpr float kExpLow = -104.0f, kExpHigh = 89.0f;  // 0 and infinity are reached within these limits
    static constexpr float kExpNormalLow = -88.0f;               // below, 2^n is not a normal number
    static constexpr float kExpm1Low = -18.0f;                   // below, the result is −1
    static constexpr float kExp[] = {0x1p-1f, 0x1.55548ep-3f, 0x1.55545ep-5f, 0x1.123bdep-7f,
                                     0x1.6db4eap-10f};                                 // 2^-28
    static constexpr float kLog[] = {0x1.55557ap-1f, 0x1.995eaap-2f, 0x1.31e4b4p-2f};  // 2^-30
    static constexpr float kLog1p[] = {0x1p+0f,        -0x1.ffffbep-2f, 0x1.554c8p-2f,  -0x1.ff0f86p-3f,
                                       0x1.92f694p-3f, -0x1.39755cp-3f, 0x1.b2534ep-4f, -0x1.d29cb2p-5f,
                                       0x1.453efep-6f, -0x1.a93358p-9f};  // 2^-27
    static constexpr int kNewtonSteps = 2;
};

template <>
struct Constants<double> {
    using Bits = uint64_t;
    static constexpr int kMantissa = 52;
    static constexpr Bits kBias = 1023;
    static constexpr Bits kSqrtHalf = 0x3fe6a09e667f3bcd;
    static constexpr double kRound = 0x1.8p52;
    static constexpr double kLn2High = 0x1.62e42fefa38p-1;  // 42 bits
    static constexpr double kLn2Low = 5.497923018708371e-14;
    static constexpr double kExpLow = -746.0, kExpHigh = 710.0;
    static constexpr double kExpNormalLow = -709.0;
    static constexpr double kExpm1Low = -38.0;
    static constexpr double kExp[] = {0.5000000000000013,     0.166666666666667,     0.04166666666651433,
                                      0.00833333333330701,    0.0013888888947330925, 0.00019841269917805388,
                                      2.4801489590783407e-05, 2.755721592139269e-06, 2.763141373933893e-07,
                                      2.5117982081770276e-08};  // 2^-58
    static constexpr double kLog[] = {0.6666666666666735,  0.3999999999941289,  0.2857142874282424, 0.22222198524688463,
                                      0.18183567027444286, 0.15313977038358548, 0.1479672738821897};  // 2^-59
    static constexpr double kLog1p[] = {1.0,
                                        -0.4999999999999548,
                                        0.3333333333271962,
                                        -0.2499999996679955,
                                        0.19999999046388728,
                                        -0.16666649852169813,
                                        0.14285515760199796,
                                        -0.12498338122244279,
                                        0.11100845552432835,
                                        -0.09951825094271737,
                                        0.08915321716279158,
                                        -0.07827521247436017,
                                        0.06523396082055026,
                                        -0.04944430774979828,
                                        0.032463449944454395,
                                        -0.017527766260632863,
                                        0.0073416193337753075,
                                        -0.0022107823290615424,
                                        0.0004224742338334538,
                                        -3.8278684208055835e-05};  // 2^-54
    static constexpr int kNewtonSteps = 3;
};

template <typename T>
CXRFAST_ALWAYS_INLINE typename Constants<T>::Bits to_bits(T x) {
    typename Constants<T>::Bits bits;
    std::memcpy(&bits, &x, sizeof x);
    return bits;
}

template <typename T>
CXRFAST_ALWAYS_INLINE T from_bits(typename Constants<T>::Bits bits) {
    T x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// A mask with all bits set if the condition holds.
template <typename T>
CXRFAST_ALWAYS_INLINE typename Constants<T>::Bits where(bool condition) {
    return typename Constants<T>::Bits(0) - typename Constants<T>::Bits(condition);
}

// x if the mask is set, else 0, also for infinities and NaN.
template <typename T>
CXRFAST_ALWAYS_INLINE T only(typename Constants<T>::Bits mask, T x) {
    return from_bits<T>(to_bits(x) & mask);
}

// c[0] + c[1]·x + …
template <typename T, int N>
CXRFAST_ALWAYS_INLINE T polynomial(const T (&c)[N], T x) {
    T sum = c[N - 1];
#pragma GCC unroll 32
    for (int i = N - 2; i >= 0; --i) sum = sum * x + c[i];
    return sum;
}

// e^x = (1 + p)·first·second. The power of two is split into two factors, so that each is a normal number.
template <typename T>
struct SplitExp {
    T p, first, second;
    typename Constants<T>::Bits second_exponent;  // exponent of `second`
};

// NaN is preserved.
template <typename T>
CXRFAST_ALWAYS_INLINE T clamp(T x, T low, T high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

// x must be in Constants::kExpLow … kExpHigh, or NaN.
template <typename T>
CXRFAST_ALWAYS_INLINE SplitExp<T> split_exp(T x) {
    using C = Constants<T>;
    using Bits = typename C::Bits;
    constexpr T kLog2E = T(1.4426950408889634074);
    constexpr Bits kEven = 4096;  // makes every exponent positive, so that the shift need not preserve signs
    const T rounded = x * kLog2E + C::kRound, n = rounded - C::kRound;
    const T r = (x - n * C::kLn2High) - n * C::kLn2Low;  // |r| ≤ ½ ln 2
    const Bits exponent = to_bits(rounded) - to_bits(C::kRound), first = ((exponent + kEven) >> 1) - kEven / 2;
    const Bits second = exponent - first;
    const T p = r + r * r * polynomial(C::kExp, r);
    return {p, from_bits<T>((first + C::kBias) << C::kMantissa), from_bits<T>((second + C::kBias) << C::kMantissa),
            second};
}

template <typename T>
CXRFAST_ALWAYS_INLINE T exp(T x) {
    const SplitExp<T> e = split_exp(clamp(x, Constants<T>::kExpLow, Constants<T>::kExpHigh));
    return (T(1) + e.p) * e.first * e.second;
}

// e^x − 1, accurate to the last digits also near 0.
template <typename T>
CXRFAST_ALWAYS_INLINE T expm1(T x) {
    using C = Constants<T>;
    const SplitExp<T> e = split_exp(clamp(x, C::kExpm1Low, C::kExpHigh));
    const T inverse = from_bits<T>((C::kBias - e.second_exponent) << C::kMantissa);  // 1 / second
    return (e.p * e.first + (e.first - inverse)) * e.second;
}

// x = 2^k·m with √½ ≤ m < √2, for positive, finite, normal x.
template <typename T>
struct SplitLog {
    T m, k, twice_inverse;  // twice_inverse: 2^(1 − k), or 0 where it is not a normal number
};

template <typename T>
CXRFAST_ALWAYS_INLINE SplitLog<T> split_log(T x) {
    using C = Constants<T>;
    using Bits = typename C::Bits;
    constexpr Bits kFraction = (Bits(1) << C::kMantissa) - 1;
    constexpr T kInteger = T(Bits(1) << C::kMantissa);  // the lowest bits of kInteger + j are j
    const Bits t = to_bits(x) - C::kSqrtHalf + (C::kBias << C::kMantissa), biased = t >> C::kMantissa;
    return {from_bits<T>((t & kFraction) + C::kSqrtHalf),
            from_bits<T>(to_bits(kInteger) | biased) - (kInteger + T(C::kBias)),
            from_bits<T>((2 * C::kBias + 1 - biased) << C::kMantissa)};
}

// log(2^k·(1 + f)) with √½ ≤ 1 + f < √2. With s = f/(2 + f): log(1 + f) = 2·artanh s = 2s + s·R(s²).
template <typename T>
CXRFAST_ALWAYS_INLINE T log_of_parts(T k, T f) {
    using C = Constants<T>;
    const T s = f / (T(2) + f), z = s * s, square = T(0.5) * f * f;
    const T tail = s * (square + z * polynomial(C::kLog, z)) + k * C::kLn2Low;
    return k * C::kLn2High + (f - (square - tail));
}

template <typename T>
CXRFAST_ALWAYS_INLINE T log(T x) {
    using C = Constants<T>;
    constexpr T kInfinity = std::numeric_limits<T>::infinity(), kNaN = std::numeric_limits<T>::quiet_NaN();
    constexpr T kDenormals = T(typename C::Bits(1) << (C::kMantissa + 2));
    const bool denormal = x < std::numeric_limits<T>::min();
    const SplitLog<T> split = split_log(denormal ? x * kDenormals : x);
    const T value = log_of_parts(split.k - (denormal ? T(C::kMantissa + 2) : T(0)), split.m - T(1));
    const T limited = x == kInfinity ? x : value;
    const T outside = x == T(0) ? -kInfinity : kNaN;
    return x > T(0) ? limited : outside;
}

// log(sum + lost), where sum is positive, finite and normal, and lost is its rounding error. NaN is preserved.
template <typename T>
CXRFAST_ALWAYS_INLINE T log_of_sum(T sum, T lost) {
    const SplitLog<T> split = split_log(sum);
    return log_of_parts(split.k, (split.m - T(1)) + T(0.5) * lost * split.twice_inverse);
}

// log(1 + x) for finite x > −1. NaN is preserved.
template <typename T>
CXRFAST_ALWAYS_INLINE T log1p_inside(T x) {
    const T sum = T(1) + x;
    return log_of_sum(sum, x > T(1) ? T(1) - (sum - x) : x - (sum - T(1)));
}

template <typename T>
CXRFAST_ALWAYS_INLINE T log1p(T x) {
    constexpr T kInfinity = std::numeric_limits<T>::infinity(), kNaN = std::numeric_limits<T>::quiet_NaN();
    const T value = x == kInfinity ? x : log1p_inside(x);
    const T outside = x == T(-1) ? -kInfinity : kNaN;
    return x > T(-1) ? value : outside;
}

// Cheaper versions for terms of sums and gradients: within 4 units in the last place.

// exp for sums, at half the cost. Results below 2^-126 (double: 2^-1022) may be 0; results above 2^127.5 (2^1023.5) may
// be infinity.
template <typename T>
CXRFAST_ALWAYS_INLINE T exp_normal_within(T x) {  // x ≤ Constants::kExpHigh
    using C = Constants<T>;
    constexpr T kLog2E = T(1.4426950408889634074), kBiased = C::kRound + T(C::kBias);
    x = x < C::kExpNormalLow ? C::kExpNormalLow : x;
    const T rounded = x * kLog2E + kBiased, n = rounded - kBiased;
    const T r = (x - n * C::kLn2High) - n * C::kLn2Low;
    const T p = T(1) + r * (T(1) + r * polynomial(C::kExp, r));
    return p * from_bits<T>(to_bits(rounded) << C::kMantissa);  // 2^n; 0 for the smallest n, infinity for the largest
}

template <typename T>
CXRFAST_ALWAYS_INLINE T exp_normal(T x) {
    return exp_normal_within(x > Constants<T>::kExpHigh ? Constants<T>::kExpHigh : x);
}

// e^-|x|
template <typename T>
CXRFAST_ALWAYS_INLINE T exp_normal_minus_abs(T x) {
    return exp_normal_within(-std::abs(x));
}

// log(1 + x) for x in [0, 1]. NaN is preserved.
template <typename T>
CXRFAST_ALWAYS_INLINE T log1p_unit(T x) {
    return x * polynomial(Constants<T>::kLog1p, x);
}

// 1 / (1 + x) for x in [0, 1], in half the time of a division. It starts with the parabola that is within 1/99 of it
// everywhere (from a Chebyshev polynomial of the third degree); each following Newton step squares the error.
template <typename T>
CXRFAST_ALWAYS_INLINE T reciprocal_one_plus(T x) {
    const T d = T(1) + x;
    T y = (T(32.0 / 99) * d - T(144.0 / 99)) * d + T(210.0 / 99);
#pragma GCC unroll 4
    for (int i = 0; i < Constants<T>::kNewtonSteps; ++i) y += y * (T(1) - d * y);
    return y;
}

}  // namespace cxrfast::simd

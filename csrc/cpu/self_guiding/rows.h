// One bag on the CPU, with its instances contiguous in `x`. Vectorised: a lane adds kRows elements in their precision
// before it continues in double, so that the order of additions depends only on the length of the bag. Formulas:
// math/self_guiding.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "cpu/common/lanes.h"
#include "cpu/common/vector_functions.h"
#include "math/self_guiding.h"

namespace cxrfast {

template <typename T>
struct Extremes {
    T least, most;  // NaN if there is one
};

template <typename T>
CXRFAST_CPU_CLONES Extremes<T> extremes(const T* x, int64_t n) {
    T least = std::numeric_limits<T>::infinity(), most = -least;
    int is_nan = 0;
#pragma omp simd reduction(min : least) reduction(max : most) reduction(| : is_nan)
    for (int64_t i = 0; i < n; ++i) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
        is_nan |= x[i] != x[i];
    }
    constexpr T kNan = std::numeric_limits<T>::quiet_NaN();
    return is_nan ? Extremes<T>{kNan, kNan} : Extremes<T>{least, most};
}

// The median

template <typename T>
CXRFAST_CPU_CLONES int64_t count_at_most(const T* x, int64_t n, T limit) {
    typename simd::Constants<T>::Bits count = 0;  // of the same width as an element
#pragma omp simd reduction(+ : count)
    for (int64_t i = 0; i < n; ++i) count += x[i] <= limit;
    return static_cast<int64_t>(count);
}

template <typename T>
CXRFAST_CPU_CLONES T least_above(const T* x, int64_t n, T limit) {
    T least = std::numeric_limits<T>::infinity();
#pragma omp simd reduction(min : least)
    for (int64_t i = 0; i < n; ++i) {
        const T value = x[i] > limit ? x[i] : std::numeric_limits<T>::infinity();
        least = value < least ? value : least;
    }
    return least;
}

// An integer with the same order as the numbers, and its inverse.
template <typename T>
typename simd::Constants<T>::Bits ordered_bits(T x) {
    using Bits = typename simd::Constants<T>::Bits;
    constexpr Bits kSign = Bits(1) << (8 * sizeof(T) - 1);
    const Bits bits = simd::to_bits(x);
    return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

template <typename T>
T from_ordered_bits(typename simd::Constants<T>::Bits bits) {
    using Bits = typename simd::Constants<T>::Bits;
    constexpr Bits kSign = Bits(1) << (8 * sizeof(T) - 1);
    return simd::from_bits<T>((bits & kSign) != 0 ? bits ^ kSign : ~bits);
}

template <typename T>
CXRFAST_CPU_CLONES T greatest_at_most(const T* x, int64_t n, T limit) {
    T greatest = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : greatest)
    for (int64_t i = 0; i < n; ++i) {
        const T value = x[i] <= limit ? x[i] : -std::numeric_limits<T>::infinity();
        greatest = value > greatest ? value : greatest;
    }
    return greatest;
}

// The element of rank `rank`. Vectorised passes count the elements up to a limit, until a limit separates the element
// from its neighbours. Limits alternate between two kinds: the point where a straight line through the known counts
// crosses the rank, and the midpoint. After kByValue passes, they are midpoints of the bit patterns, so that the search
// ends for any distribution.
template <typename T>
T element_of_rank(const T* x, int64_t n, int64_t rank, const Extremes<T>& range) {
    using Bits = typename simd::Constants<T>::Bits;
    constexpr int kByValue = 16;
    Bits low = ordered_bits(range.least) - 1, high = ordered_bits(range.most);  // low < answer <= high
    int64_t below = 0, within = n;                                              // number of elements <= low, <= high
    for (int pass = 0; high - low > 1; ++pass) {
        Bits middle = low + (high - low) / 2;
        if (pass < kByValue) {
            const T from = from_ordered_bits<T>(low + 1), to = from_ordered_bits<T>(high);
            const T share = pass % 2 != 0 ? T(0.5) : (T(rank - below) + T(0.5)) / T(within - below);
            const Bits guess = ordered_bits(from + (to - from) * share);  // of NaN or infinity: out of bounds
            if (low < guess && guess < high) middle = guess;
        }
        const T limit = from_ordered_bits<T>(middle);
        const int64_t count = count_at_most(x, n, limit);
        if (count == rank) return least_above(x, n, limit);
        if (count == rank + 1) return greatest_at_most(x, n, limit);
        (count > rank ? high : low) = middle;
        (count > rank ? within : below) = count;
    }
    return from_ordered_bits<T>(high);
}

// The median of the predictions σ(x). x must not contain NaN.
template <typename T>
T median_prediction(const T* x, int64_t n, const Extremes<T>& range, bool mean_of_middle) {
    const int64_t rank = (n - 1) / 2;
    const T lower = element_of_rank(x, n, rank, range);
    if (!mean_of_middle || n % 2 != 0) return sigmoid(lower);
    const T upper = count_at_most(x, n, lower) > rank + 1 ? lower : least_above(x, n, lower);
    return (sigmoid(lower) + sigmoid(upper)) / T(2);
}

// Eq. 8
template <typename T>
T certainty(const T* x, int64_t n, const Extremes<T>& range, bool positive, bool mean_of_middle) {
    if (!positive) return T(1);
    if (n == 0) return T(0);
    if (std::isnan(range.most)) return range.most;
    return sigmoid(range.most) - median_prediction(x, n, range, mean_of_middle);
}

// The sums of a positive bag

template <typename T>
struct GuidedLanes {
    T negative[kLanes], soft[kLanes], positive[kLanes], squares[kLanes], soft_count[kLanes], positive_count[kLanes];
};

struct GuidedTotals {
    double negative, soft, positive, squares, negative_count, soft_count, positive_count;
};

template <Theta THETA, bool PARTIAL, typename T>
CXRFAST_ALWAYS_INLINE void add_guided(const T* __restrict__ x,
                                      const Guide<T>& guide,
                                      const T* __restrict__ present,  // [kLanes] 0 or 1; only with PARTIAL
                                      GuidedLanes<T>& __restrict__ to) {
    for (int j = 0; j < kLanes; ++j) {
        const GuidedTerms<T> terms = guided_terms<QuickFunctions>(guide, THETA, x[j]);
        const T exists = PARTIAL ? present[j] : T(1);
        to.negative[j] += exists * terms.negative;
        to.positive[j] += exists * terms.positive;
        to.soft[j] += exists * terms.soft;
        to.squares[j] += exists * terms.squares;
        to.soft_count[j] += QuickFunctions::only(terms.is_soft, exists);
        to.positive_count[j] += QuickFunctions::only(terms.is_positive, exists);
    }
}

template <Theta THETA, typename T>
CXRFAST_CPU_CLONES GuidedTotals guided_totals(const T* x, int64_t n, const Guide<T>& bag_guide) {
    const Guide<T> guide = bag_guide;
    double total[6][kLanes] = {};
    for (int64_t first = 0; first < n; first += kRows * kLanes) {
        GuidedLanes<T> lanes = {};
        const int64_t end = std::min<int64_t>(n, first + kRows * kLanes);
        int64_t i = first;
        for (; i + kLanes <= end; i += kLanes) add_guided<THETA, false, T>(x + i, guide, nullptr, lanes);
        if (i < end) {
            T rest[kLanes], present[kLanes];
            for (int j = 0; j < kLanes; ++j) present[j] = i + j < end ? T(1) : T(0);
            for (int j = 0; j < kLanes; ++j) rest[j] = i + j < end ? x[i + j] : T(0);
            add_guided<THETA, true, T>(rest, guide, present, lanes);
        }
        const T* const parts[] = {lanes.negative, lanes.soft,       lanes.positive,
                                  lanes.squares,  lanes.soft_count, lanes.positive_count};
        for (int part = 0; part < 6; ++part) {
            for (int j = 0; j < kLanes; ++j) total[part][j] += parts[part][j];
        }
    }
    double sum[6] = {};
    for (int part = 0; part < 6; ++part) {
        for (int j = 0; j < kLanes; ++j) sum[part] += total[part][j];
    }
    return {sum[0], sum[1], sum[2], sum[3], static_cast<double>(n) - sum[4] - sum[5], sum[4], sum[5]};
}

template <typename T>
GuidedTotals positive_bag(const T* x, int64_t n, const Guide<T>& guide) {
    if (guide.is_silent()) return {};
    switch (guide.kind()) {
        case Theta::kPrediction:
            return guided_totals<Theta::kPrediction>(x, n, guide);
        case Theta::kRescaledLow:
            return guided_totals<Theta::kRescaledLow>(x, n, guide);
        default:
            return guided_totals<Theta::kRescaled>(x, n, guide);
    }
}

// With ADD, adds to the values in `grad`.
template <Theta THETA, bool ADD, typename T>
CXRFAST_CPU_CLONES void fill_guided_gradient(const T* __restrict__ x,
                                             int64_t n,
                                             const Guide<T>& bag_guide,
                                             const GuidedSlopes<T>& bag_slopes,
                                             T* __restrict__ grad) {
    const Guide<T> guide = bag_guide;
    const GuidedSlopes<T> slopes = bag_slopes;
    for (int64_t i = 0; i < n; ++i) {
        const T value = guided_gradient<QuickFunctions>(guide, THETA, slopes, x[i]);
        grad[i] = ADD ? grad[i] + value : value;
    }
}

template <bool ADD, typename T>
CXRFAST_CPU_CLONES void negative_gradient(const T* __restrict__ x, int64_t n, T slope, T* __restrict__ grad) {
    for (int64_t i = 0; i < n; ++i) grad[i] = (ADD ? grad[i] : T(0)) + slope * odds<QuickFunctions>(x[i]).p;
}

template <bool ADD, typename T>
void positive_bag_backward(const T* x, int64_t n, const Guide<T>& guide, const GuidedSlopes<T>& slopes, T* grad) {
    if (guide.is_silent()) {
        if (!ADD) std::fill_n(grad, n, T(0));
        return;
    }
    switch (guide.kind()) {
        case Theta::kPrediction:
            return fill_guided_gradient<Theta::kPrediction, ADD>(x, n, guide, slopes, grad);
        case Theta::kRescaledLow:
            return fill_guided_gradient<Theta::kRescaledLow, ADD>(x, n, guide, slopes, grad);
        default:
            return fill_guided_gradient<Theta::kRescaled, ADD>(x, n, guide, slopes, grad);
    }
}

}  // namespace cxrfast

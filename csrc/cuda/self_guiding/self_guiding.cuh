// self_guided_sums and self_guided_sums_ragged on the device. A short bag is processed by a warp, a longer one by a
// block. While extremes, median and sums are computed, the instances are in shared memory, each thread's own elements
// in its own places, so that they are read from memory once. A bag that does not fit is read again from the cache. No
// thread adds more than kInner elements before its sum is passed on, so that float32 is sufficient for any bag.
#pragma once

#include <limits>
#include <type_traits>

#include "cuda/common/rows.cuh"
#include "math/self_guiding.h"

namespace cxrfast {

constexpr int64_t kWarpBag = 512;  // bags up to this length are processed by a warp
constexpr int kInner = 64;

template <typename scalar_t>
struct GuidedBags {
    using acc_t = accumulate_t<scalar_t>;

    const scalar_t* x;        // [images, classes, length], or ragged [length, classes]
    const uint8_t* mask;      // [images or 1, classes or 1, length], or nullptr
    const int64_t* offsets;   // [images + 1] of ragged bags, or nullptr
    const uint8_t* positive;  // [images, classes]
    int64_t bags, classes, length;
    int64_t mask_image_stride, mask_class_stride;
    int64_t staged;  // number of elements of a bag that fit into the shared memory of a team
    double delta;
    bool rescale, mean_of_middle;
};

// One bag, as seen by its team.
template <typename scalar_t>
struct GuidedBag {
    using acc_t = accumulate_t<scalar_t>;

    const scalar_t* x;  // element i is at x[i * stride]
    const uint8_t* mask;
    int64_t start, stride, length;
    acc_t* stage;  // [length], or nullptr
    Team team;
    bool valid;  // the bag is inside x

    __device__ GuidedBag(const GuidedBags<scalar_t>& bags, int64_t bag, const Team& team, acc_t* shared)
        : x(bags.x),
          mask(nullptr),
          start(bag * bags.length),
          stride(1),
          length(bags.length),
          stage(nullptr),
          team(team),
          valid(true) {
        const int64_t image = quotient(bag, bags.classes), channel = bag - image * bags.classes;
        if (bags.offsets != nullptr) {
            const int64_t first = bags.offsets[image], last = bags.offsets[image + 1];
            valid = 0 <= first && first <= last && last <= bags.length;
            start = valid ? first * bags.classes + channel : 0;
            length = valid ? last - first : 0;
            stride = bags.classes;
        }
        x += start;
        if (bags.mask != nullptr) {
            mask = bags.mask + image * bags.mask_image_stride + channel * bags.mask_class_stride;
        }
        if (length <= bags.staged) stage = shared + team.index * bags.staged;
    }

    // Calls body(x) for the instances of this thread, which are read from memory and stored in shared memory.
    template <typename Body>
    __device__ void for_each_loaded(const Body& body) const {
        for (int64_t i = team.rank; i < length; i += team.size) {
            const acc_t value = static_cast<acc_t>(x[i * stride]);
            if (stage != nullptr) stage[i] = value;
            if (mask == nullptr || mask[i] != 0) body(value);
        }
    }

    // The same for stored instances.
    template <typename Body>
    __device__ void for_each(const Body& body) const {
        for (int64_t i = team.rank; i < length; i += team.size) {
            if (mask != nullptr && mask[i] == 0) continue;
            body(stage != nullptr ? stage[i] : static_cast<acc_t>(x[i * stride]));
        }
    }
};

template <typename acc_t>
struct BagRange {
    acc_t least, most;  // NaN if there is one
    int64_t count;

    static constexpr acc_t kInfinity = std::numeric_limits<acc_t>::infinity();
    static constexpr acc_t kNan = std::numeric_limits<acc_t>::quiet_NaN();

    static __device__ BagRange combine(const BagRange& a, const BagRange& b) {
        const bool is_nan = std::isnan(a.least) || std::isnan(b.least);
        return {is_nan ? kNan : (b.least < a.least ? b.least : a.least),
                is_nan ? kNan : (b.most > a.most ? b.most : a.most), a.count + b.count};
    }
};

template <typename acc_t>
struct GuidedTotal {
    acc_t negative, soft, positive, squares;
    int64_t soft_count, positive_count;

    static __device__ GuidedTotal combine(const GuidedTotal& a, const GuidedTotal& b) {
        return {a.negative + b.negative,     a.soft + b.soft,
                a.positive + b.positive,     a.squares + b.squares,
                a.soft_count + b.soft_count, a.positive_count + b.positive_count};
    }
};

// The scratch memory of a team for reductions.
template <typename acc_t>
struct GuidedShared {
    BagRange<acc_t> ranges[kRowThreads / kWarp];
    GuidedTotal<acc_t> totals[kRowThreads / kWarp];
    int64_t counts[kRowThreads / kWarp];
    acc_t values[kRowThreads / kWarp];
};

// An integer with the same order as the numbers, and its inverse.
template <typename T>
struct OrderedBits {
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    static constexpr Bits kSign = Bits(1) << (8 * sizeof(T) - 1);

    static __device__ Bits of(T x) {
        Bits bits;
        memcpy(&bits, &x, sizeof(T));
        return (bits & kSign) != 0 ? ~bits : bits | kSign;
    }
    static __device__ T number(Bits ordered) {
        const Bits bits = (ordered & kSign) != 0 ? ordered ^ kSign : ~ordered;
        T x;
        memcpy(&x, &bits, sizeof(T));
        return x;
    }
};

template <typename scalar_t, typename acc_t>
__device__ int64_t count_at_most(const GuidedBag<scalar_t>& bag, acc_t limit, GuidedShared<acc_t>& shared) {
    int64_t count = 0;
    bag.for_each([&](acc_t x) { count += x <= limit; });
    return team_reduce(count, bag.team, shared.counts, [](int64_t a, int64_t b) { return a + b; });
}

template <typename scalar_t, typename acc_t>
__device__ acc_t least_above(const GuidedBag<scalar_t>& bag, acc_t limit, GuidedShared<acc_t>& shared) {
    acc_t least = BagRange<acc_t>::kInfinity;
    bag.for_each([&](acc_t x) { least = x > limit && x < least ? x : least; });
    return team_reduce(least, bag.team, shared.values, [](acc_t a, acc_t b) { return a < b ? a : b; });
}

// The element of rank `rank`, by bisection of the integers between the smallest and the largest element.
template <typename scalar_t, typename acc_t>
__device__ acc_t element_of_rank(const GuidedBag<scalar_t>& bag,
                                 int64_t rank,
                                 const BagRange<acc_t>& range,
                                 GuidedShared<acc_t>& shared) {
    using Order = OrderedBits<acc_t>;
    using Bits = typename Order::Bits;
    Bits low = Order::of(range.least) - 1, high = Order::of(range.most);  // low < answer <= high
    int64_t below = 0, within = range.count;                              // elements at most low; at most high
    while (high - low > 1 && within - below > 1) {
        const Bits middle = low + (high - low) / 2;
        const int64_t count = count_at_most(bag, Order::number(middle), shared);
        if (count > rank) {
            high = middle;
            within = count;
        } else {
            low = middle;
            below = count;
        }
    }
    if (high - low == 1) return Order::number(high);
    return below == 0 ? range.least : least_above(bag, Order::number(low), shared);
}

// Eq. 8 of a positive bag
template <typename scalar_t, typename acc_t>
__device__ acc_t certainty(const GuidedBag<scalar_t>& bag,
                           const BagRange<acc_t>& range,
                           bool mean_of_middle,
                           GuidedShared<acc_t>& shared) {
    if (range.count == 0) return 0;
    if (std::isnan(range.most)) return range.most;
    const int64_t rank = (range.count - 1) / 2;
    const acc_t lower = element_of_rank(bag, rank, range, shared);
    acc_t median = sigmoid(lower);
    if (mean_of_middle && range.count % 2 == 0) {
        const acc_t upper = count_at_most(bag, lower, shared) > rank + 1 ? lower : least_above(bag, lower, shared);
        median = (median + sigmoid(upper)) / acc_t(2);
    }
    return sigmoid(range.most) - median;
}

template <typename scalar_t, typename acc_t>
__device__ GuidedTotal<acc_t> sum_negative(const GuidedBag<scalar_t>& bag) {
    GuidedTotal<acc_t> total{};
    acc_t inner = 0;
    int added = 0;
    bag.for_each([&](acc_t x) {
        inner += softplus(x);
        if (++added < kInner) return;
        total.negative += inner;
        inner = 0;
        added = 0;
    });
    total.negative += inner;
    return total;
}

template <typename scalar_t, typename acc_t>
__device__ GuidedTotal<acc_t> sum_positive(const GuidedBag<scalar_t>& bag, const Guide<acc_t>& guide) {
    using Total = GuidedTotal<acc_t>;
    const Theta kind = guide.kind();
    Total total{}, inner{};
    int added = 0;
    bag.for_each([&](acc_t x) {
        const GuidedTerms<acc_t> terms = guided_terms(guide, kind, x);
        inner.negative += terms.negative;
        inner.soft += terms.soft;
        inner.positive += terms.positive;
        inner.squares += terms.squares;
        inner.soft_count += terms.is_soft;
        inner.positive_count += terms.is_positive;
        if (++added < kInner) return;
        total = Total::combine(total, inner);
        inner = {};
        added = 0;
    });
    return Total::combine(total, inner);
}

// Calls body(bag) for every bag, with one team each.
template <typename scalar_t, typename Body>
__device__ void for_each_guided_bag(const GuidedBags<scalar_t>& bags, const Team& team, const Body& body) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * team.count;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * team.count + team.index; i < bags.bags; i += step) body(i);
}

template <typename scalar_t>
__global__ void __launch_bounds__(kRowThreads)
    sum_guided_bags(GuidedBags<scalar_t> bags,
                    accumulate_t<scalar_t>* sums,        // [kGuidedSums, bags]
                    accumulate_t<scalar_t>* statistics,  // [kGuidedStatistics, bags]
                    int team_size) {
    using acc_t = accumulate_t<scalar_t>;
    __shared__ GuidedShared<acc_t> shared;
    const Team team = this_team(team_size);
    for_each_guided_bag(bags, team, [&](int64_t index) {
        const GuidedBag<scalar_t> bag(bags, index, team, dynamic_shared<acc_t>());
        using Range = BagRange<acc_t>;
        Range range{Range::kInfinity, -Range::kInfinity, 0};
        bag.for_each_loaded([&](acc_t x) { range = Range::combine(range, {x, x, 1}); });
        range = team_reduce(range, team, shared.ranges, Range::combine);

        const bool positive = bags.positive[index] != 0;
        GuidedTotal<acc_t> total{};
        int64_t targets = range.count;  // number of instances with a target
        if (positive) {
            const Guide<acc_t> guide = Guide<acc_t>::of_bag(range.least, range.most, bags.delta, bags.rescale);
            if (guide.is_silent()) {
                targets = 0;
            } else {
                total = sum_positive(bag, guide);
            }
        } else {
            total = sum_negative<scalar_t, acc_t>(bag);
        }
        total = team_reduce(total, team, shared.totals, GuidedTotal<acc_t>::combine);
        const acc_t alpha = positive ? certainty(bag, range, bags.mean_of_middle, shared) : acc_t(1);
        if (team.rank != 0) return;
        const acc_t results[] = {total.negative, total.soft, total.positive, total.squares};
        for (int row = 0; row < kGuidedSums; ++row)
            sums[row * bags.bags + index] = bag.valid ? results[row] : Range::kNan;
        const bool empty = range.count == 0;
        statistics[kNegativeCount * bags.bags + index] =
            static_cast<acc_t>(targets - total.soft_count - total.positive_count);
        statistics[kSoftCount * bags.bags + index] = static_cast<acc_t>(total.soft_count);
        statistics[kPositiveCount * bags.bags + index] = static_cast<acc_t>(total.positive_count);
        statistics[kLeast * bags.bags + index] = empty ? Range::kNan : range.least;
        statistics[kMost * bags.bags + index] = empty ? Range::kNan : range.most;
        statistics[kCertainty * bags.bags + index] = alpha;
    });
}

template <typename scalar_t>
__global__ void __launch_bounds__(kRowThreads)
    differentiate_guided_bags(GuidedBags<scalar_t> bags,
                              const accumulate_t<scalar_t>* grad,        // [kGuidedSums, bags]
                              const accumulate_t<scalar_t>* statistics,  // [kGuidedStatistics, bags]
                              scalar_t* grad_x,                          // as x
                              bool add,                                  // add to the values in grad_x
                              int team_size) {
    using acc_t = accumulate_t<scalar_t>;
    const Team team = this_team(team_size);
    for_each_guided_bag(bags, team, [&](int64_t index) {
        const GuidedBag<scalar_t> bag(bags, index, team, nullptr);
        const auto slope = [&](int row) { return grad[row * bags.bags + index]; };
        const acc_t least = statistics[kLeast * bags.bags + index], most = statistics[kMost * bags.bags + index];
        const bool positive = bags.positive[index] != 0;
        const Guide<acc_t> guide = Guide<acc_t>::of_bag(least, most, bags.delta, bags.rescale);
        const bool silent = positive && guide.is_silent();
        const Theta kind = guide.kind();
        const GuidedSlopes<acc_t> slopes{slope(kNegative), slope(kSoft), slope(kPositive), slope(kSquares)};
        for (int64_t i = team.rank; i < bag.length; i += team.size) {
            acc_t result = 0;
            if (!silent && (bag.mask == nullptr || bag.mask[i] != 0)) {
                const acc_t x = static_cast<acc_t>(bag.x[i * bag.stride]);
                result = positive ? guided_gradient(guide, kind, slopes, x) : slopes.negative * sigmoid(x);
            }
            scalar_t& to = grad_x[bag.start + i * bag.stride];
            to = static_cast<scalar_t>(add ? static_cast<acc_t>(to) + result : result);
        }
    });
}

}  // namespace cxrfast

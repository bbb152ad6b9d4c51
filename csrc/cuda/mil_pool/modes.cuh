// The poolings of one bag, as rounds of reductions over its instances. Formulas: math/mil_pool.h.
//
// A pooling is called by a team, or by the blocks that share a long bag. In every round, add() adds a chunk of
// instances to a Total, combine() combines Totals, and finish() ends the round and returns whether there is another
// one. Afterwards, value(), and gradient() and sharpness_term() of every instance are available.
#pragma once

#include "cuda/common/staged_chunk.cuh"
#include "math/mil_pool.h"
#include "math/softplus_sum.h"

namespace cxrfast {

// A NaN counts as the largest and as the smallest number, so that it is propagated.
template <typename acc_t>
__device__ acc_t larger(acc_t a, acc_t b) {
    return b > a || b != b ? b : a;
}

template <typename acc_t>
__device__ acc_t smaller(acc_t a, acc_t b) {
    return b < a || b != b ? b : a;
}

template <typename acc_t>
struct Extremes {
    static constexpr acc_t kInfinity = std::numeric_limits<acc_t>::infinity();
    static constexpr acc_t kNan = std::numeric_limits<acc_t>::quiet_NaN();
};

template <typename acc_t>
struct NoisyOrPooling {
    static constexpr int kRounds = 2;
    struct Total {
        acc_t largest, sum;
    };

    int round;
    bool tail;           // all logits are so low that softplus(x) is e^x
    acc_t largest, sum;  // Σ softplus(x), in the tail Σ exp(x − largest)
    acc_t scale;         // 1 / P, outside the tail

    __device__ NoisyOrPooling(MilPool, acc_t, bool) : round(0), tail(false), largest(0), sum(0), scale(0) {}

    __device__ Total identity() const { return {-Extremes<acc_t>::kInfinity, 0}; }

    __device__ Total combine(const Total& a, const Total& b) const {
        return {larger(a.largest, b.largest), a.sum + b.sum};
    }

    template <typename Chunk>
    __device__ void add(Total& total, const Chunk& chunk, int64_t, const Team&) const {
        if (round == 0) {
            SoftplusSum<acc_t> energy;
            chunk.for_each_marked([&](acc_t x, int) {
                energy.add(x);
                total.largest = larger(total.largest, x);
            });
            total.sum += energy.value();
        } else {
            chunk.for_each_marked([&](acc_t x, int) { total.sum += std::exp(x - largest); });
        }
    }

    __device__ bool finish(const Total& total, int64_t) {
        sum = total.sum;
        if (round++ > 0) return false;
        largest = total.largest;
        tail = largest <= acc_t(kTailLogit);
        if (!tail) scale = acc_t(-1) / std::expm1(-sum);
        const bool possible = largest != -Extremes<acc_t>::kInfinity;
        if (!possible) sum = 0;
        return tail && possible;
    }

    __device__ acc_t value() const { return tail ? largest + std::log(sum) : log_expm1(sum); }

    // d logit P / dx = σ(x) / P
    __device__ acc_t gradient(acc_t x, int64_t) const {
        if (!tail) return scale * sigmoid(x);
        return sum == acc_t(0) ? acc_t(0) : std::exp(x - largest) / sum;
    }

    __device__ acc_t sharpness_term(acc_t) const { return 0; }
    __device__ acc_t sharpness_scale() const { return 0; }
};

// The first of equal instances counts; the first NaN is the largest.
template <typename acc_t>
struct MaxPooling {
    static constexpr int kRounds = 1;
    struct Total {
        acc_t value;
        int64_t index;
    };

    Total best;

    __device__ MaxPooling(MilPool, acc_t, bool) : best(identity()) {}

    __device__ Total identity() const { return {-Extremes<acc_t>::kInfinity, std::numeric_limits<int64_t>::max()}; }

    __device__ Total combine(const Total& a, const Total& b) const {
        const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
        const bool equal = a.value == b.value || (a_nan && b_nan);
        const bool takes_b = equal ? b.index < a.index : b_nan || (!a_nan && b.value > a.value);
        return takes_b ? b : a;
    }

    template <typename Chunk>
    __device__ void add(Total& total, const Chunk& chunk, int64_t first, const Team& team) const {
        chunk.for_each_marked([&](acc_t x, int e) { total = combine(total, {x, first + Chunk::offset(e, team)}); });
    }

    __device__ bool finish(const Total& total, int64_t) {
        best = total;
        return false;
    }

    __device__ acc_t value() const { return best.value; }
    __device__ acc_t gradient(acc_t, int64_t index) const { return index == best.index ? acc_t(1) : acc_t(0); }
    __device__ acc_t sharpness_term(acc_t) const { return 0; }
    __device__ acc_t sharpness_scale() const { return 0; }
};

// Round 0 sums w·p and w·q, which is accurate while neither sum is close to underflow. Otherwise, round 1 finds the
// largest log(w·p) and log(w·q), and round 2 sums relative to them.
template <typename acc_t>
struct WeightedMeanPooling {
    static constexpr int kRounds = 3;
    static constexpr acc_t kTiny = sizeof(acc_t) == 4 ? acc_t(1e-24) : acc_t(1e-280);
    struct Total {
        acc_t p, q;
    };

    MilPool mode;
    acc_t sharpness;
    int round;
    bool direct;
    Total largest, sum;

    __device__ WeightedMeanPooling(MilPool mode, acc_t sharpness, bool)
        : mode(mode), sharpness(sharpness), round(0), direct(false), largest{0, 0}, sum{0, 0} {}

    __device__ Total identity() const {
        return round == 1 ? Total{-Extremes<acc_t>::kInfinity, -Extremes<acc_t>::kInfinity} : Total{0, 0};
    }

    __device__ Total combine(const Total& a, const Total& b) const {
        return round == 1 ? Total{larger(a.p, b.p), larger(a.q, b.q)} : Total{a.p + b.p, a.q + b.q};
    }

    // w; exponential weights are relative to their upper bound
    __device__ acc_t weight(acc_t p, acc_t q) const {
        if (mode == MilPool::kSoftmax) return std::exp(sharpness > acc_t(0) ? -sharpness * q : sharpness * p);
        return mode == MilPool::kLinearSoftmax ? p : acc_t(1);
    }

    static __device__ acc_t relative(acc_t log_term, acc_t largest) {
        return largest == -Extremes<acc_t>::kInfinity ? acc_t(0) : std::exp(log_term - largest);
    }

    template <typename Chunk>
    __device__ void add(Total& total, const Chunk& chunk, int64_t, const Team&) const {
        if (round == 0) {
            chunk.for_each_marked([&](acc_t x, int) {
                const acc_t p = sigmoid(x), q = sigmoid(-x), w = weight(p, q);
                total.p += w * p;
                total.q += w * q;
            });
            return;
        }
        chunk.for_each_marked([&](acc_t x, int) {
            const acc_t log_w = log_weight(mode, sharpness, x);
            const acc_t u = log_w + log_sigmoid(x), v = log_w + log_sigmoid(-x);
            total =
                round == 1 ? combine(total, {u, v}) : combine(total, {relative(u, largest.p), relative(v, largest.q)});
        });
    }

    __device__ bool finish(const Total& total, int64_t) {
        if (round == 0) direct = total.p >= kTiny && total.q >= kTiny;
        if (round == 1) {
            largest = total;
        } else {
            sum = total;
        }
        ++round;
        return !direct && round < kRounds;
    }

    __device__ acc_t value() const {
        constexpr acc_t kInfinity = Extremes<acc_t>::kInfinity;
        if (largest.p == -kInfinity && largest.q == -kInfinity) return -kInfinity;  // all p = 0, and so all weights p
        return (largest.p + std::log(sum.p)) - (largest.q + std::log(sum.q));
    }

    // The shares of the instance in Σ w p and Σ w q.
    __device__ Total shares(acc_t x) const {
        if (direct) {
            const acc_t p = sigmoid(x), q = sigmoid(-x), w = weight(p, q);
            return {w * p / sum.p, w * q / sum.q};
        }
        const acc_t log_w = log_weight(mode, sharpness, x);
        const acc_t p = relative(log_w + log_sigmoid(x), largest.p), q = relative(log_w + log_sigmoid(-x), largest.q);
        return {sum.p == acc_t(0) ? acc_t(0) : p / sum.p, sum.q == acc_t(0) ? acc_t(0) : q / sum.q};
    }

    __device__ acc_t gradient(acc_t x, int64_t) const {
        const Total share = shares(x);
        return weighted_mean_gradient(mode, sharpness, x, share.p, share.q);
    }

    // Σ (P − Q)·p = −Σ (P − Q)·q, because the shares sum to one. The smaller of p and q has less cancellation.
    __device__ acc_t sharpness_term(acc_t x) const {
        const Total share = shares(x);
        const bool unlikely = largest.p + std::log(sum.p) < largest.q + std::log(sum.q);
        return (share.p - share.q) * (unlikely ? sigmoid(x) : -sigmoid(-x));
    }
    __device__ acc_t sharpness_scale() const { return 1; }
};

}  // namespace cxrfast

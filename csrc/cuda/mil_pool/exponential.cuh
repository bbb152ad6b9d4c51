// The poolings that are exponential means: lse and the generalised mean. modes.cuh explains the rounds.
#pragma once

#include "cuda/mil_pool/modes.cuh"

namespace cxrfast {

// E_r(c) = 1/r · log mean exp(r·c) of numbers c >= 0, accurate to its last digits for any size. It is computed from Σ
// expm1(r·c) and, if that is not sufficient (see second_term) or weights are requested, from a second sum.
template <typename acc_t>
struct ExponentialMean {
    enum class Case { kLinear, kNear, kFar };  // r·c so small that exp is linear; mean exp(r·c) near 1; other

    acc_t r, count, log_largest;
    acc_t pivot;  // the c with the largest r·c, relative to which exponentials are computed
    Case kind;
    acc_t sum;               // Σ exp(r·(c − pivot))
    acc_t value, log_value;  // log_value is accurate where value underflows

    // From the largest and the smallest c, and the sum of expm1(r·c).
    __device__ void start(acc_t rate, acc_t n, acc_t largest, acc_t smallest, acc_t log_of_largest, acc_t near_sum) {
        r = rate;
        count = n;
        log_largest = log_of_largest;
        pivot = r < acc_t(0) ? smallest : largest;
        const acc_t mean = near_sum / n;
        kind = std::abs(r) * largest <= acc_t(kLinearExponent) ? Case::kLinear
               : mean >= acc_t(-0.5) && mean <= acc_t(1)       ? Case::kNear
                                                               : Case::kFar;
        value = std::log1p(mean) / r;
        log_value = std::log(value);
    }

    template <typename LogC>
    __device__ acc_t second_term(acc_t c, const LogC& log_c) const {
        if (kind != Case::kLinear) return std::exp(r * (c - pivot));
        return log_largest == -Extremes<acc_t>::kInfinity ? acc_t(0) : std::exp(log_c() - log_largest);
    }

    __device__ void finish(acc_t second_sum) {
        sum = kind == Case::kLinear ? count : second_sum;
        if (kind == Case::kNear) return;
        if (kind == Case::kLinear) {
            log_value = log_largest + std::log(second_sum) - std::log(count);
            value = std::exp(log_value);
        } else {
            value = pivot == Extremes<acc_t>::kInfinity ? pivot : pivot + std::log(second_sum / count) / r;
            log_value = std::log(value);
        }
    }

    __device__ acc_t weight(acc_t c) const { return std::exp(r * (c - pivot)) / sum; }  // dE_r/dc

    // (dE_r/dr) / E is scale · Σ slope_term, from c − E = E·expm1(log c − log E), which is accurate where c underflows.
    __device__ acc_t slope_term(acc_t log_c) const {
        const acc_t relative = std::expm1(log_c - log_value);
        return relative * relative * exponential_mean_curvature(r * value * relative);
    }
    __device__ acc_t slope_scale() const { return value / count; }
};

template <typename acc_t>
struct ExponentialTotal {
    acc_t largest, smallest;  // logits
    acc_t p, q;

    static __device__ ExponentialTotal identity() {
        return {-Extremes<acc_t>::kInfinity, Extremes<acc_t>::kInfinity, 0, 0};
    }
    static __device__ ExponentialTotal combine(const ExponentialTotal& a, const ExponentialTotal& b) {
        return {larger(a.largest, b.largest), smaller(a.smallest, b.smallest), a.p + b.p, a.q + b.q};
    }
};

// p̄ = E_r(p) and 1 − p̄ = E_{−r}(q)
template <typename acc_t>
struct LsePooling {
    static constexpr int kRounds = 2;
    using Total = ExponentialTotal<acc_t>;

    acc_t r;
    bool backward;
    int round;
    ExponentialMean<acc_t> p, q;

    __device__ LsePooling(MilPool, acc_t sharpness, bool backward)
        : r(sharpness), backward(backward), round(0), p{}, q{} {}

    __device__ Total identity() const { return Total::identity(); }
    __device__ Total combine(const Total& a, const Total& b) const { return Total::combine(a, b); }

    template <typename Chunk>
    __device__ void add(Total& total, const Chunk& chunk, int64_t, const Team&) const {
        if (round == 0) {
            chunk.for_each_marked([&](acc_t x, int) {
                const Total one{x, x, std::expm1(r * sigmoid(x)), std::expm1(-r * sigmoid(-x))};
                total = combine(total, one);
            });
            return;
        }
        chunk.for_each_marked([&](acc_t x, int) {
            total.p += p.second_term(sigmoid(x), [x] { return log_sigmoid(x); });
            total.q += q.second_term(sigmoid(-x), [x] { return log_sigmoid(-x); });
        });
    }

    __device__ bool finish(const Total& total, int64_t count) {
        if (round++ == 0) {
            const acc_t n = static_cast<acc_t>(count), high = total.largest, low = total.smallest;
            p.start(r, n, sigmoid(high), sigmoid(low), log_sigmoid(high), total.p);
            q.start(-r, n, sigmoid(-low), sigmoid(-high), log_sigmoid(-low), total.q);
            constexpr auto kNear = ExponentialMean<acc_t>::Case::kNear;
            return backward || p.kind != kNear || q.kind != kNear;
        }
        p.finish(total.p);
        q.finish(total.q);
        return false;
    }

    __device__ acc_t value() const { return p.log_value - q.log_value; }

    // d logit p̄ / dx_i = W_i·p_i q_i / (p̄ q̄)
    __device__ acc_t gradient(acc_t x, int64_t) const {
        const acc_t log_variance = log_sigmoid(x) + log_sigmoid(-x);
        return p.weight(sigmoid(x)) * std::exp(log_variance - (p.log_value + q.log_value));
    }

    // d logit p̄ / dr = (dE_r/dr) / (p̄ q̄), from the smaller of p̄ and q̄. q̄(r) = E_{−r}(q) has the slope −dp̄/dr.
    __device__ acc_t sharpness_term(acc_t x) const {
        return p.log_value < q.log_value ? p.slope_term(log_sigmoid(x)) : q.slope_term(log_sigmoid(-x));
    }
    __device__ acc_t sharpness_scale() const {
        return p.log_value < q.log_value ? p.slope_scale() / q.value : q.slope_scale() / p.value;
    }
};

// −log p̄ = E_{−r}(−log p)
template <typename acc_t>
struct GeneralizedMeanPooling {
    static constexpr int kRounds = 2;
    using Total = ExponentialTotal<acc_t>;

    acc_t r;
    bool backward;
    int round;
    ExponentialMean<acc_t> c;  // c̄ = −log p̄

    __device__ GeneralizedMeanPooling(MilPool, acc_t sharpness, bool backward)
        : r(sharpness), backward(backward), round(0), c{} {}

    __device__ Total identity() const { return Total::identity(); }
    __device__ Total combine(const Total& a, const Total& b) const { return Total::combine(a, b); }

    template <typename Chunk>
    __device__ void add(Total& total, const Chunk& chunk, int64_t, const Team&) const {
        if (round == 0) {
            chunk.for_each_marked(
                [&](acc_t x, int) { total = combine(total, {x, x, std::expm1(-r * softplus(-x)), acc_t(0)}); });
            return;
        }
        chunk.for_each_marked(
            [&](acc_t x, int) { total.p += c.second_term(softplus(-x), [x] { return log_softplus(-x); }); });
    }

    __device__ bool finish(const Total& total, int64_t count) {
        if (round++ == 0) {
            const acc_t high = total.largest, low = total.smallest;
            c.start(-r, static_cast<acc_t>(count), softplus(-low), softplus(-high), log_softplus(-low), total.p);
            return backward || c.kind != ExponentialMean<acc_t>::Case::kNear;
        }
        c.finish(total.p);
        return false;
    }

    __device__ bool tail() const { return c.value <= acc_t(kLinearExponent); }  // 1 − p̄ is c̄
    __device__ acc_t value() const { return tail() ? -c.log_value : -log_expm1(c.value); }

    // d logit p̄ / dx_i = W_i·q_i / q̄
    __device__ acc_t gradient(acc_t x, int64_t) const {
        const acc_t log_q = tail() ? c.log_value : std::log(-std::expm1(-c.value));
        return c.weight(softplus(-x)) * std::exp(log_sigmoid(-x) - log_q);
    }

    // d logit p̄ / dr = (dE/dρ at ρ = −r) / q̄
    __device__ acc_t sharpness_term(acc_t x) const { return c.slope_term(log_softplus(-x)); }
    __device__ acc_t sharpness_scale() const {
        return tail() ? c.slope_scale() : c.slope_scale() * c.value / -std::expm1(-c.value);
    }
};

}  // namespace cxrfast

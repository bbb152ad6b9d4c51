// mil_pool and mil_pool_ragged on the device. A short bag is processed by a warp, a longer one by a block. Instances
// stay in registers or in the cache between the rounds of the pooling (modes.cuh), so that they are read from memory
// once. A dense bag longer than kPartLength is divided among blocks: every round is a launch that writes one Total per
// part. The next launch combines them in a fixed order and continues. No thread adds more than a few hundred elements
// before its sum enters a tree reduction, so that float32 is sufficient for any bag.
#pragma once

#include "cuda/mil_pool/modes.cuh"

namespace cxrfast {

constexpr int64_t kWarpBag = 512;       // bags up to this length are processed by a warp
constexpr int64_t kPartLength = 16384;  // of a long bag

template <typename scalar_t>
struct Bags {
    using acc_t = accumulate_t<scalar_t>;

    const scalar_t* x;          // [bags, length], or ragged [length, classes]
    const uint8_t* mask;        // [images or 1, classes or 1, length], or nullptr
    const int64_t* offsets;     // [images + 1] of ragged bags, or nullptr
    const acc_t* sharpness_of;  // [classes], or nullptr
    int64_t bags, classes, length, parts;
    int64_t mask_image_stride, mask_class_stride;
    acc_t empty;  // the result for a bag without instances
    bool packed;

    __device__ acc_t sharpness(int64_t channel) const {
        return sharpness_of == nullptr ? acc_t(0) : sharpness_of[channel];
    }
};

template <typename Total>
struct Counted {
    Total total;
    int64_t count;  // instances
};

template <typename Total>
struct Shared {
    Total totals[kRowThreads / kWarp];
    int64_t counts[kRowThreads / kWarp];
};

// One part of one bag, as seen by its team.
template <typename Pooling, typename scalar_t>
struct BagPart {
    using acc_t = accumulate_t<scalar_t>;
    using Instances = StagedChunk<scalar_t>;
    using Total = typename Pooling::Total;

    int64_t bag, channel, part;
    int64_t start;       // start of the bag in x
    int64_t begin, end;  // of the part, in instances of the bag
    bool valid;          // the bag is inside x
    Row<scalar_t> row;
    Team team;
    Instances chunk;
    int64_t loaded;  // first instance of the chunk

    __device__ BagPart(const Bags<scalar_t>& bags, int64_t bag, int64_t part, const Team& team, acc_t* slots)
        : bag(bag), part(part), valid(true), team(team), chunk{slots + threadIdx.x, 0, 0}, loaded(-1) {
        const int64_t image = quotient(bag, bags.classes);
        channel = bag - image * bags.classes;
        begin = part * kPartLength;
        end = bags.parts == 1 ? bags.length : min(bags.length, begin + kPartLength);
        start = bag * bags.length;
        row = {bags.x, nullptr, 1, bags.packed};
        if (bags.offsets != nullptr) {
            const int64_t first = bags.offsets[image], last = bags.offsets[image + 1];
            valid = 0 <= first && first <= last && last <= bags.length;
            start = valid ? first * bags.classes + channel : 0;
            end = valid ? last - first : 0;
            row.stride = bags.classes;
        }
        row.x += start;
        if (bags.mask != nullptr) {
            row.mask = bags.mask + image * bags.mask_image_stride + channel * bags.mask_class_stride;
        }
    }

    template <typename Body>
    __device__ void for_each_chunk(const Body& body) {
        for (int64_t first = begin; first < end; first += Instances::kElements * team.size) {
            if (first != loaded) chunk.load(row, first, end, team);
            loaded = first;
            body(first);
        }
    }

    // The Total of the part in the current round of the pooling, and its number of instances. All threads get the same.
    __device__ Counted<Total> reduce(const Pooling& pooling, Shared<Total>& shared) {
        constexpr int kInner = 16;  // chunks; the two levels keep sums short
        Total outer = pooling.identity(), inner = outer;
        int chunks = 0;
        int64_t marked = 0;
        for_each_chunk([&](int64_t first) {
            pooling.add(inner, chunk, first, team);
            marked += __popc(chunk.marked);
            if (++chunks < kInner) return;
            outer = pooling.combine(outer, inner);
            inner = pooling.identity();
            chunks = 0;
        });
        return combined(pooling, {pooling.combine(outer, inner), row.mask == nullptr ? end - begin : marked}, shared);
    }

    // Without a mask, every thread knows the number of instances.
    __device__ Counted<Total> combined(const Pooling& pooling, Counted<Total> own, Shared<Total>& shared) const {
        own.total = team_reduce(own.total, team, shared.totals,
                                [&](const Total& a, const Total& b) { return pooling.combine(a, b); });
        if (row.mask != nullptr) {
            own.count = team_reduce(own.count, team, shared.counts, [](int64_t a, int64_t b) { return a + b; });
        }
        return own;
    }
};

// What the parts of long bags pass to the next launch.
template <typename Pooling>
struct PartTotals {
    Counted<typename Pooling::Total>* totals;  // [kRounds, bags, parts]
    int launch;                                // number of this launch, the round that it reduces; kRounds: the last
};

// Completes all rounds of `pooling` and returns the number of instances. For long bags, it only completes the rounds
// that earlier launches have reduced; if this launch is to reduce a round, it does so and returns -1.
template <typename Pooling, typename scalar_t>
__device__ int64_t run_rounds(Pooling& pooling,
                              BagPart<Pooling, scalar_t>& part,
                              const Bags<scalar_t>& bags,
                              const PartTotals<Pooling>& partial) {
    using Total = typename Pooling::Total;
    __shared__ Shared<Total> shared;
    const bool shares = bags.parts > 1;
    int64_t n = 0;
    bool goes_on = true;
    for (int round = 0; shares && goes_on && round < partial.launch; ++round) {
        const Counted<Total>* totals = partial.totals + (round * bags.bags + part.bag) * bags.parts;
        Counted<Total> own{pooling.identity(), 0};
        for (int64_t i = part.team.rank; i < bags.parts; i += part.team.size) {
            own = {pooling.combine(own.total, totals[i].total), own.count + totals[i].count};
        }
        if (part.row.mask == nullptr) own.count = bags.length;
        own = part.combined(pooling, own, shared);
        n = own.count;
        goes_on = n > 0 && pooling.finish(own.total, n);
    }
    if (shares && partial.launch == Pooling::kRounds) return n;
    while (goes_on) {
        const Counted<Total> own = part.reduce(pooling, shared);
        if (shares) {
            Counted<Total>* to = partial.totals + (partial.launch * bags.bags + part.bag) * bags.parts + part.part;
            if (part.team.rank == 0) *to = own;
            break;
        }
        n = own.count;
        goes_on = n > 0 && pooling.finish(own.total, n);
    }
    return shares ? -1 : n;
}

// Calls body(bag, part) for every part of every bag, with one team each.
template <typename scalar_t, typename Body>
__device__ void for_each_part(const Bags<scalar_t>& bags, const Team& team, const Body& body) {
    const int64_t items = bags.bags * bags.parts, step = static_cast<int64_t>(gridDim.x) * team.count;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * team.count + team.index; i < items; i += step) {
        const int64_t bag = bags.parts == 1 ? i : quotient(i, bags.parts);
        body(bag, i - bag * bags.parts);
    }
}

template <typename Pooling, typename scalar_t>
__global__ void __launch_bounds__(kRowThreads) pool_bags(Bags<scalar_t> bags,
                                                         MilPool mode,
                                                         scalar_t* out,  // [bags]
                                                         PartTotals<Pooling> partial,
                                                         int team_size) {
    using acc_t = accumulate_t<scalar_t>;
    __shared__ acc_t slots[StagedChunk<scalar_t>::kSlots];
    const Team team = this_team(team_size);
    for_each_part(bags, team, [&](int64_t bag, int64_t index) {
        BagPart<Pooling, scalar_t> part(bags, bag, index, team, slots);
        Pooling pooling(mode, bags.sharpness(part.channel), false);
        const int64_t n = run_rounds(pooling, part, bags, partial);
        if (n < 0 || team.rank != 0 || index != 0) return;
        const acc_t value = n == 0 ? bags.empty : pooling.value();
        out[bag] = static_cast<scalar_t>(part.valid ? value : Extremes<acc_t>::kNan);
    });
}

template <typename scalar_t>
struct PoolGradients {
    using acc_t = accumulate_t<scalar_t>;
    const scalar_t* grad;   // [bags]
    scalar_t* grad_x;       // as x
    acc_t* grad_sharpness;  // [bags, parts], or nullptr
};

template <typename Pooling, typename scalar_t>
__global__ void __launch_bounds__(kRowThreads) pool_bags_backward(
    Bags<scalar_t> bags, MilPool mode, PoolGradients<scalar_t> to, PartTotals<Pooling> partial, int team_size) {
    using acc_t = accumulate_t<scalar_t>;
    __shared__ acc_t shared[kRowThreads / kWarp];
    __shared__ acc_t slots[StagedChunk<scalar_t>::kSlots];
    const Team team = this_team(team_size);
    for_each_part(bags, team, [&](int64_t bag, int64_t index) {
        BagPart<Pooling, scalar_t> part(bags, bag, index, team, slots);
        Pooling pooling(mode, bags.sharpness(part.channel), true);
        const int64_t n = run_rounds(pooling, part, bags, partial);
        if (n < 0) return;
        const acc_t scale = static_cast<acc_t>(to.grad[bag]);
        acc_t slope = 0;
        part.for_each_chunk([&](int64_t first) {
            part.chunk.replace([&](acc_t x, int e) {
                if (to.grad_sharpness != nullptr) slope += pooling.sharpness_term(x);
                return scale * pooling.gradient(x, first + part.chunk.offset(e, team));
            });
            part.chunk.store(to.grad_x + part.start, part.row, first, team);
        });
        if (to.grad_sharpness == nullptr) return;
        slope = team_reduce(slope, team, shared, [](acc_t a, acc_t b) { return a + b; });
        if (team.rank != 0) return;
        to.grad_sharpness[bag * bags.parts + index] = n == 0 ? acc_t(0) : scale * slope * pooling.sharpness_scale();
    });
}

}  // namespace cxrfast

// A chunk of a row in shared memory, where every thread keeps its own elements. Its loops are not unrolled, so that the
// code of long formulas exists only once.
#pragma once

#include "cuda/common/rows.cuh"

namespace cxrfast {

// The elements [first, first + kElements · team.size) of a row, limited by `end`.
template <typename scalar_t>
struct StagedChunk {
    using acc_t = accumulate_t<scalar_t>;
    static constexpr int kPacks = 4, kElements = kPacks * kPack;  // per thread
    static constexpr int kSlots = kElements * kRowThreads;        // per block

    acc_t* slots;         // of this thread, kRowThreads apart
    unsigned int inside;  // bit e: element e exists
    unsigned int marked;  // bit e: element e exists and is in the mask

    static __device__ int offset(int e, const Team& team) {  // from `first`
        return ((e / kPack) * team.size + team.rank) * kPack + e % kPack;
    }

    __device__ void load(const Row<scalar_t>& row, int64_t first, int64_t end, const Team& team) {
        const int n = static_cast<int>(min(end - first, static_cast<int64_t>(kElements * team.size)));
        const uint8_t* mask = row.mask == nullptr ? nullptr : row.mask + first;
        inside = marked = 0;
        if (row.packed) {
            load_packs(row.x + first, mask, n, team);
            return;
        }
        const scalar_t* x = row.x + first * row.stride;
#pragma unroll 4
        for (int e = 0; e < kElements; ++e) {
            const int i = offset(e, team);
            if (i >= n) continue;
            slots[e * kRowThreads] = static_cast<acc_t>(x[i * row.stride]);
            inside |= 1u << e;
            if (mask == nullptr || mask[i] != 0) marked |= 1u << e;
        }
    }

    __device__ void store(scalar_t* to, const Row<scalar_t>& row, int64_t first, const Team& team) const {
        scalar_t* place = to + first * row.stride;
        if (!row.packed) {
#pragma unroll 4
            for (int e = 0; e < kElements; ++e) {
                if (inside >> e & 1u) {
                    place[offset(e, team) * row.stride] = static_cast<scalar_t>(slots[e * kRowThreads]);
                }
            }
            return;
        }
#pragma unroll
        for (int p = 0; p < kPacks; ++p) {
            if ((inside >> (p * kPack) & 1u) == 0) continue;
            Pack<scalar_t> pack;
#pragma unroll
            for (int j = 0; j < kPack; ++j) {
                pack.at[j] = static_cast<scalar_t>(slots[(p * kPack + j) * kRowThreads]);
            }
            *reinterpret_cast<Pack<scalar_t>*>(place + offset(p * kPack, team)) = pack;
        }
    }

    // Calls body(x, element) for the marked elements.
    template <typename Body>
    __device__ void for_each_marked(const Body& body) const {
#pragma unroll 1
        for (int e = 0; e < kElements; ++e) {
            if (marked >> e & 1u) body(slots[e * kRowThreads], e);
        }
    }

    // Replaces x by body(x, element) for marked elements, and by 0 for others.
    template <typename Body>
    __device__ void replace(const Body& body) {
#pragma unroll 1
        for (int e = 0; e < kElements; ++e) {
            acc_t& x = slots[e * kRowThreads];
            x = marked >> e & 1u ? body(x, e) : acc_t(0);
        }
    }

  private:
    __device__ void load_packs(const scalar_t* x, const uint8_t* mask, int n, const Team& team) {
        Pack<scalar_t> packs[kPacks] = {};
        Pack<uint8_t> masks[kPacks] = {};
#pragma unroll
        for (int p = 0; p < kPacks; ++p) {
            const int i = offset(p * kPack, team);
            if (i >= n) continue;
            packs[p] = *reinterpret_cast<const Pack<scalar_t>*>(x + i);
            if (mask != nullptr) masks[p] = *reinterpret_cast<const Pack<uint8_t>*>(mask + i);
            inside |= 15u << (p * kPack);
        }
        if (mask == nullptr) marked = inside;
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
            slots[e * kRowThreads] = static_cast<acc_t>(packs[e / kPack].at[e % kPack]);
            if (masks[e / kPack].at[e % kPack] != 0) marked |= 1u << e;
        }
    }
};

}  // namespace cxrfast

// Shared by kernels that reduce rows: teams of threads, and chunks of a row in their registers.
//
// A row is read by a team, which is a warp or a block. The assignment of elements to threads depends only on the index
// of the element and the size of the team, not on dtype or alignment, so that sums have the same order for float16 and
// float32.
#pragma once

#include <cstring>

#include "common/dispatch.h"
#include "cuda/common/cuda.cuh"

namespace cxrfast {

constexpr int kRowThreads = 256;  // of a block: 8 teams of one warp, or 1 team
constexpr int kPack = 4;          // adjacent elements that a thread reads at once
constexpr unsigned int kAllLanes = 0xffffffffu;

struct Team {
    int size;   // kWarp or kRowThreads
    int rank;   // of this thread
    int index;  // of the team in its block
    int count;  // teams in a block
};

__device__ inline Team this_team(int size) {
    const int thread = static_cast<int>(threadIdx.x);
    return size == kWarp ? Team{size, thread % kWarp, thread / kWarp, kRowThreads / kWarp} : Team{size, thread, 0, 1};
}

template <typename T>
__device__ T shuffle_xor(T value, int lanes) {
    constexpr int kWords = sizeof(T) / sizeof(int);
    static_assert(sizeof(T) % sizeof(int) == 0);
    int words[kWords];
    memcpy(words, &value, sizeof(T));
#pragma unroll
    for (int& word : words) word = __shfl_xor_sync(kAllLanes, word, lanes);
    memcpy(&value, words, sizeof(T));
    return value;
}

// Reduces the values of the team; all threads get the same bits. `combine` must be commutative.
template <typename T, typename Combine>
__device__ T team_reduce(T value, const Team& team, T* shared /* [kRowThreads / kWarp] */, const Combine& combine) {
#pragma unroll
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value = combine(value, shuffle_xor(value, lanes));
    if (team.size == kWarp) return value;
    __syncthreads();  // the result of the last reduction has been read
    if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
    __syncthreads();
    T total = shared[0];
    for (int warp = 1; warp < kRowThreads / kWarp; ++warp) total = combine(total, shared[warp]);
    return total;
}

template <typename T>
struct alignas(sizeof(T) * kPack < 16 ? sizeof(T) * kPack : 16) Pack {
    T at[kPack];
};

// Whether rows of n contiguous elements consist of whole, aligned packs.
template <typename T>
bool rows_are_packed(const T* rows, int64_t n) {
    return n % kPack == 0 && reinterpret_cast<uintptr_t>(rows) % alignof(Pack<T>) == 0;
}

template <typename scalar_t>
struct Row {
    const scalar_t* x;    // element i is at x[i * stride]
    const uint8_t* mask;  // contiguous; nullptr: all are marked
    int64_t stride;
    bool packed;  // stride is 1, and x and the mask consist of whole, aligned packs
};

// The elements [first, first + kElements · team.size) of a row, limited by `end`. All packs of a thread are read
// together.
template <typename scalar_t, int kPacks>
struct Chunk {
    using acc_t = accumulate_t<scalar_t>;
    static constexpr int kElements = kPacks * kPack;  // per thread

    acc_t x[kElements];   // 0 for elements that do not exist
    unsigned int inside;  // bit e: element e exists
    unsigned int marked;  // bit e: element e exists and is in the mask

    static __device__ int offset(int e, const Team& team) {  // from `first`
        return ((e / kPack) * team.size + team.rank) * kPack + e % kPack;
    }

    static __device__ int length(int64_t first, int64_t end, const Team& team) {
        return static_cast<int>(min(end - first, static_cast<int64_t>(kElements * team.size)));
    }

    __device__ void load(const Row<scalar_t>& row, int64_t first, int64_t end, const Team& team) {
        const int n = length(first, end, team);
        inside = 0;
        if (row.packed) {
            load_packs(row, first, n, team);
        } else {
            load_elements(row, first, n, team);
        }
    }

    // to[i * stride] = value(e) for elements that exist.
    template <typename Value>
    __device__ void store(
        scalar_t* to, const Row<scalar_t>& row, int64_t first, const Team& team, const Value& value) const {
#pragma unroll
        for (int p = 0; p < kPacks; ++p) {
            Pack<scalar_t> pack;
#pragma unroll
            for (int j = 0; j < kPack; ++j) pack.at[j] = static_cast<scalar_t>(value(p * kPack + j));
            const unsigned int exist = inside >> (p * kPack) & 15u;
            if (exist == 0) continue;
            scalar_t* place = to + (first + offset(p * kPack, team)) * row.stride;
            if (row.packed) {
                *reinterpret_cast<Pack<scalar_t>*>(place) = pack;
                continue;
            }
#pragma unroll
            for (int j = 0; j < kPack; ++j) {
                if (exist >> j & 1u) place[j * row.stride] = pack.at[j];
            }
        }
    }

  private:
    __device__ void load_packs(const Row<scalar_t>& row, int64_t first, int n, const Team& team) {
        Pack<scalar_t> packs[kPacks] = {};
        Pack<uint8_t> masks[kPacks] = {};
#pragma unroll
        for (int p = 0; p < kPacks; ++p) {
            const int i = offset(p * kPack, team);
            if (i >= n) continue;
            packs[p] = *reinterpret_cast<const Pack<scalar_t>*>(row.x + first + i);
            if (row.mask != nullptr) masks[p] = *reinterpret_cast<const Pack<uint8_t>*>(row.mask + first + i);
            inside |= 15u << (p * kPack);
        }
        marked = row.mask == nullptr ? inside : 0;
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
            x[e] = static_cast<acc_t>(packs[e / kPack].at[e % kPack]);
            if (masks[e / kPack].at[e % kPack] != 0) marked |= 1u << e;
        }
    }

    __device__ void load_elements(const Row<scalar_t>& row, int64_t first, int n, const Team& team) {
        marked = 0;
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
            const int i = offset(e, team);
            x[e] = 0;
            if (i >= n) continue;
            x[e] = static_cast<acc_t>(row.x[(first + i) * row.stride]);
            inside |= 1u << e;
            if (row.mask == nullptr || row.mask[first + i] != 0) marked |= 1u << e;
        }
    }
};

// a / b for a >= 0, b > 0. A 64-bit division takes several times as long as a 32-bit one.
__device__ inline int64_t quotient(int64_t a, int64_t b) {
    if (((a | b) >> 32) != 0) return a / b;
    return static_cast<unsigned int>(a) / static_cast<unsigned int>(b);
}

}  // namespace cxrfast

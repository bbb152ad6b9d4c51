// The kernel of hamming_topk: one block per query, a stable counting sort of the candidates by their 65 possible keys.
//
// Every warp has a contiguous range of the candidates. A first pass counts its keys. Sums over smaller keys and earlier
// warps then give the positions of the warp's candidates for each key. A second pass writes them there in order. Equal
// keys thus stay in the order of their indices, for any order of the warps.
#pragma once

#include "cuda/common/cuda.cuh"
#include "math/hamming.h"

namespace cxrfast {

constexpr int kHammingThreads = 512;
constexpr int kHammingWarps = kHammingThreads / kWarp;

struct HammingSearch {
    const uint64_t *queries, *hashes;       // [A], [N]
    const uint64_t *query_labels, *labels;  // [A], [N], or nullptr
    const uint64_t* query_indices;          // [A], or nullptr
    int64_t count, k;
    int candidates;
    LabelRule rule;
    bool farthest;
};

// The candidates of one query.
struct HammingRow {
    const HammingSearch& search;
    uint64_t query, labels, own;

    __device__ HammingRow(const HammingSearch& search, int64_t i)
        : search(search),
          query(key_query(search.queries[i], search.farthest)),
          labels(search.query_labels == nullptr ? 0 : search.query_labels[i]),
          own(search.query_indices == nullptr ? ~uint64_t(0) : search.query_indices[i]) {}

    // -1 if the rule excludes it.
    __device__ int key(int candidate, int end) const {
        if (candidate >= end || static_cast<uint64_t>(candidate) == own) return -1;
        if (search.labels != nullptr && !allows(search.rule, labels, __ldg(search.labels + candidate))) return -1;
        return count_bits(query ^ __ldg(search.hashes + candidate));
    }
};

// The position of the next candidate with a key, for every warp.
struct HammingPlaces {
    int warps[kHammingWarps][kHammingKeys];  // first counts, later numbers of preceding positions
    int keys[kHammingKeys + 1];              // first position of a key; the last is the number of candidates
};

// Converts counts to positions: within a key by one thread, then over the keys.
__device__ inline void to_places(HammingPlaces& places) {
    __syncthreads();
    if (threadIdx.x < kHammingKeys) {
        int before = 0;
        for (int warp = 0; warp < kHammingWarps; ++warp) {
            const int own = places.warps[warp][threadIdx.x];
            places.warps[warp][threadIdx.x] = before;
            before += own;
        }
        places.keys[threadIdx.x + 1] = before;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        places.keys[0] = 0;
        for (int key = 0; key < kHammingKeys; ++key) places.keys[key + 1] += places.keys[key];
    }
    __syncthreads();
}

__device__ inline void sort_row(const HammingRow& row,
                                HammingPlaces& places,
                                int64_t* __restrict__ indices,  // [k]
                                int* __restrict__ distances) {  // [k]
    const HammingSearch& search = row.search;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int stretch = (search.candidates + kHammingThreads - 1) / kHammingThreads * kWarp;
    const int begin = static_cast<int>(min(int64_t(warp) * stretch, int64_t(search.candidates)));
    const int end = static_cast<int>(min(int64_t(begin) + stretch, int64_t(search.candidates)));
    int* const own = places.warps[warp];
    for (int key = lane; key < kHammingKeys; key += kWarp) own[key] = 0;
    __syncwarp();
    for (int at = begin; at < end; at += kWarp) {
        const int key = row.key(at + lane, end);
        if (key >= 0) atomicAdd(&own[key], 1);
    }
    to_places(places);
    for (int at = begin; at < end; at += kWarp) {
        const int key = row.key(at + lane, end);
        const bool wanted = key >= 0 && places.keys[key] < search.k;
        if (__ballot_sync(0xffffffffu, wanted) == 0) continue;
        const unsigned int equals = __match_any_sync(0xffffffffu, wanted ? key : -1);
        const int first = __ffs(static_cast<int>(equals)) - 1;  // the lane that represents all lanes of equal keys
        const bool speaks = wanted && lane == first;
        const int before = __shfl_sync(0xffffffffu, speaks ? own[key] : 0, first);
        if (speaks) own[key] = before + __popc(equals);
        if (!wanted) continue;
        const int64_t place = int64_t(places.keys[key]) + before + __popc(equals & ((1u << lane) - 1));
        if (place >= search.k) continue;
        indices[place] = at + lane;
        distances[place] = key_to_distance(key, search.farthest);
    }
    for (int64_t place = places.keys[kHammingKeys] + int64_t(threadIdx.x); place < search.k; place += blockDim.x) {
        indices[place] = distances[place] = -1;
    }
}

__global__ void __launch_bounds__(kHammingThreads) hamming_topk_kernel(HammingSearch search,
                                                                       int64_t* __restrict__ indices,  // [A, k]
                                                                       int* __restrict__ distances) {  // [A, k]
    __shared__ HammingPlaces places;
    for (int64_t i = blockIdx.x; i < search.count; i += gridDim.x) {
        sort_row(HammingRow(search, i), places, indices + i * search.k, distances + i * search.k);
        __syncthreads();  // the positions have been read
    }
}

}  // namespace cxrfast

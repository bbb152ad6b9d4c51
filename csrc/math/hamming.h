// What hamming_topk is made of: the rules of labels, and the key that candidates are ordered by.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace cxrfast {

// Labels are sets, a bit per class. Exact, partial and disjoint exclude each other and leave nothing out: two images
// without a finding have the same set, so they match exactly and are not disjoint.
enum class LabelRule : int64_t { kAny = 0, kExact = 1, kPartial = 2, kDisjoint = 3, kShared = 4 };
constexpr int64_t kLabelRules = 5;

constexpr int kHashBits = 64;
constexpr int kHammingKeys = kHashBits + 1;

CXRFAST_HOST_DEVICE bool allows(LabelRule rule, uint64_t a, uint64_t b) {
    const bool same = a == b, meet = (a & b) != 0;
    switch (rule) {
        case LabelRule::kExact:
            return same;
        case LabelRule::kPartial:
            return meet & !same;
        case LabelRule::kDisjoint:
            return !meet & !same;
        case LabelRule::kShared:
            return meet | same;
        default:
            return true;
    }
}

CXRFAST_HOST_DEVICE int count_bits(uint64_t x) {
#if defined(__CUDA_ARCH__)
    return __popcll(x);
#else
    return __builtin_popcountll(x);
#endif
}

// A query whose distance to a hash is the key, the smaller the sooner: the complement is at distance 64 − d.
CXRFAST_HOST_DEVICE uint64_t key_query(uint64_t query, bool farthest) {
    return farthest ? ~query : query;
}

CXRFAST_HOST_DEVICE int key_to_distance(int key, bool farthest) {
    return farthest ? kHashBits - key : key;
}

}  // namespace cxrfast

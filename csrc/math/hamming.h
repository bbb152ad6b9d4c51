// The label rules of hamming_topk, and the key by which candidates are ordered.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace cxrfast {

// Labels are sets, with one bit per class. Exactly one of the rules exact, partial and disjoint holds for any two
// images. Two images without findings have equal sets, so that they match exactly and are not disjoint.
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

// The query whose distance to a hash is the key, where small keys come first. For the farthest hashes, it is the
// complement, which is at distance 64 − d.
CXRFAST_HOST_DEVICE uint64_t key_query(uint64_t query, bool farthest) {
    return farthest ? ~query : query;
}

CXRFAST_HOST_DEVICE int key_to_distance(int key, bool farthest) {
    return farthest ? kHashBits - key : key;
}

}  // namespace cxrfast

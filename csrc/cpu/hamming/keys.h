// The keys of candidates, one byte each, computed with the available vector unit.
#pragma once

#include <cstdint>

#include "common/macros.h"
#include "cpu/common/cpu_level.h"
#include "math/hamming.h"

namespace cxrfast {

constexpr int kKeysAtOnce = 64;      // keys that the search processes at a time
constexpr int64_t kChunk = 1024;     // candidates whose hashes and labels stay in the first-level cache
constexpr uint8_t kForbidden = 127;  // the key of candidates excluded by the rule; bit 7 must be 0, see below()

struct Query {
    uint64_t hash;  // key_query()
    uint64_t labels;
};

using FillKeys = void (*)(const Query& query, const uint64_t* hashes, const uint64_t* labels, int n, uint8_t* keys);

// Without a bit-count instruction: sums of bits in pairs, groups of four, and bytes, with the vectors of every x86-64.
CXRFAST_ALWAYS_INLINE int count_bits_portable(uint64_t x) {
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
    x += x >> 8;
    x += x >> 16;
    x += x >> 32;
    return static_cast<int>(x & 127);
}

template <LabelRule kRule, bool kCountsBits>
CXRFAST_ALWAYS_INLINE void fill_keys(
    const Query& query, const uint64_t* hashes, const uint64_t* labels, int n, uint8_t* __restrict__ keys) {
    const uint64_t hash = query.hash, own_labels = query.labels;
    for (int i = 0; i < n; ++i) {
        const uint64_t differing = hashes[i] ^ hash;
        const int key = kCountsBits ? __builtin_popcountll(differing) : count_bits_portable(differing);
        const bool allowed = kRule == LabelRule::kAny || allows(kRule, own_labels, labels[i]);
        keys[i] = static_cast<uint8_t>(allowed ? key : kForbidden);
    }
}

#define CXRFAST_FILL_KEYS(NAME, ATTRIBUTE, COUNTS_BITS)                                                             \
    template <LabelRule kRule>                                                                                      \
    ATTRIBUTE void NAME(const Query& query, const uint64_t* hashes, const uint64_t* labels, int n, uint8_t* keys) { \
        fill_keys<kRule, COUNTS_BITS>(query, hashes, labels, n, keys);                                              \
    }
CXRFAST_FILL_KEYS(fill_keys_portable, , false)
CXRFAST_FILL_KEYS(fill_keys_avx2, CXRFAST_AVX2, true)
CXRFAST_FILL_KEYS(fill_keys_avx512, CXRFAST_AVX512_POPCOUNT, true)
#undef CXRFAST_FILL_KEYS

template <LabelRule kRule>
FillKeys fill_keys_for_cpu() {
    if (has_vector_popcount()) return fill_keys_avx512<kRule>;
    return cpu_level() == CpuLevel::kPortable ? fill_keys_portable<kRule> : fill_keys_avx2<kRule>;
}

inline FillKeys choose_fill_keys(LabelRule rule) {
    switch (rule) {
        case LabelRule::kExact:
            return fill_keys_for_cpu<LabelRule::kExact>();
        case LabelRule::kPartial:
            return fill_keys_for_cpu<LabelRule::kPartial>();
        case LabelRule::kDisjoint:
            return fill_keys_for_cpu<LabelRule::kDisjoint>();
        case LabelRule::kShared:
            return fill_keys_for_cpu<LabelRule::kShared>();
        default:
            return fill_keys_for_cpu<LabelRule::kAny>();
    }
}

}  // namespace cxrfast

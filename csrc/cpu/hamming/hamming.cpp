// hamming_topk on the CPU. Each candidate gets a key of one byte (keys.h). There are 65 different keys: counting them
// gives the key of the k-th candidate, a second pass collects the candidates up to it, and a counting sort orders them.
//
// A chunk of candidates is used for several queries, so that it is read from memory only once.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include "checks/hamming.h"
#include "cpu/hamming/keys.h"

namespace cxrfast {
namespace {

constexpr int64_t kMostQueriesAtOnce = 8;
constexpr int64_t kKeyBytes = 1 << 20;  // per thread: few enough for the second-level cache
constexpr uint64_t kEachByte = 0x0101010101010101;

// The number of keys below the bound among n keys, a multiple of 64.
CXRFAST_CPU_CLONES int64_t count_below(const uint8_t* keys, int64_t n, uint8_t bound) {
    constexpr int64_t kMost = 255 * kKeysAtOnce;  // before a byte overflows
    int64_t total = 0;
    for (int64_t start = 0; start < n; start += kMost) {
        uint8_t lanes[kKeysAtOnce] = {};
        const int64_t end = std::min(n, start + kMost);
        for (int64_t at = start; at < end; at += kKeysAtOnce) {
            for (int i = 0; i < kKeysAtOnce; ++i) lanes[i] += keys[at + i] < bound;
        }
        for (const uint8_t lane : lanes) total += lane;
    }
    return total;
}

// Bit 7 of every byte is set for the keys below the bound. Keys and bound are below 128, so that no byte borrows.
CXRFAST_ALWAYS_INLINE uint64_t below(uint64_t keys, uint64_t bounds) {
    return ~((keys | 0x80 * kEachByte) - bounds) & 0x80 * kEachByte;
}

// Calls body(i) for keys below the bound among n, a multiple of 64. body may lower the bound.
template <typename Body>
void for_each_below(const uint8_t* keys, int64_t n, const int& bound, const Body& body) {
    for (int64_t at = 0; at < n; at += kKeysAtOnce) {
        uint64_t words[kKeysAtOnce / 8], any = 0;
        std::memcpy(words, keys + at, sizeof(words));
        const uint64_t bounds = static_cast<uint64_t>(bound) * kEachByte;
        for (uint64_t& word : words) any |= word = below(word, bounds);
        if (any == 0) continue;
        for (int w = 0; w < kKeysAtOnce / 8; ++w) {
            if (words[w] == 0) continue;
            for (int64_t i = at + 8 * w; i < at + 8 * (w + 1); ++i) {
                if (keys[i] < bound) body(i);
            }
        }
    }
}

// The first k candidates by (key, index).
class Selection {
  public:
    Selection(int64_t k, int64_t candidates) : k_(k), kept_(static_cast<size_t>(std::min(k, candidates))) {}

    // Sorted; -1 if there are fewer candidates.
    void write(const uint8_t* keys, int64_t n, int64_t* indices, int32_t* distances, bool farthest) {
        const int64_t found = keep(keys, n);
        int64_t place[kHammingKeys], before = 0;
        for (int key = 0; key < kHammingKeys; ++key) {
            place[key] = before;
            before += counts_[key];
        }
        for (int64_t at = 0; at < found; ++at) {
            const int64_t index = kept_[at];
            const int64_t to = place[keys[index]]++;
            indices[to] = index;
            distances[to] = key_to_distance(keys[index], farthest);
        }
        for (int64_t to = found; to < k_; ++to) indices[to] = distances[to] = -1;
    }

  private:
    // Collects the chosen candidates in the order of their indices, counted by key. Returns their number.
    int64_t keep(const uint8_t* keys, int64_t n) {
        // The k-th candidate has the key `last`: fewer than k are below it; of those equal to it, the first are taken.
        int last = kHammingKeys - 1, low = 0;
        int64_t wanted = std::min(k_, count_below(keys, n, kHammingKeys));
        while (low < last) {
            const int middle = (low + last) / 2;
            if (count_below(keys, n, static_cast<uint8_t>(middle + 1)) >= wanted) {
                last = middle;
            } else {
                low = middle + 1;
            }
        }
        std::fill(std::begin(counts_), std::end(counts_), 0);
        int64_t found = 0, ties = wanted - count_below(keys, n, static_cast<uint8_t>(last));
        int bound = ties > 0 ? last + 1 : last;
        for_each_below(keys, n, bound, [&](int64_t i) {
            kept_[found++] = i;
            ++counts_[keys[i]];
            if (keys[i] == last && --ties == 0) bound = last;
        });
        return found;
    }

    int64_t k_;
    int64_t counts_[kHammingKeys];
    std::vector<int64_t> kept_;
};

struct Search {
    const uint64_t *queries, *hashes, *query_labels, *labels, *query_indices;
    int64_t candidates;
    bool farthest;
    FillKeys fill;

    int64_t padded() const { return (candidates + kKeysAtOnce - 1) / kKeysAtOnce * kKeysAtOnce; }

    int64_t queries_at_once() const { return std::clamp<int64_t>(kKeyBytes / (padded() + 1), 1, kMostQueriesAtOnce); }

    // The keys of all candidates, for some queries.
    void fill_rows(int64_t from, int64_t count, uint8_t* keys /* [count, padded] */) const {
        for (int64_t first = 0; first < candidates; first += kChunk) {
            const int n = static_cast<int>(std::min(kChunk, candidates - first));
            for (int64_t row = 0; row < count; ++row) {
                const int64_t i = from + row;
                const Query query{key_query(queries[i], farthest), query_labels == nullptr ? 0 : query_labels[i]};
                fill(query, hashes + first, labels == nullptr ? nullptr : labels + first, n,
                     keys + row * padded() + first);
            }
        }
        for (int64_t row = 0; row < count; ++row) {
            uint8_t* of_row = keys + row * padded();
            std::fill(of_row + candidates, of_row + padded(), kForbidden);
            const uint64_t own = query_indices == nullptr ? ~uint64_t(0) : query_indices[from + row];
            if (own < static_cast<uint64_t>(candidates)) of_row[own] = kForbidden;
        }
    }
};

std::tuple<Tensor, Tensor> hamming_topk(const Tensor& queries,                       // [A] int64
                                        const Tensor& hashes,                        // [N] int64
                                        const std::optional<Tensor>& query_labels,   // [A] int64
                                        const std::optional<Tensor>& labels,         // [N] int64
                                        const std::optional<Tensor>& query_indices,  // [A] int64
                                        int64_t k,
                                        int64_t rule,
                                        bool farthest) {
    const HammingTensors in = checked_hamming(queries, hashes, query_labels, labels, query_indices, k, rule);
    const Search search{words(in.queries),
                        words(in.hashes),
                        words(in.query_labels),
                        words(in.labels),
                        words(in.query_indices),
                        in.hashes.numel(),
                        farthest,
                        choose_fill_keys(static_cast<LabelRule>(rule))};
    int64_t* indices = in.indices.mutable_data_ptr<int64_t>();
    int32_t* distances = in.distances.mutable_data_ptr<int32_t>();
    const int64_t at_once = search.queries_at_once(), padded = search.padded();
    const int64_t grain = std::max<int64_t>(1, 65536 / (search.candidates + 1));
    torch::stable::parallel_for(0, in.queries.numel(), grain, [&](int64_t begin, int64_t end) {
        std::vector<uint8_t> keys(static_cast<size_t>(std::min(at_once, end - begin) * padded));
        Selection selection(k, search.candidates);
        for (int64_t from = begin; from < end; from += at_once) {
            const int64_t count = std::min(at_once, end - from);
            search.fill_rows(from, count, keys.data());
            for (int64_t row = 0; row < count; ++row) {
                const int64_t i = from + row;
                selection.write(keys.data() + row * padded, padded, indices + i * k, distances + i * k, farthest);
            }
        }
    });
    return {in.indices, in.distances};
}

}  // namespace
}  // namespace cxrfast

STABLE_TORCH_LIBRARY_IMPL(cxrfast, CPU, m) {
    m.impl("hamming_topk", TORCH_BOX(&cxrfast::hamming_topk));
}

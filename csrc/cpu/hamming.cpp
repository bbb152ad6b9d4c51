// hamming_topk on the CPU: one pass over the candidates, which fills a byte per candidate (hamming_keys.h) and skips
// those that cannot be among the first k any more. There are 65 keys, so what is kept is sorted by counting.
//
// Several queries go through a chunk of candidates together, because the chunk is then read from memory once.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include "../common/hamming_checks.h"
#include "hamming_keys.h"

namespace cxrfast {
namespace {

constexpr int64_t kQueriesAtOnce = 8;
constexpr uint64_t kEachByte = 0x0101010101010101;

// Bit 7 of every byte of eight keys that is below the bound; keys and bound are below 128, so no byte borrows.
CXRFAST_ALWAYS_INLINE uint64_t below(uint64_t keys, uint64_t bounds) {
    return ~((keys | 0x80 * kEachByte) - bounds) & 0x80 * kEachByte;
}

// The k first of the candidates seen so far, by (key, index), and some that have since fallen behind.
class Selection {
  public:
    void start(int64_t k, int64_t candidates) {
        k_ = k;
        room_ = static_cast<size_t>(std::min(candidates, 4 * k + kChunk));
        std::fill(std::begin(counts_), std::end(counts_), 0);
        kept_.clear();
        total_ = 0;
        bound_ = k > 0 ? kHammingKeys : 0;
    }

    // Candidates come in the order of their indices: of equals, the earlier ones stay.
    void add(const uint8_t* keys /* [n up to a multiple of 64] */, int n, int64_t first) {
        for (int at = 0; at < n; at += kKeysAtOnce) {
            if (!any_below(keys + at)) continue;
            for (int i = at; i < std::min(n, at + kKeysAtOnce); ++i) {
                if (keys[i] < bound_) keep(keys[i], first + i);
            }
        }
    }

    // Sorted; -1 where the candidates ran out.
    void write(int64_t* indices, int32_t* distances, bool farthest) const {
        int64_t place[kHammingKeys], end = 0;
        for (int key = 0; key < kHammingKeys; ++key) {
            place[key] = end;
            end += counts_[key];
        }
        for (const uint64_t candidate : kept_) {
            const int key = static_cast<int>(candidate & 127);
            const int64_t to = place[key]++;
            if (to >= k_) continue;
            indices[to] = static_cast<int64_t>(candidate >> 8);
            distances[to] = key_to_distance(key, farthest);
        }
        for (int64_t to = std::min(end, k_); to < k_; ++to) indices[to] = distances[to] = -1;
    }

  private:
    bool any_below(const uint8_t* keys /* [64] */) const {
        uint64_t words[kKeysAtOnce / 8], any = 0;
        std::memcpy(words, keys, sizeof(words));
        for (const uint64_t word : words) any |= below(word, static_cast<uint64_t>(bound_) * kEachByte);
        return any != 0;
    }

    void keep(int key, int64_t index) {
        if (kept_.size() == room_) forget();
        kept_.push_back(static_cast<uint64_t>(index) << 8 | static_cast<uint64_t>(key));
        ++counts_[key];
        ++total_;
        if (total_ < k_) return;
        // `last` is the key of the k-th: those behind it do not count, and no later candidate with it gets in.
        int last = bound_ == kHammingKeys ? kHammingKeys - 1 : bound_;
        while (total_ - counts_[last] >= k_) {
            total_ -= counts_[last];
            counts_[last--] = 0;
        }
        bound_ = last;
    }

    // Drops what has fallen behind, so that at most 2 k remain.
    void forget() {
        const auto behind = [this](uint64_t candidate) { return static_cast<int>(candidate & 127) > bound_; };
        kept_.erase(std::remove_if(kept_.begin(), kept_.end(), behind), kept_.end());
    }

    int64_t k_, total_;
    size_t room_;
    int bound_;                     // only keys below it can still get in
    int64_t counts_[kHammingKeys];  // of kept candidates, by key
    std::vector<uint64_t> kept_;    // index and key, in the order of the indices
};

struct Search {
    const uint64_t *queries, *hashes, *query_labels, *labels, *query_indices;
    int64_t candidates, k;
    bool farthest;
    FillKeys fill;

    Query query(int64_t i) const {
        return {key_query(queries[i], farthest), query_labels == nullptr ? 0 : query_labels[i]};
    }

    void add_chunk(int64_t i, int64_t first, Selection& selection) const {
        alignas(64) uint8_t keys[kChunk];
        const int n = static_cast<int>(std::min<int64_t>(kChunk, candidates - first));
        fill(query(i), hashes + first, labels == nullptr ? nullptr : labels + first, n, keys);
        std::fill(keys + n, keys + (n + kKeysAtOnce - 1) / kKeysAtOnce * kKeysAtOnce, kForbidden);
        if (query_indices != nullptr) {
            const uint64_t own = query_indices[i] - static_cast<uint64_t>(first);
            if (own < static_cast<uint64_t>(n)) keys[own] = kForbidden;
        }
        selection.add(keys, n, first);
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
                        k,
                        farthest,
                        choose_fill_keys(static_cast<LabelRule>(rule))};
    int64_t* indices = in.indices.mutable_data_ptr<int64_t>();
    int32_t* distances = in.distances.mutable_data_ptr<int32_t>();
    const int64_t grain = std::max<int64_t>(1, 65536 / (search.candidates + 1));
    torch::stable::parallel_for(0, in.queries.numel(), grain, [&](int64_t begin, int64_t end) {
        std::vector<Selection> selections(kQueriesAtOnce);
        for (int64_t from = begin; from < end; from += kQueriesAtOnce) {
            const int64_t count = std::min(kQueriesAtOnce, end - from);
            for (int64_t i = 0; i < count; ++i) selections[i].start(k, search.candidates);
            for (int64_t first = 0; first < search.candidates; first += kChunk) {
                for (int64_t i = 0; i < count; ++i) search.add_chunk(from + i, first, selections[i]);
            }
            for (int64_t i = 0; i < count; ++i) {
                selections[i].write(indices + (from + i) * k, distances + (from + i) * k, farthest);
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

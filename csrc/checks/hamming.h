// Invariants of hamming_topk, for all back ends.
#pragma once

#include <limits>
#include <optional>
#include <tuple>

#include "common/check.h"
#include "common/tensor.h"
#include "math/hamming.h"

namespace cxrfast {

// Contiguous inputs, which keep the memory of the pointers alive, and the outputs.
struct HammingTensors {
    Tensor queries, hashes;                                     // [A], [N]
    std::optional<Tensor> query_labels, labels, query_indices;  // [A], [N], [A]
    Tensor indices, distances;                                  // [A, k]
};

inline const uint64_t* words(const Tensor& x) {
    return reinterpret_cast<const uint64_t*>(x.const_data_ptr<int64_t>());
}

inline const uint64_t* words(const std::optional<Tensor>& x) {
    return x ? words(*x) : nullptr;
}

inline Tensor checked_column(const Tensor& x, int64_t length) {
    CXRFAST_CHECK(x.dim() == 1 && x.size(0) == length && x.scalar_type() == ScalarType::Long,
                  "hashes, labels and indices must be int64 vectors, as many as there are queries or hashes");
    return dense(x);
}

inline HammingTensors checked_hamming(const Tensor& queries,
                                      const Tensor& hashes,
                                      const std::optional<Tensor>& query_labels,
                                      const std::optional<Tensor>& labels,
                                      const std::optional<Tensor>& query_indices,
                                      int64_t k,
                                      int64_t rule) {
    CXRFAST_CHECK(rule >= 0 && rule < kLabelRules, "unknown rule ", rule);
    CXRFAST_CHECK(k >= 0, "k must not be negative, got ", k);
    const int64_t anchors = queries.numel(), candidates = hashes.numel();
    CXRFAST_CHECK(candidates < std::numeric_limits<int32_t>::max(), "too many hashes");
    const bool labelled = rule != static_cast<int64_t>(LabelRule::kAny);
    CXRFAST_CHECK(!labelled || (query_labels && labels), "the rule needs labels on both sides");
    const auto optional = [](const std::optional<Tensor>& x, int64_t length) {
        return x ? std::optional<Tensor>(checked_column(*x, length)) : std::nullopt;
    };
    return {checked_column(queries, anchors),
            checked_column(hashes, candidates),
            labelled ? optional(query_labels, anchors) : std::nullopt,
            labelled ? optional(labels, candidates) : std::nullopt,
            optional(query_indices, anchors),
            torch::stable::new_empty(queries, {anchors, k}, ScalarType::Long),
            torch::stable::new_empty(queries, {anchors, k}, ScalarType::Int)};
}

}  // namespace cxrfast

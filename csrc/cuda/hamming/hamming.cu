// hamming_topk on the GPU: check, allocate, launch, register. Kernel: hamming.cuh.
#include "cuda/hamming/hamming.cuh"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "checks/hamming.h"

namespace cxrfast {
namespace {

std::tuple<Tensor, Tensor> hamming_topk(const Tensor& queries,                       // [A] int64
                                        const Tensor& hashes,                        // [N] int64
                                        const std::optional<Tensor>& query_labels,   // [A] int64
                                        const std::optional<Tensor>& labels,         // [N] int64
                                        const std::optional<Tensor>& query_indices,  // [A] int64
                                        int64_t k,
                                        int64_t rule,
                                        bool farthest) {
    const DeviceGuard guard(queries);
    const HammingTensors in = checked_hamming(queries, hashes, query_labels, labels, query_indices, k, rule);
    if (in.indices.numel() == 0) return {in.indices, in.distances};
    const HammingSearch search{words(in.queries),
                               words(in.hashes),
                               words(in.query_labels),
                               words(in.labels),
                               words(in.query_indices),
                               in.queries.numel(),
                               k,
                               static_cast<int>(in.hashes.numel()),
                               static_cast<LabelRule>(rule),
                               farthest};
    launch(hamming_topk_kernel, Grid{blocks_for(search.count, 1), kHammingThreads}, in.queries, search,
           in.indices.mutable_data_ptr<int64_t>(), in.distances.mutable_data_ptr<int>());
    return {in.indices, in.distances};
}

}  // namespace
}  // namespace cxrfast

CXRFAST_CUDA_IMPL(m) {
    m.impl("hamming_topk", TORCH_BOX(&cxrfast::hamming_topk));
}

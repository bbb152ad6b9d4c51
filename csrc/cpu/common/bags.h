// Bags of instances, dense with a mask or ragged with offsets, for the CPU kernels. A bag that is not contiguous in the
// accumulation dtype is gathered into a contiguous row, and its gradient is scattered back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/mask.h"
#include "common/tensor.h"
#include "cpu/common/lanes.h"

namespace cxrfast {

// The instances of one bag: first, first + stride, …, without those that the mask leaves out.
struct Instances {
    int64_t first, count, stride;
    const uint8_t* mask;  // [count], or nullptr
};

struct DenseBags {
    int64_t images, classes, instances;
    RowMask mask;
    int64_t longest() const { return instances; }
    Instances operator()(int64_t bag) const {
        return {bag * instances, instances, 1, mask.row(bag / classes, bag % classes)};
    }
};

struct RaggedBags {
    const int64_t* offsets;  // [images + 1]
    int64_t images, classes;
    int64_t longest() const {
        int64_t result = 0;
        for (int64_t b = 0; b < images; ++b) result = std::max(result, offsets[b + 1] - offsets[b]);
        return result;
    }
    Instances operator()(int64_t bag) const {
        const int64_t b = bag / classes;
        return {offsets[b] * classes + bag % classes, offsets[b + 1] - offsets[b], classes, nullptr};
    }
};

inline DenseBags dense_bags(const Tensor& logits, const std::optional<Tensor>& mask) {
    CXRFAST_CHECK(logits.dim() == 3, "logits must be [B, K, N]");
    const RowMask rows = mask.has_value() ? row_mask(*mask, logits) : RowMask{logits, nullptr, 0, 0};
    return {logits.size(0), logits.size(1), logits.size(2), rows};
}

// Checks that every bag is inside the logits. `offsets` must be contiguous and outlive the result.
inline RaggedBags ragged_bags(const Tensor& logits, const Tensor& offsets) {
    CXRFAST_CHECK(logits.dim() == 2, "logits must be [N, K]");
    CXRFAST_CHECK(offsets.dim() == 1 && offsets.size(0) >= 1 && offsets.scalar_type() == ScalarType::Long,
                  "offsets must be [B + 1] int64");
    const int64_t bags = offsets.size(0) - 1;
    const int64_t* offset = offsets.const_data_ptr<int64_t>();
    CXRFAST_CHECK(offset[0] == 0 && offset[bags] == logits.size(0), "offsets must run from 0 to N");
    for (int64_t b = 0; b < bags; ++b) CXRFAST_CHECK(offset[b] <= offset[b + 1], "offsets must not decrease");
    return {offset, bags, logits.size(1)};
}

// Bags that are already in the required layout are not copied.
template <typename scalar_t>
bool is_direct(const Instances& bag) {
    return bag.mask == nullptr && bag.stride == 1 && std::is_same_v<scalar_t, accumulate_t<scalar_t>>;
}

// Returns the number of instances. It has no branches, because a mask is hard to predict.
template <typename scalar_t, typename acc_t>
int64_t gather(const scalar_t* logits, const Instances& bag, acc_t* x) {
    const scalar_t* from = logits + bag.first;
    if (bag.mask == nullptr && bag.stride == 1) {
        convert(from, x, bag.count);
        return bag.count;
    }
    if (bag.mask == nullptr) {
        for (int64_t i = 0; i < bag.count; ++i) x[i] = static_cast<acc_t>(from[i * bag.stride]);
        return bag.count;
    }
    int64_t n = 0;
    for (int64_t i = 0; i < bag.count; ++i) {
        x[n] = static_cast<acc_t>(from[i * bag.stride]);
        n += bag.mask[i] != 0;
    }
    return n;
}

template <typename scalar_t, typename acc_t>
void scatter(const acc_t* local, const Instances& bag, scalar_t* grad) {
    scalar_t* to = grad + bag.first;
    if (bag.mask == nullptr && bag.stride == 1) return convert(local, to, bag.count);
    int64_t n = 0;
    for (int64_t i = 0; i < bag.count; ++i) {
        const bool present = bag.mask == nullptr || bag.mask[i];
        to[i * bag.stride] = present ? static_cast<scalar_t>(local[n]) : scalar_t(0);
        n += present;
    }
}

// Bags that one thread processes as a unit.
inline int64_t grain(int64_t longest) {
    return std::max<int64_t>(1, 8192 / (longest + 1));
}

}  // namespace cxrfast

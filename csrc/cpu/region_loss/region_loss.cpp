// region_sums and box_log_likelihood on the CPU: one pass over each (image, class) row (rows.h). Sums are computed in
// double and returned in the accumulation dtype, because half precision has too few digits for a sum over 400 patches.
#include "cpu/region_loss/rows.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>

#include "checks/region_loss.h"
#include "common/check.h"
#include "common/dispatch.h"
#include "common/mask.h"
#include "common/tensor.h"
#include "cpu/common/pages.h"

namespace cxrfast {
namespace {

// Calls body(row, mask of the row, index of the row's first patch) for every row.
template <typename Body>
void for_each_row(const Tensor& logits, const RowMask& mask, const Body& body) {
    const int64_t classes = logits.size(1), patches = logits.size(2);
    torch::stable::parallel_for(0, logits.size(0) * classes, std::max<int64_t>(1, 8192 / (patches + 1)),
                                [&](int64_t begin, int64_t end) {
                                    for (int64_t row = begin; row < end; ++row) {
                                        body(row, mask.row(row / classes, row % classes), row * patches);
                                    }
                                });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> region_sums(const Tensor& logits,  // [B, K, N]
                                                       const Tensor& mask) {  // [B or 1, K or 1, N] bool
    const RowMask rows = checked_mask(logits, mask);
    const Tensor dense_logits = dense(logits);
    Tensor inside = empty_sums(logits), outside = empty_sums(logits);
    Tensor inside_count = empty_sums(logits), outside_count = empty_sums(logits);
    CXRFAST_DISPATCH_FLOATING(logits.scalar_type(), "region_sums", [&] {
        using acc_t = accumulate_t<scalar_t>;
        const scalar_t* x = dense_logits.const_data_ptr<scalar_t>();
        acc_t *in = inside.mutable_data_ptr<acc_t>(), *out = outside.mutable_data_ptr<acc_t>();
        acc_t *in_count = inside_count.mutable_data_ptr<acc_t>(), *out_count = outside_count.mutable_data_ptr<acc_t>();
        const int64_t patches = logits.size(2);
        for_each_row(logits, rows, [&](int64_t row, const uint8_t* in_region, int64_t first) {
            double sum_inside = 0, sum_outside = 0;
            int64_t count = 0;
            for_each_stretch(x + first, patches, [&](const acc_t* stretch, int64_t start, int64_t n) {
                const RegionStretch<acc_t> sums = sum_stretch(stretch, in_region + start, n);
                sum_inside += sums.inside;
                sum_outside += sums.outside;
                count += sums.count;
            });
            in[row] = static_cast<acc_t>(sum_inside);
            out[row] = static_cast<acc_t>(sum_outside);
            in_count[row] = static_cast<acc_t>(count);
            out_count[row] = static_cast<acc_t>(patches - count);
        });
    });
    return {inside, outside, inside_count, outside_count};
}

Tensor region_sums_backward(const Tensor& grad_inside,   // [B, K], accumulation dtype
                            const Tensor& grad_outside,  // [B, K], accumulation dtype
                            const Tensor& logits,        // [B, K, N]
                            const Tensor& mask) {        // [B or 1, K or 1, N] bool
    const RowMask rows = checked_mask(logits, mask);
    const Tensor dense_logits = dense(logits);
    const Tensor dense_inside = checked_grad(grad_inside, logits), dense_outside = checked_grad(grad_outside, logits);
    Tensor grad = on_large_pages(torch::stable::new_empty(dense_logits, dense_logits.sizes()));
    CXRFAST_DISPATCH_FLOATING(logits.scalar_type(), "region_sums_backward", [&] {
        using acc_t = accumulate_t<scalar_t>;
        const scalar_t* x = dense_logits.const_data_ptr<scalar_t>();
        const acc_t *in = dense_inside.const_data_ptr<acc_t>(), *out = dense_outside.const_data_ptr<acc_t>();
        scalar_t* to = grad.mutable_data_ptr<scalar_t>();
        const int64_t patches = logits.size(2);
        for_each_row(logits, rows, [&](int64_t row, const uint8_t* in_region, int64_t first) {
            fill_row(x + first, to + first, patches, [&](const acc_t* stretch, acc_t* slope, int64_t start, int64_t n) {
                sum_stretch_backward(stretch, in_region + start, n, in[row], out[row], slope);
            });
        });
    });
    return grad;
}

Tensor box_log_likelihood(const Tensor& logits,  // [B, K, N]
                          const Tensor& mask,    // [B or 1, K or 1, N] bool
                          double floor) {
    check_floor(floor);
    const RowMask rows = checked_mask(logits, mask);
    const Tensor dense_logits = dense(logits);
    Tensor result = empty_sums(logits);
    CXRFAST_DISPATCH_FLOATING(logits.scalar_type(), "box_log_likelihood", [&] {
        using acc_t = accumulate_t<scalar_t>;
        const Floor<acc_t> mapped = Floor<acc_t>::of(floor);
        const scalar_t* x = dense_logits.const_data_ptr<scalar_t>();
        acc_t* to = result.mutable_data_ptr<acc_t>();
        const int64_t patches = logits.size(2);
        for_each_row(logits, rows, [&](int64_t row, const uint8_t* in_box, int64_t first) {
            double sum = 0;
            for_each_stretch(x + first, patches, [&](const acc_t* stretch, int64_t start, int64_t n) {
                sum += box_stretch(stretch, in_box + start, n, mapped);
            });
            to[row] = static_cast<acc_t>(sum);
        });
    });
    return result;
}

Tensor box_log_likelihood_backward(const Tensor& grad,    // [B, K], accumulation dtype
                                   const Tensor& logits,  // [B, K, N]
                                   const Tensor& mask,    // [B or 1, K or 1, N] bool
                                   double floor) {
    check_floor(floor);
    const RowMask rows = checked_mask(logits, mask);
    const Tensor dense_logits = dense(logits), dense_grad = checked_grad(grad, logits);
    Tensor result = on_large_pages(torch::stable::new_empty(dense_logits, dense_logits.sizes()));
    CXRFAST_DISPATCH_FLOATING(logits.scalar_type(), "box_log_likelihood_backward", [&] {
        using acc_t = accumulate_t<scalar_t>;
        const Floor<acc_t> mapped = Floor<acc_t>::of(floor);
        const scalar_t* x = dense_logits.const_data_ptr<scalar_t>();
        const acc_t* from = dense_grad.const_data_ptr<acc_t>();
        scalar_t* to = result.mutable_data_ptr<scalar_t>();
        const int64_t patches = logits.size(2);
        for_each_row(logits, rows, [&](int64_t row, const uint8_t* in_box, int64_t first) {
            fill_row(x + first, to + first, patches, [&](const acc_t* stretch, acc_t* slope, int64_t start, int64_t n) {
                box_stretch_backward(stretch, in_box + start, n, from[row], mapped, slope);
            });
        });
    });
    return result;
}

}  // namespace
}  // namespace cxrfast

STABLE_TORCH_LIBRARY_IMPL(cxrfast, CPU, m) {
    m.impl("region_sums", TORCH_BOX(&cxrfast::region_sums));
    m.impl("_region_sums_backward", TORCH_BOX(&cxrfast::region_sums_backward));
    m.impl("box_log_likelihood", TORCH_BOX(&cxrfast::box_log_likelihood));
    m.impl("_box_log_likelihood_backward", TORCH_BOX(&cxrfast::box_log_likelihood_backward));
}

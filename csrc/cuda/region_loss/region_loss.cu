// region_sums and box_log_likelihood on the device: check, allocate, launch. Kernels: region_loss.cuh.
#include "cuda/region_loss/region_loss.cuh"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "checks/region_loss.h"
#include "common/mask.h"

namespace cxrfast {
namespace {

template <typename scalar_t>
RegionRows<scalar_t> region_rows(const Tensor& dense, const RowMask& mask) {
    const scalar_t* x = dense.const_data_ptr<scalar_t>();
    const int64_t length = dense.size(2);
    const int64_t parts = length <= kPartLength ? 1 : (length + kPartLength - 1) / kPartLength;
    return {x,
            mask.data,
            dense.size(0) * dense.size(1),
            dense.size(1),
            length,
            parts,
            mask.image_stride,
            mask.class_stride,
            rows_are_packed(x, length) && rows_are_packed(mask.data, length)};
}

template <typename scalar_t>
int team_size(const RegionRows<scalar_t>& rows) {
    return rows.length <= kWarpRow ? kWarp : kRowThreads;
}

template <typename scalar_t>
Grid grid_for(const RegionRows<scalar_t>& rows) {
    return {blocks_for(rows.rows * rows.parts, kRowThreads / team_size(rows)), kRowThreads};
}

template <typename scalar_t, typename Loss>
void reduce(const Tensor& dense, const RowMask& mask, const Loss& loss) {
    using Total = typename Loss::Total;
    const RegionRows<scalar_t> rows = region_rows<scalar_t>(dense, mask);
    if (rows.rows == 0) return;
    if (rows.parts == 1) {
        launch(&reduce_region<Loss, scalar_t>, grid_for(rows), dense, rows, loss, nullptr, team_size(rows));
        return;
    }
    const int64_t bytes = rows.rows * rows.parts * static_cast<int64_t>(sizeof(Total));
    Tensor workspace = torch::stable::empty({bytes}, ScalarType::Byte, dense.layout(), dense.device());
    Total* partial = reinterpret_cast<Total*>(workspace.mutable_data_ptr<uint8_t>());
    launch(&reduce_region<Loss, scalar_t>, grid_for(rows), dense, rows, loss, partial, team_size(rows));
    launch(&combine_parts<Loss>, Grid{blocks_for(rows.rows, kRowThreads / kWarp), kRowThreads}, dense, partial, loss,
           rows.rows, rows.parts, rows.length);
}

template <typename scalar_t, typename Gradient>
void differentiate(const Tensor& dense, const RowMask& mask, const Gradient& gradient, Tensor& grad_x) {
    const RegionRows<scalar_t> rows = region_rows<scalar_t>(dense, mask);
    if (rows.rows == 0) return;
    launch(&region_backward<Gradient, scalar_t>, grid_for(rows), dense, rows, gradient,
           grad_x.mutable_data_ptr<scalar_t>(), team_size(rows));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> region_sums(const Tensor& logits,  // [B, K, N]
                                                       const Tensor& mask) {  // [B or 1, K or 1, N] bool
    const RowMask rows = checked_mask(logits, mask);
    const DeviceGuard guard(logits);
    const Tensor dense = torch::stable::contiguous(logits);
    Tensor inside = empty_sums(logits), outside = empty_sums(logits);
    Tensor inside_count = empty_sums(logits), outside_count = empty_sums(logits);
    CXRFAST_DISPATCH_FLOATING(logits.scalar_type(), "region_sums", [&] {
        using acc_t = accumulate_t<scalar_t>;
        const RegionSums<acc_t> loss{inside.mutable_data_ptr<acc_t>(), outside.mutable_data_ptr<acc_t>(),
                                     inside_count.mutable_data_ptr<acc_t>(), outside_count.mutable_data_ptr<acc_t>()};
        reduce<scalar_t>(dense, rows, loss);
    });
    return {inside, outside, inside_count, outside_count};
}

Tensor region_sums_backward(const Tensor& grad_inside,   // [B, K], accumulation dtype
                            const Tensor& grad_outside,  // [B, K], accumulation dtype
                            const Tensor& logits,        // [B, K, N]
                            const Tensor& mask) {        // [B or 1, K or 1, N] bool
    const RowMask rows = checked_mask(logits, mask);
    const DeviceGuard guard(logits);
    const Tensor dense = torch::stable::contiguous(logits);
    const Tensor dense_inside = checked_grad(grad_inside, logits), dense_outside = checked_grad(grad_outside, logits);
    Tensor grad_x = torch::stable::new_empty(dense, dense.sizes());
    CXRFAST_DISPATCH_FLOATING(logits.scalar_type(), "region_sums_backward", [&] {
        using acc_t = accumulate_t<scalar_t>;
        const RegionSumsGradient<acc_t> gradient{dense_inside.const_data_ptr<acc_t>(),
                                                 dense_outside.const_data_ptr<acc_t>(), 0, 0};
        differentiate<scalar_t>(dense, rows, gradient, grad_x);
    });
    return grad_x;
}

Tensor box_log_likelihood(const Tensor& logits,  // [B, K, N]
                          const Tensor& mask,    // [B or 1, K or 1, N] bool
                          double floor) {
    check_floor(floor);
    const RowMask rows = checked_mask(logits, mask);
    const DeviceGuard guard(logits);
    const Tensor dense = torch::stable::contiguous(logits);
    Tensor out = empty_sums(logits);
    CXRFAST_DISPATCH_FLOATING(logits.scalar_type(), "box_log_likelihood", [&] {
        using acc_t = accumulate_t<scalar_t>;
        reduce<scalar_t>(dense, rows, BoxLogLikelihood<acc_t>{out.mutable_data_ptr<acc_t>(), Floor<acc_t>::of(floor)});
    });
    return out;
}

Tensor box_log_likelihood_backward(const Tensor& grad,    // [B, K], accumulation dtype
                                   const Tensor& logits,  // [B, K, N]
                                   const Tensor& mask,    // [B or 1, K or 1, N] bool
                                   double floor) {
    check_floor(floor);
    const RowMask rows = checked_mask(logits, mask);
    const DeviceGuard guard(logits);
    const Tensor dense = torch::stable::contiguous(logits), dense_grad = checked_grad(grad, logits);
    Tensor grad_x = torch::stable::new_empty(dense, dense.sizes());
    CXRFAST_DISPATCH_FLOATING(logits.scalar_type(), "box_log_likelihood_backward", [&] {
        using acc_t = accumulate_t<scalar_t>;
        const BoxLogLikelihoodGradient<acc_t> gradient{dense_grad.const_data_ptr<acc_t>(), Floor<acc_t>::of(floor), 0};
        differentiate<scalar_t>(dense, rows, gradient, grad_x);
    });
    return grad_x;
}

}  // namespace
}  // namespace cxrfast

CXRFAST_CUDA_IMPL(m) {
    m.impl("region_sums", TORCH_BOX(&cxrfast::region_sums));
    m.impl("_region_sums_backward", TORCH_BOX(&cxrfast::region_sums_backward));
    m.impl("box_log_likelihood", TORCH_BOX(&cxrfast::box_log_likelihood));
    m.impl("_box_log_likelihood_backward", TORCH_BOX(&cxrfast::box_log_likelihood_backward));
}

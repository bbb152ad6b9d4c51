// The pixel-adaptive filter of some images on the device, and its gradients: decides which affinities are stored when.
#pragma once

#include "cuda/pac_crf/launch.h"

namespace cxrfast {
namespace {

// Inputs shared by all images of a call.
template <typename T>
struct FilterShape {
    FilterWeight<T> forward, backward;  // backward: transposed, if gradients are requested
    bool shared;
    T sign = 1;  // of the gradients: -1 if the result of the filter is subtracted
};

template <typename T>
class PixelAdaptiveFilter {
  public:
    PixelAdaptiveFilter(const FilterShape<T>& shape,
                        const Window& window,
                        const Tensor& guide,  // [G, N]
                        bool with_gradients)
        : shape_(shape), window_(window), guide_(guide), guides_(guide.numel() / window.size()) {
        const int64_t upper = window.rows / 2 + 1;
        const int64_t row_bytes = affinity_bytes<T>(window, window.columns, with_gradients);
        group_rows_ = static_cast<int>(std::clamp<int64_t>(kAffinityBytes / row_bytes, 1, upper));
        groups_ = static_cast<int>(divide_up(upper, group_rows_));
        const TapRows most = rows(0);
        affinity_ = torch::stable::new_empty(guide, {most.planes(window), window.size()});
        if (with_gradients) {
            grad_affinity_ = torch::stable::new_empty(guide, {most.count() * window.columns, window.size()});
            grad_guide_ = torch::stable::new_empty(guide, {guides_, window.size()});
        }
    }

    // Filters the planes `in` [C, N].
    SplitSums<T> apply(const T* in, int channels) {
        SplitSums<T> out;
        for (int group = 0; group < groups_; ++group) {
            prepare(group);
            launch_filter(shape_.forward, window_, affinities(), in, out, channels, groups_ == 1, group > 0);
        }
        return out;
    }

    // Given the gradient of apply(in), returns the gradient of `in`. The other gradients are stored or, if not all
    // affinities fit, added to grad_weight.
    SplitSums<T> apply_backward(const T* in, const T* grad, int channels, Tensor& grad_weight) {
        SplitSums<T> out;
        for (int group = 0; group < groups_; ++group) {
            prepare(group);
            launch_filter_gradient(shape_.backward, window_, affinities(), grad, in, out, grad_affinity_, channels,
                                   groups_ == 1, group > 0, groups_ > 1 || !pending_);
            pending_ = true;
            if (groups_ > 1) flush(1, in, grad, grad_weight);
        }
        return out;
    }

    // After the backward of all `steps`: adds to grad_weight, and returns the gradient of the guide [G, N].
    Tensor finish(int steps,
                  const T* in,          // [steps, C, N]
                  const T* grad,        // [steps, O, N]
                  Tensor& grad_weight)  // [O, C, k, k]
    {
        if (groups_ == 1) flush(steps, in, grad, grad_weight);
        return grad_guide_;
    }

  private:
    TapRows rows(int group) const {
        const int first = group * group_rows_;
        return {first, std::min(first + group_rows_, window_.rows / 2 + 1), window_.rows};
    }

    Affinities<T> affinities() { return {affinity_.mutable_data_ptr<T>(), rows(group_)}; }

    Grid pixel_grid(int64_t others) const {
        return {dim3(static_cast<unsigned int>(divide_up(window_.size(), kPixelThreads)),
                     static_cast<unsigned int>(std::clamp<int64_t>(others, 1, 65535))),
                kPixelThreads};
    }

    void prepare(int group) {
        if (group_ == group) return;
        group_ = group;
        launch(affinity_kernel<T>, pixel_grid(divide_up(rows(group).planes(window_), kTapsTogether)), guide_, window_,
               guides_, guide_.const_data_ptr<T>(), affinities());
    }

    void flush(int steps, const T* in, const T* grad, Tensor& grad_weight) {
        const T* factor = nullptr;
        if (shape_.shared) {
            launch_shared_weight_gradient(window_, affinities(), grad_affinity_, shape_.sign, grad_weight);
            factor = shape_.backward.data();
        } else {
            launch_weight_gradient(window_, affinities(), steps, grad, in, shape_.sign, grad_weight);
        }
        const Grid grid = pixel_grid(rows(group_).planes(window_));
        launch(coefficient_kernel<T>, grid, guide_, window_, affinities(), grad_affinity_.const_data_ptr<T>(), factor,
               shape_.sign);
        if (guides_ > 0) {
            launch(guide_gradient_kernel<T>, pixel_grid(divide_up(guides_, kGuidesTogether)), guide_, window_, guides_,
                   guide_.const_data_ptr<T>(), affinities(), grad_guide_.mutable_data_ptr<T>(), has_grad_guide_);
        }
        has_grad_guide_ = true;
        group_ = -1;  // the affinities have been overwritten
    }

    const FilterShape<T>& shape_;
    Window window_;
    Tensor guide_, affinity_, grad_affinity_, grad_guide_;
    int64_t guides_;
    int group_rows_ = 1, groups_ = 1;
    int group_ = -1;  // the group whose affinities are stored
    bool pending_ = false, has_grad_guide_ = false;
};

}  // namespace
}  // namespace cxrfast

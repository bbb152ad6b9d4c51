// The mean-field steps of some images on the device, and their gradients.
//
// A step has two launches: the filter, whose blocks need the activations of neighbours, and the sum over its splits
// with the next activation. One block for all steps of an image would save launches, but leave most of a device idle: a
// batch of 48 would use 48 of more than 100 multiprocessors.
#pragma once

#include "cuda/pac_crf/engine.h"

namespace cxrfast {
namespace {

// Inputs shared by all images of a call.
template <typename T>
struct MeanField {
    FilterShape<T> filter;
    FilterWeight<T> mixing,
        mixing_transposed;  // [K, K], applied before a shared filter; else contained in the weights
    bool apart;             // whether this mixing exists
    int labels, steps;
    Activation activation;
    const T* unary_weight;  // on the device
};

// Gradients summed over images, in T.
struct MeanFieldGradients {
    Tensor weight;         // [K, K, k, k] or [1, 1, k, k]
    Tensor compatibility;  // [K, K, 1, 1]
    Tensor unary_weight;   // [1, 1, 1, 1]
};

// out = matrix * in, over channels of planes [C, height, width]
template <typename T>
SplitSums<T> mix(const FilterWeight<T>& matrix, int64_t height, int64_t width, const T* in) {
    SplitSums<T> out;
    const Affinities<T> ones{nullptr, {0, 1, 1}};
    launch_filter(matrix, point_window(height, width), ones, in, out, matrix.out_channels, false, false);
    return out;
}

// grad_matrix [O, C, 1, 1] += sign * the gradient of mix(), summed over `steps` inputs
template <typename T>
void mix_gradient(int64_t height, int64_t width, int steps, const T* grad, const T* in, T sign, Tensor& grad_matrix) {
    const Affinities<T> ones{nullptr, {0, 1, 1}};
    launch_weight_gradient(point_window(height, width), ones, steps, grad, in, sign, grad_matrix);
}

template <typename T>
class MeanFieldImages {
  public:
    MeanFieldImages(const MeanField<T>& field,
                    const Window& window,
                    const Tensor& unary,  // [K, N]
                    const Tensor& guide,  // [G, N]
                    bool with_gradients)
        : field_(field),
          window_(window),
          filter_(field.filter, window, guide, with_gradients),
          unary_(unary),
          states_(with_gradients ? field.steps : 1) {
        activations_ = planes(states_);
        if (field.apart) mixed_ = planes(states_);
    }

    // The logits after the last step, [K, N].
    Tensor forward() {
        Tensor logits = planes(1);
        run_steps(field_.steps, logits.mutable_data_ptr<T>());
        return logits;
    }

    struct Gradients {
        Tensor unary, guide;  // [K, N], [G, N]
    };

    Gradients backward(const Tensor& grad, MeanFieldGradients& sums) {  // grad: [K, N]
        run_steps(field_.steps - 1, nullptr);
        const int64_t steps = field_.steps;
        Tensor grad_logits = planes(steps), grad_unary = planes(1), total = planes(1);  // grad_logits: after each step
        Tensor grad_mixed = field_.apart ? planes(steps) : Tensor();
        Tensor last = torch::stable::narrow(grad_logits, 0, steps - 1, 1);
        torch::stable::copy_(last, torch::stable::view(grad, last.sizes()));
        for (int64_t t = steps - 1; t >= 0; --t) {
            SplitSums<T> grad_activations =
                filter_.apply_backward(filtered(t), at(grad_logits, t), field_.labels, sums.weight);
            if (field_.apart) {
                launch_sum<T>(grad_activations, field_.labels, window_.size(), nullptr, at(grad_mixed, t), unary_);
                grad_activations = mix<T>(field_.mixing_transposed, window_.height, window_.width, at(grad_mixed, t));
            }
            launch(mean_field_step_gradient_kernel<T>, step_grid(), unary_, grad_activations.get(), field_.labels,
                   window_.size(), at(activations_, t), field_.activation,
                   t > 0 ? at(grad_logits, t - 1) : at(grad_unary, 0));
        }
        const Tensor grad_guide = filter_.finish(field_.steps, filtered(0), at(grad_logits, 0), sums.weight);
        if (field_.apart) {
            mix_gradient<T>(window_.height, window_.width, field_.steps, at(grad_mixed, 0), at(activations_, 0), T(-1),
                            sums.compatibility);
        }
        const int64_t count = int64_t{1} * field_.labels * window_.size();
        launch(unary_gradient_kernel<T>, {blocks_for(count, kStepThreads), kStepThreads}, unary_, field_.steps, count,
               at(grad_logits, 0), field_.unary_weight, at(grad_unary, 0), at(total, 0));
        // The inner product of one channel, computed as a sum over labels in place of steps.
        mix_gradient<T>(window_.height, window_.width, field_.labels, at(total, 0), unary_.const_data_ptr<T>(), T(1),
                        sums.unary_weight);
        return {grad_unary, grad_guide};
    }

  private:
    Tensor planes(int64_t states) const {
        const int64_t labels = field_.labels, size = window_.size();
        return torch::stable::new_empty(unary_, {states, labels, size});
    }

    T* at(Tensor& planes, int64_t step) const {
        return planes.mutable_data_ptr<T>() + step * field_.labels * window_.size();
    }

    Grid step_grid() const { return {dim3(static_cast<unsigned int>(divide_up(window_.size(), kWarp))), kStepThreads}; }

    // The input of the filter in step t: the activations, mixed if the compatibility is applied separately.
    T* filtered(int64_t t) { return at(field_.apart ? mixed_ : activations_, t); }

    void step(const SplitSums<T>& message, const T* unary_weight, bool last, T* out) {
        launch(mean_field_step_kernel<T>, step_grid(), unary_, message.get(), field_.labels, window_.size(),
               unary_.const_data_ptr<T>(), unary_weight, field_.activation, last, out);
    }

    // logit^0 = unary; logit^{t+1} = unary_weight * unary - compatibility * pac_conv(activation(logit^t)). The result
    // of the last step is written to `logits`; if that is nullptr, it is activated and stored like the others.
    void run_steps(int64_t steps, T* logits) {
        step({}, nullptr, false, at(activations_, 0));
        for (int64_t t = 0; t <= steps; ++t) {
            const int64_t state = std::min<int64_t>(t, states_ - 1);
            if (field_.apart && (t < steps || logits == nullptr)) {
                const SplitSums<T> sums = mix<T>(field_.mixing, window_.height, window_.width, at(activations_, state));
                launch_sum<T>(sums, field_.labels, window_.size(), nullptr, at(mixed_, state), unary_);
            }
            if (t == steps) break;
            const SplitSums<T> message = filter_.apply(filtered(state), field_.labels);
            const bool last = logits != nullptr && t == steps - 1;
            step(message, field_.unary_weight, last,
                 last ? logits : at(activations_, std::min<int64_t>(t + 1, states_ - 1)));
        }
    }

    const MeanField<T>& field_;
    Window window_;
    PixelAdaptiveFilter<T> filter_;
    Tensor unary_;
    int64_t states_;
    Tensor activations_, mixed_;  // [states, K, N]: of every step if gradients are requested
};

}  // namespace
}  // namespace cxrfast

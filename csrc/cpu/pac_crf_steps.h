// The mean-field steps of one image on the CPU, and their gradients.
#pragma once

#include <optional>

#include "pac_crf_filter.h"

namespace cxrfast {
namespace {

// What all images of a call share.
template <typename T>
struct MeanField {
    Window window;
    int64_t labels;  // K
    int64_t steps;
    T unary_weight;
    Activation activation;
    Taps<T> taps;                  // with the compatibility multiplied in, if they are [K, K, k, k]
    std::vector<T> compatibility;  // else [K, K], mixed before the filter: they commute. Even K; empty if there is none
    std::vector<T> transposed;

    int64_t even_labels() const { return round_up(labels, 2); }
};

// Gradients summed over images.
template <typename T>
struct MeanFieldGradients {
    std::vector<T> taps;           // Taps::gradient_size
    std::vector<T> compatibility;  // [round_up(K, 4), even K]; empty if it is multiplied into the taps
    T unary_weight = 0;

    explicit MeanFieldGradients(const MeanField<T>& field)
        : taps(field.taps.gradient_size(field.window)),
          compatibility(field.compatibility.empty() ? 0 : round_up(field.labels, 4) * field.even_labels()) {}

    void add(const MeanFieldGradients& other) {
        for (size_t i = 0; i < taps.size(); ++i) taps[i] += other.taps[i];
        for (size_t i = 0; i < compatibility.size(); ++i) compatibility[i] += other.compatibility[i];
        unary_weight += other.unary_weight;
    }
};

template <typename T>
class MeanFieldImage {
  public:
    MeanFieldImage(const MeanField<T>& field, int64_t guide_channels, bool with_gradients)
        : field_(field),
          filter_(field.window, guide_channels, with_gradients),
          unary_(planes()),
          logits_(planes()),
          message_(planes()),
          ones_(field.window.size(), T(1)) {
        if (!field.compatibility.empty()) mixed_ = planes();
        const int64_t states = with_gradients ? field.steps : 1;
        for (int64_t t = 0; t < states; ++t) q_.push_back(planes());
        if (with_gradients) {
            grad_unary_ = planes();
            grad_mixed_ = planes();
        }
    }

    template <typename scalar_t>
    void forward(const scalar_t* unary,  // [K, H, W]
                 const scalar_t* guide,  // [G, H, W]
                 scalar_t* result) {     // [K, H, W]
        run_steps(unary, guide);
        store(result, logits_, field_.labels, field_.window.size());
    }

    template <typename scalar_t>
    void backward(const scalar_t* grad,   // [K, H, W]
                  const scalar_t* unary,  // [K, H, W]
                  const scalar_t* guide,  // [G, H, W]
                  scalar_t* grad_unary,   // [K, H, W]
                  scalar_t* grad_guide,   // [G, H, W]
                  MeanFieldGradients<T>& sums) {
        run_steps(unary, guide);
        Planes<T>& grad_logits = logits_;  // not needed any more
        load(grad_logits, grad, field_.labels, field_.window.size());
        grad_unary_.zero();
        for (int64_t t = field_.steps - 1; t >= 0; --t) step_backward(t, grad_logits, sums);
        add_scaled(grad_unary_, grad_logits, T(1));
        store(grad_unary, grad_unary_, field_.labels, field_.window.size());
        filter_.end_image(grad_guide);
    }

  private:
    Planes<T> planes() const { return Planes<T>(round_up(field_.labels, 4), field_.window.size()); }

    // f(first pixel, n)
    template <typename F>
    void for_each_pixel_band(const F& f) const {
        const int64_t width = field_.window.width;
        field_.window.for_each_band(field_.window.chunks(), [&](int64_t, Rows rows) {
            f(rows.begin * width, (rows.end - rows.begin) * width);
        });
    }

    void add_scaled(Planes<T>& target, const Planes<T>& source, T factor) const {
        for_each_pixel_band([&](int64_t i, int64_t n) {
            for (int64_t c = 0; c < field_.labels; ++c) {
                combine(target[c] + i, T(1), source[c] + i, factor, n);
            }
        });
    }

    // target = matrix * source, over labels
    void mix_labels(Planes<T>& target, const std::vector<T>& matrix, const Planes<T>& source) const {
        target.zero();
        for_each_pixel_band([&](int64_t i, int64_t n) {
            mix<false, T>(target[0] + i, source[0] + i, ones_.data() + i, matrix.data(), nullptr, nullptr,
                          field_.even_labels(), field_.even_labels(), target.pitch, n);
        });
    }

    // What step t filters: the activations, mixed if a compatibility matrix stands apart.
    const Planes<T>& filtered(const Planes<T>& q) {
        if (field_.compatibility.empty()) return q;
        mix_labels(mixed_, field_.compatibility, q);
        return mixed_;
    }

    // logit^0 = unary; logit^{t+1} = unary_weight * unary - compatibility * pac_conv(activation(logit^t))
    template <typename scalar_t>
    void run_steps(const scalar_t* unary, const scalar_t* guide) {
        load(unary_, unary, field_.labels, field_.window.size());
        load(logits_, unary, field_.labels, field_.window.size());
        filter_.begin_image(guide);
        for (int64_t t = 0; t < field_.steps; ++t) {
            Planes<T>& q = q_[std::min<int64_t>(t, q_.size() - 1)];
            for_each_pixel_band([&](int64_t i, int64_t n) {
                activate(q[0] + i, logits_[0] + i, field_.activation, field_.labels, q.pitch, n);
            });
            message_.zero();
            filter_.apply(field_.taps, filtered(q), message_, field_.labels);
            for_each_pixel_band([&](int64_t i, int64_t n) {
                for (int64_t c = 0; c < field_.labels; ++c) {
                    std::copy_n(unary_[c] + i, n, logits_[c] + i);
                    combine(logits_[c] + i, field_.unary_weight, message_[c] + i, T(-1), n);
                }
            });
        }
    }

    // Turns grad_logits from the gradient of logit^{t+1} into that of logit^t.
    void step_backward(int64_t t, Planes<T>& grad_logits, MeanFieldGradients<T>& sums) {
        const int64_t size = field_.window.size(), labels = field_.labels;
        add_scaled(grad_unary_, grad_logits, field_.unary_weight);
        for (int64_t c = 0; c < labels; ++c) sums.unary_weight += inner_product(unary_[c], grad_logits[c], size);

        Planes<T>& grad_message = message_;
        for (int64_t c = 0; c < labels; ++c) {
            for (int64_t i = 0; i < size; ++i) grad_message[c][i] = -grad_logits[c][i];
        }
        Planes<T>& grad_q = grad_logits;
        Planes<T>& grad_filtered = field_.compatibility.empty() ? grad_q : grad_mixed_;
        grad_filtered.zero();
        filter_.apply_backward(field_.taps, filtered(q_[t]), grad_message, grad_filtered, sums.taps, labels);
        if (!field_.compatibility.empty()) {
            add_inner_products(sums.compatibility.data(), grad_mixed_[0], q_[t][0], round_up(labels, 4),
                               field_.even_labels(), grad_mixed_.pitch, size);
            mix_labels(grad_q, field_.transposed, grad_mixed_);
        }
        for_each_pixel_band([&](int64_t i, int64_t n) {
            activate_backward(grad_q[0] + i, q_[t][0] + i, field_.activation, labels, grad_q.pitch, n);
        });
    }

    const MeanField<T>& field_;
    PixelAdaptiveFilter<T> filter_;
    Planes<T> unary_, logits_, message_, mixed_;
    Planes<T> grad_unary_, grad_mixed_;
    std::vector<Planes<T>> q_;  // activations: of every step if gradients are wanted
    std::vector<T> ones_;
};

}  // namespace
}  // namespace cxrfast

// The mean-field steps of a wave of images on the CPU, and their gradients.
#pragma once

#include "cpu/pac_crf/filter.h"

namespace cxrfast {
namespace {

// Inputs shared by all images of a call.
template <typename T>
struct MeanField {
    Window window;
    int64_t labels;  // K
    int64_t steps;
    T unary_weight;
    Activation activation;
    Taps<T> taps;                    // contain the compatibility if they are [K, K, k, k]
    bool mixes;                      // otherwise, it is applied before the filter, with which it commutes
    TiledMatrices<T> compatibility;  // [K, K], if it is applied separately
    TiledMatrices<T> transposed;
};

// Gradients summed over images.
template <typename T>
struct MeanFieldGradients {
    PartialSums<T> taps;           // size: Taps::gradient_size
    PartialSums<T> compatibility;  // [K, K]
    T unary_weight = 0;

    MeanFieldGradients(const MeanField<T>& field, const Layout& layout)
        : taps(field.taps.gradient_size(field.window), layout),
          compatibility(field.mixes ? field.labels * field.labels : 0, layout) {}
};

template <typename T>
class MeanFieldWave {
  public:
    MeanFieldWave(const MeanField<T>& field, const Layout& layout, int64_t guides, bool all, bool with_gradients)
        : field_(field),
          layout_(layout),
          guides_(guides),
          filter_(layout, guides, all, with_gradients),
          ones_(layout.pitch(), T(1)),
          unary_(layout, field.labels),
          message_(layout, field.labels) {
        // The q of every step if gradients are requested; else of the current step and the next.
        const int64_t states = with_gradients ? field.steps : 2;
        for (int64_t t = 0; t < states; ++t) q_.push_back(planes());
        for (int64_t t = 0; field.mixes && t < 2; ++t) mixed_.push_back(planes());
        if (with_gradients) {
            grad_ = planes();
            grad_unary_ = Planes<T>(layout, field.labels);
        }
    }

    // Number of elements needed for a group of images if all affinities are stored.
    static int64_t size(
        const Layout& layout, int64_t labels, int64_t steps, bool mixes, int64_t guides, bool gradients) {
        const int64_t planes = (gradients ? steps + 4 : 4) + (mixes ? 2 : 0);
        return Affinities<T>::size(layout, guides, gradients) +
               layout.window.height * layout.pitch() * planes * (labels + 1);
    }

    template <typename scalar_t>
    void forward(const scalar_t* unary,  // [images, K, H, W]
                 const scalar_t* guide,  // [images, G, H, W]
                 scalar_t* result,       // [images, K, H, W]
                 const ImageRows& part,
                 const Layout& layout) {
        run_steps(unary, guide, part, layout, field_.steps);
        for_each_row([&](int64_t r) { store_row(result, field_.steps > 0 ? message_ : unary_, part_, layout_, r); });
    }

    template <typename scalar_t>
    void backward(const scalar_t* grad,   // [images, K, H, W]
                  const scalar_t* unary,  // [images, K, H, W]
                  const scalar_t* guide,  // [images, G, H, W]
                  scalar_t* grad_unary,   // [images, K, H, W]
                  scalar_t* grad_guide,   // [images, G, H, W]
                  MeanFieldGradients<T>& sums,
                  const ImageRows& part,
                  const Layout& layout) {
        run_steps(unary, guide, part, layout, field_.steps - 1);
        filter_.begin_gradients();
        unary_weight_.assign(layout_.rows(), T(0));
        for_each_row([&](int64_t r) {
            load_row(grad_, grad, part_, layout_, r);
            for (int64_t c = 0; c < field_.labels; ++c) std::fill_n(grad_unary_.row(r, c), layout_.row_size(), T(0));
            if (field_.steps > 0) begin_step_backward(r);
        });
        for (int64_t t = field_.steps - 1; t >= 0; --t) step_backward(t, sums);
        for_each_row([&](int64_t r) {
            add(grad_unary_, grad_, T(1), r);
            store_row(grad_unary, grad_unary_, part_, layout_, r);
        });
        for (const T value : unary_weight_) sums.unary_weight += value;
        filter_.end_gradients(field_.taps, sums.taps, grad_guide, {part.first_image, part.images, guides_});
    }

  private:
    Planes<T> planes() const { return Planes<T>(layout_, field_.labels, field_.labels % 2); }

    template <typename F>
    void for_each_row(const F& f) const {
        in_parallel(layout_.rows(), 8 * field_.labels * layout_.pitch(), [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r) f(r);
        });
    }

    void add(const Planes<T>& target, const Planes<T>& source, T factor, int64_t r) const {
        for (int64_t c = 0; c < field_.labels; ++c) {
            combine(target.row(r, c), T(1), source.row(r, c), factor, layout_.row_size());
        }
    }

    // target = matrix * source, over labels. Blocks extend into the margins, which must stay 0.
    void mix(const Planes<T>& target, const TiledMatrices<T>& matrix, const Planes<T>& source, int64_t r) const {
        clear_row(target, r);
        mix_row(target.row(r), source.row(r), matrix, ones_.data(), target.pitch, layout_.row_size());
        clear_margins(target, r);
    }

    void clear_row(const Planes<T>& planes, int64_t r) const {
        std::fill_n(planes.row(r), field_.labels * planes.pitch, T(0));
    }

    void clear_margins(const Planes<T>& planes, int64_t r) const {
        for (int64_t c = 0; c < field_.labels; ++c) {
            std::fill(planes.row(r, c) + layout_.row_size(), planes.row(r, c) + planes.pitch, T(0));
        }
    }

    Planes<T>& q(int64_t t) { return q_[t % q_.size()]; }

    // The input of the filter in step t: q, mixed if the compatibility is applied separately.
    const Planes<T>& filtered(int64_t t) { return field_.mixes ? mixed_[t % 2] : q(t); }

    void mix_state(int64_t t, int64_t r) { mix(mixed_[t % 2], field_.compatibility, q(t), r); }

    // Computes q of step t, and the input of its filter, from the logits.
    void begin_step(int64_t t, const Planes<T>& logits, int64_t r) {
        activate(q(t).row(r), logits.row(r), field_.activation, field_.labels, logits.pitch, layout_.row_size());
        clear_spare_lanes(q(t), part_, layout_, r);
        if (field_.mixes) mix_state(t, r);
    }

    // logit^0 = unary; logit^{t+1} = unary_weight * unary - compatibility * pac_conv(activation(logit^t)). The result
    // is in message_. If q is stored, it includes the q after the last of `steps`.
    template <typename scalar_t>
    void run_steps(
        const scalar_t* unary, const scalar_t* guide, const ImageRows& part, const Layout& layout, int64_t steps) {
        part_ = part;
        layout_ = layout;
        filter_.begin_wave(guide, {part.first_image, part.images, guides_}, layout);
        for_each_row([&](int64_t r) {
            load_row(unary_, unary, part_, layout_, r);
            if (field_.steps > 0) begin_step(0, unary_, r);
            clear_row(message_, r);
        });
        for (int64_t t = 0; t < steps; ++t) {
            filter_.apply(field_.taps, filtered(t), message_, [&](int64_t r) {
                for (int64_t c = 0; c < field_.labels; ++c) {
                    combine(message_.row(r, c), T(-1), unary_.row(r, c), field_.unary_weight, layout_.row_size());
                }
                if (t + 1 < field_.steps) {
                    begin_step(t + 1, message_, r);
                    clear_row(message_, r);
                }
            });
        }
    }

    // grad_ holds the gradient of logit^{t+1}. Adds the contribution to the unary's, and leaves the gradient of the
    // message.
    void begin_step_backward(int64_t r) {
        add(grad_unary_, grad_, field_.unary_weight, r);
        for (int64_t c = 0; c < field_.labels; ++c) {
            unary_weight_[r] += inner_product(unary_.row(r, c), grad_.row(r, c), layout_.row_size());
            negate(grad_.row(r, c), layout_.row_size());
        }
        clear_row(message_, r);
    }

    // Converts grad_ from the gradient of the message of step t to that of step t - 1, and finally to that of logit^0.
    void step_backward(int64_t t, MeanFieldGradients<T>& sums) {
        if (field_.mixes) for_each_row([&](int64_t r) { mix_state(t, r); });
        const Planes<T>& grad_filtered = message_;
        filter_.apply_backward(field_.taps, filtered(t), grad_, grad_filtered, sums.taps);
        if (field_.mixes) add_compatibility_gradients(grad_filtered, q(t), sums.compatibility);
        for_each_row([&](int64_t r) {
            const int64_t size = layout_.row_size();
            if (field_.mixes) {
                mix(grad_, field_.transposed, grad_filtered, r);
            } else {
                for (int64_t c = 0; c < field_.labels; ++c) std::copy_n(grad_filtered.row(r, c), size, grad_.row(r, c));
            }
            activate_backward(grad_.row(r), q(t).row(r), field_.activation, field_.labels, grad_.pitch, size);
            clear_spare_lanes(grad_, part_, layout_, r);
            if (t > 0) begin_step_backward(r);
        });
    }

    // sums [K, K] += grad_mixed [k] * q [l], summed over pixels, stored as [l, k]
    void add_compatibility_gradients(const Planes<T>& grad_mixed, const Planes<T>& q, PartialSums<T>& sums) {
        const Tiles<T>& tile = tiles<T>();
        const int64_t labels = field_.labels, size = 2 * labels * tile.vector;
        in_parallel(sums.parts(), labels * labels * layout_.rows() * layout_.pitch() / sums.parts(),
                    [&](int64_t first, int64_t last) {
                        std::vector<T> products(size);
                        for (int64_t part = first; part < last; ++part) {
                            const Range rows = sums.rows(part, layout_);
                            for (int64_t l = 0; l < labels; l += 2) {
                                std::fill(products.begin(), products.end(), T(0));
                                for_each_tile(labels, tile.most_channels, [&](int64_t k, int64_t width) {
                                    tile.weight[width - 1]({grad_mixed.row(rows.begin, k), q.row(rows.begin, l),
                                                            ones_.data(), grad_mixed.pitch, q.pitch, grad_mixed.stride,
                                                            q.stride, 0, rows.end - rows.begin, layout_.row_size(),
                                                            products.data() + 2 * k * tile.vector});
                                });
                                T* to = sums.part(part) + l * labels;
                                add_pair_sums(to, l + 1 < labels ? to + labels : nullptr, products.data(), labels,
                                              tile.vector);
                            }
                        }
                    });
    }

    const MeanField<T>& field_;
    Layout layout_;
    int64_t guides_;
    ImageRows part_{};
    PixelAdaptiveFilter<T> filter_;
    std::vector<T> ones_;
    Planes<T> unary_, message_;
    std::vector<Planes<T>> q_, mixed_;
    Planes<T> grad_, grad_unary_;
    std::vector<T> unary_weight_;  // gradient, per row
};

}  // namespace
}  // namespace cxrfast

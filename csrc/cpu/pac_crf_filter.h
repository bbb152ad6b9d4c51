// The pixel-adaptive filter of one image on the CPU, and its gradients.
//
// Affinities are symmetric, so half of the window's taps are kept, each as a plane [H*W] with zeros where the neighbour
// lies outside. If all of them fit kAffinityBytes they are computed once for all mean-field steps; otherwise a group of
// taps at a time, anew in every step. Nothing has more than k*k*H*W elements, and every result is gathered: no element
// is written by two threads.
#pragma once

#include <limits>

#include "pac_crf_planes.h"

namespace cxrfast {
namespace {

template <typename T>
class PixelAdaptiveFilter {
  public:
    // A kept tap costs one plane, and two more for the gradients of its affinity and of its mirror image's.
    PixelAdaptiveFilter(const Window& window, int64_t guide_channels, bool with_gradients)
        : window_(window),
          guide_channels_(guide_channels),
          guide_(guide_channels, window.size()),
          own_affinity_(window.size()) {
        const int64_t tap_bytes = plane_bytes() * (with_gradients ? 3 : 1);
        group_size_ = std::clamp<int64_t>(kAffinityBytes / tap_bytes, 1, std::max<int64_t>(window.centre(), 1));
        groups_ = std::max<int64_t>(1, (window.centre() + group_size_ - 1) / group_size_);
        affinity_ = Planes<T>(std::min(group_size_, window.centre()), window.size());
        if (with_gradients) {
            grad_guide_ = Planes<T>(guide_channels, window.size());
            grad_affinity_ = Planes<T>(2 * std::min(group_size_, window.centre()), window.size());
        }
    }

    template <typename scalar_t>
    void begin_image(const scalar_t* guide) {  // [G, H, W]
        load(guide_, guide, guide_channels_, window_.size());
        guide_magnitude_ = guide_.magnitude();
        if (!(guide_magnitude_ <= std::numeric_limits<T>::max())) {  // else exp(-0/2): 1 it is already
            squared_distance(own_affinity_.data(), guide_[0], guide_[0], guide_channels_, guide_.pitch, window_.size());
            for (T& value : own_affinity_) value = pair_affinity(value);
        } else {
            std::fill(own_affinity_.begin(), own_affinity_.end(), T(1));
        }
        grad_guide_.zero();
        grad_affinity_.zero();
        group_ = -1;
    }

    // out += filter(in)
    void apply(const Taps<T>& taps, const Planes<T>& in, Planes<T>& out, int64_t channels) {
        const bool flat = is_flat(in.magnitude() * taps.magnitude);
        for (int64_t group = 0; group < groups_; ++group) {
            prepare(group);
            window_.for_each_band(window_.chunks(), [&](int64_t, Rows rows) {
                for_each_tap(group, [&](int64_t tap) {
                    const T* affinity = affinity_of(tap);
                    const int64_t shift = window_.shift(tap);
                    window_.for_each_run(tap, rows, flat, [&](int64_t i, int64_t n) {
                        if (taps.shared) {
                            add_product(out[0] + i, in[0] + i + shift, affinity + i, taps.forward[tap], channels,
                                        in.pitch, n);
                        } else {
                            const T* weight = taps.forward.data() + tap * taps.out_channels * taps.in_channels;
                            mix<false, T>(out[0] + i, in[0] + i + shift, affinity + i, weight, nullptr, nullptr,
                                          taps.out_channels, taps.in_channels, in.pitch, n);
                        }
                    });
                });
            });
        }
    }

    // Given grad of filter(in): grad_in += its gradient with respect to `in`; the weights' is added to `grad_taps`
    // (Taps::gradient_size values), the affinities' is kept until end_image().
    void apply_backward(const Taps<T>& taps,
                        const Planes<T>& in,
                        const Planes<T>& grad,
                        Planes<T>& grad_in,
                        std::vector<T>& grad_taps,
                        int64_t channels) {
        const bool flat = is_flat(in.magnitude() * taps.magnitude * grad.magnitude());
        const int64_t size = taps.gradient_size(window_), chunks = backward_chunks(size);
        std::vector<T> partial(chunks * size);
        for (int64_t group = 0; group < groups_; ++group) {
            prepare(group);
            window_.for_each_band(chunks, [&](int64_t chunk, Rows rows) {
                T* sums = partial.data() + chunk * size;
                if (taps.shared) {
                    shared_backward(taps, in, grad, grad_in, sums, channels, group, rows, flat);
                } else {
                    full_backward(taps, in, grad, grad_in, sums, group, rows, flat);
                }
            });
            if (groups_ > 1) flush_affinity_gradients(group);
        }
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            for (int64_t i = 0; i < size; ++i) grad_taps[i] += partial[chunk * size + i];
        }
    }

    template <typename scalar_t>
    void end_image(scalar_t* grad_guide) {                             // [G, H, W]
        if (groups_ == 1 && group_ == 0) flush_affinity_gradients(0);  // group_ is -1 if nothing was filtered
        store(grad_guide, grad_guide_, guide_channels_, window_.size());
    }

  private:
    int64_t plane_bytes() const { return Planes<T>::pitch_of(window_.size()) * sizeof(T); }

    // Flat runs multiply what they must not use by 0, which needs it to be finite.
    bool is_flat(double magnitude) const {
        return window_.width < kNarrow && magnitude < std::numeric_limits<T>::max();
    }

    int64_t backward_chunks(int64_t gradient_size) const {
        const int64_t affordable = kPartialBytes / (std::max<int64_t>(1, gradient_size) * sizeof(T));
        return std::clamp<int64_t>(window_.chunks(), 1, std::max<int64_t>(1, affordable));
    }

    int64_t first_tap(int64_t group) const { return group * group_size_; }
    int64_t last_tap(int64_t group) const { return std::min((group + 1) * group_size_, window_.centre()); }

    // The kept taps of the group, the taps mirrored to them, and with the last group the centre.
    template <typename F>
    void for_each_tap(int64_t group, const F& visit) const {
        for (int64_t tap = first_tap(group); tap < last_tap(group); ++tap) visit(tap);
        if (group == groups_ - 1) visit(window_.centre());
        for (int64_t tap = last_tap(group) - 1; tap >= first_tap(group); --tap) visit(window_.mirrored(tap));
    }

    // [i] is the affinity of pixel i and its neighbour `tap`.
    const T* affinity_of(int64_t tap) const {
        if (tap == window_.centre()) return own_affinity_.data();
        if (tap < window_.centre()) return affinity_[tap - first_tap(group_)];
        return affinity_[window_.mirrored(tap) - first_tap(group_)] + window_.shift(tap);
    }

    // [i] is the gradient of the affinity as the neighbour `tap` of pixel i uses it, to weigh i.
    T* grad_affinity_of(int64_t tap) {
        if (tap < window_.centre()) return grad_affinity_[tap - first_tap(group_)];
        return grad_affinity_[group_size_ + window_.mirrored(tap) - first_tap(group_)];
    }

    void prepare(int64_t group) {
        if (group_ == group) return;
        group_ = group;
        affinity_.zero();
        window_.for_each_band(window_.chunks(), [&](int64_t, Rows rows) {
            for (int64_t tap = first_tap(group); tap < last_tap(group); ++tap) {
                T* affinity = affinity_[tap - first_tap(group)];
                const int64_t shift = window_.shift(tap);
                window_.for_each_run(tap, rows, false, [&](int64_t i, int64_t n) {
                    squared_distance(affinity + i, guide_[0] + i, guide_[0] + i + shift, guide_channels_, guide_.pitch,
                                     n);
                    for (int64_t j = i; j < i + n; ++j) affinity[j] = pair_affinity(affinity[j]);
                });
            }
        });
    }

    void shared_backward(const Taps<T>& taps,
                         const Planes<T>& in,
                         const Planes<T>& grad,
                         Planes<T>& grad_in,
                         T* sums,
                         int64_t channels,
                         int64_t group,
                         Rows rows,
                         bool flat) {
        std::vector<T> product((rows.end - rows.begin) * window_.width), unused(product.size());
        for_each_tap(group, [&](int64_t tap) {
            const T* affinity = affinity_of(tap);
            const bool centre = tap == window_.centre();
            const int64_t shift = window_.shift(tap);
            window_.for_each_run(tap, rows, flat, [&](int64_t i, int64_t n) {
                T* grad_affinity = centre ? unused.data() : grad_affinity_of(tap) + i;
                const T weight = taps.backward[tap];
                add_product(grad_in[0] + i, grad[0] + i + shift, affinity + i, weight, channels, grad.pitch, n);
                channel_product(product.data(), grad[0] + i + shift, in[0] + i, channels, in.pitch, n);
                sums[tap] += add_and_project(grad_affinity, product.data(), affinity + i, weight, n);
            });
        });
    }

    void full_backward(const Taps<T>& taps,
                       const Planes<T>& in,
                       const Planes<T>& grad,
                       Planes<T>& grad_in,
                       T* sums,
                       int64_t group,
                       Rows rows,
                       bool flat) {
        // The pixels that have this neighbour, packed: their input times affinity, and the neighbour's gradient.
        const int64_t pixels = (rows.end - rows.begin) * window_.width;
        Planes<T> weighted(taps.padded_rows, pixels), neighbour(taps.out_channels, pixels);
        std::vector<T> unused(pixels);
        for_each_tap(group, [&](int64_t tap) {
            const T* affinity = affinity_of(tap);
            const bool centre = tap == window_.centre();
            const int64_t shift = window_.shift(tap);
            const T* weight = taps.backward.data() + tap * taps.out_channels * taps.in_channels;
            int64_t packed = 0;
            window_.for_each_run(tap, rows, flat, [&](int64_t i, int64_t n) {
                T* grad_affinity = centre ? unused.data() : grad_affinity_of(tap) + i;
                mix<true, T>(grad_in[0] + i, grad[0] + i + shift, affinity + i, weight, in[0] + i, grad_affinity,
                             taps.in_channels, taps.out_channels, in.pitch, n);
                for (int64_t c = 0; c < taps.in_channels; ++c) {
                    for (int64_t j = 0; j < n; ++j) weighted[c][packed + j] = affinity[i + j] * in[c][i + j];
                }
                for (int64_t o = 0; o < taps.out_channels; ++o) {
                    std::copy_n(grad[o] + i + shift, n, neighbour[o] + packed);
                }
                packed += n;
            });
            add_inner_products(sums + tap * taps.padded_rows * taps.out_channels, weighted[0], neighbour[0],
                               taps.padded_rows, taps.out_channels, weighted.pitch, packed);
        });
    }

    // dK/df_i = -K (f_i - f_j), for every pixel i and neighbour j; both i and j have used the affinity.
    void flush_affinity_gradients(int64_t group) {
        const bool flat = is_flat(guide_magnitude_ * grad_affinity_.magnitude());
        window_.for_each_band(window_.chunks(), [&](int64_t, Rows rows) {
            std::vector<T> coefficient((rows.end - rows.begin) * window_.width);
            for_each_tap(group, [&](int64_t tap) {
                if (tap == window_.centre()) return;
                const int64_t shift = window_.shift(tap);
                const T* affinity = affinity_of(tap);
                const T *here = grad_affinity_of(tap), *there = grad_affinity_of(window_.mirrored(tap));
                window_.for_each_run(tap, rows, flat, [&](int64_t i, int64_t n) {
                    for (int64_t j = 0; j < n; ++j) {
                        coefficient[j] = affinity[i + j] * (here[i + j] + there[i + j + shift]);
                    }
                    subtract_differences(grad_guide_[0] + i, guide_[0] + i, guide_[0] + i + shift, coefficient.data(),
                                         guide_channels_, guide_.pitch, n);
                });
            });
        });
        grad_affinity_.zero();
    }

    Window window_;
    int64_t guide_channels_, group_size_, groups_;
    int64_t group_ = -1;  // whose affinities are in affinity_
    double guide_magnitude_ = 0;
    Planes<T> guide_, grad_guide_;
    Planes<T> affinity_;           // [group_size, H*W]
    Planes<T> grad_affinity_;      // [2 * group_size, H*W]
    std::vector<T> own_affinity_;  // the centre's: 1, or NaN where the guide is not finite
};

}  // namespace
}  // namespace cxrfast

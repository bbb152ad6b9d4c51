// The affinities of a wave of images on the CPU, and their gradients, including that of the guide.
//
// Affinities are symmetric, so that only half of the window's taps are stored: for every tap, a row of affinities
// between zeros for each row of the images. If all of them fit, they are computed once for all mean-field steps;
// otherwise, in groups of taps, again in every step. No buffer has more than k*k*H*W elements. All results are
// gathered, so that no element is written by two threads.
#pragma once

#include "cpu/pac_crf/loops.h"
#include "cpu/pac_crf/weights.h"

namespace cxrfast {
namespace {

// The location of the values of a run of taps; those of the next tap are `step` further.
template <typename T>
struct TapRows {
    T* data;
    int64_t step;
};

template <typename T>
class Affinities {
  public:
    Affinities(const Layout& layout, int64_t guide_channels, bool all, bool with_gradients)
        : layout_(layout), guides_(guide_channels), guide_(layout, guide_channels), own_(layout, 1) {
        const int64_t centre = layout.window.centre();
        const int64_t tap_bytes = layout.rows() * layout.pitch() * sizeof(T) * (with_gradients ? 3 : 1);
        group_size_ = all ? centre : std::clamp<int64_t>(kAffinityBytes / tap_bytes, 1, std::max<int64_t>(centre, 1));
        groups_ = centre == 0 ? 1 : (centre + group_size_ - 1) / group_size_;
        affinity_ = Planes<T>(layout, group_size_);
        if (with_gradients) {
            grad_guide_ = Planes<T>(layout, guide_channels);
            grad_affinity_ = Planes<T>(layout, 2 * group_size_ + 1);
        }
    }

    // Number of elements needed for a group of images if all affinities are stored.
    static int64_t size(const Layout& layout, int64_t guide_channels, bool with_gradients) {
        const int64_t centre = layout.window.centre();
        const int64_t planes = with_gradients ? 2 * guide_channels + 3 * centre + 2 : guide_channels + centre + 1;
        return layout.window.height * layout.pitch() * planes;
    }

    int64_t groups() const { return groups_; }

    template <typename scalar_t>
    void begin_wave(const scalar_t* guide,  // [images, G, H, W]
                    const ImageRows& part,
                    const Layout& layout) {
        layout_ = layout;
        group_ = -1;
        in_parallel(layout_.rows(), guides_ * layout_.pitch(), [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r) {
                load_row(guide_, guide, part, layout_, r);
                own_affinity(own_.row(r), guide_.row(r), guides_, guide_.pitch, layout_.row_size());
            }
        });
    }

    // The stored taps of a group, the centre (in the last group), and the mirrored taps; in this order.
    std::vector<Segment> segments(int64_t group) const {
        const Window& window = layout_.window;
        std::vector<Segment> result;
        const auto add = [&](int64_t begin, int64_t end) {
            for (int64_t tap = begin; tap < end;) {
                const int64_t next = std::min(end, (tap / window.kernel + 1) * window.kernel);
                const Offset offset = window.offset(tap);
                if (std::abs(offset.dy) < window.height) result.push_back({tap, next - tap, offset});
                tap = next;
            }
        };
        add(first_tap(group), last_tap(group));
        if (group == groups_ - 1) add(window.centre(), window.centre() + 1);
        add(window.mirrored(last_tap(group) - 1), window.mirrored(first_tap(group)) + 1);
        return result;
    }

    // Computes the affinities of a group unless they are available. They do not have gradients yet.
    void prepare(int64_t group) {
        if (group_ == group) return;
        group_ = group;
        has_gradients_ = false;
        const std::vector<Segment> segments = this->segments(group);
        in_parallel(layout_.rows(), group_size_ * guides_ * layout_.pitch(), [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r) {
                for (const Segment& segment : segments) {
                    if (segment.tap >= layout_.window.centre()) break;
                    compute(r, segment);
                }
            }
        });
    }

    // The affinities of row r, from its first element on.
    TapRows<const T> affinity(const Segment& segment, int64_t r) const {
        const int64_t centre = layout_.window.centre();
        if (segment.tap == centre) return {own_.row(r), 0};
        if (segment.tap < centre) return {affinity_.row(r, segment.tap - first_tap(group_)), affinity_.pitch};
        const T* mirrored =
            affinity_.row(r + segment.offset.dy, layout_.window.mirrored(segment.tap) - first_tap(group_));
        return {mirrored + segment.offset.dx * layout_.lanes,
                layout_.window.dilation * layout_.lanes - affinity_.pitch};
    }

    // Distance between the affinities of consecutive rows.
    int64_t row_step(const Segment& segment) const {
        return segment.tap == layout_.window.centre() ? own_.stride : affinity_.stride;
    }

    // The contribution of the neighbours at these taps, weighted by the elements of row r.
    TapRows<T> gradient(const Segment& segment, int64_t r) const {
        return {grad_affinity_.row(r, gradient_plane(segment.tap)), grad_affinity_.pitch};
    }

    // Whether all pairs of the group already have gradients, to which further ones are added.
    bool has_gradients() const { return has_gradients_; }
    void set_gradients() { has_gradients_ = true; }

    // Propagates the gradients to the guide. For a shared filter, they do not contain its weights yet (those of the
    // mirrored taps); `grad_weight` then receives the filter's gradients.
    void flush_gradients(const Taps<T>& taps, PartialSums<T>* grad_weight) {
        if (!has_gradients_) return;
        const std::vector<Segment> segments = this->segments(group_);
        const int64_t parts = grad_weight ? grad_weight->parts() : layout_.rows();
        in_parallel(parts, layout_.rows() / parts * 2 * group_size_ * guides_ * layout_.pitch(),
                    [&](int64_t first, int64_t last) {
                        Buffer<T> coefficient(layout_.window.kernel * layout_.pitch());
                        for (int64_t part = first; part < last; ++part) {
                            const Range rows = grad_weight ? grad_weight->rows(part, layout_) : Range{part, part + 1};
                            for (const Segment& segment : segments) {
                                for (int64_t r = rows.begin; r < rows.end; ++r) {
                                    if (!layout_.has_row(r, segment.offset.dy)) continue;
                                    if (taps.shared) project(segment, r, grad_weight->part(part));
                                    if (segment.tap == layout_.window.centre()) continue;
                                    flush(segment, r, taps, coefficient.data());
                                }
                            }
                        }
                    });
    }

    // Gradients of the guide start at 0.
    void clear_guide_gradients() {
        in_parallel(layout_.rows(), grad_guide_.stride, [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r) std::fill_n(grad_guide_.row(r), grad_guide_.stride, T(0));
        });
    }

    template <typename scalar_t>
    void store_guide_gradients(scalar_t* grad_guide,  // [images, G, H, W]
                               const ImageRows& part) {
        in_parallel(layout_.rows(), grad_guide_.stride, [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r) store_row(grad_guide, grad_guide_, part, layout_, r);
        });
    }

  private:
    int64_t first_tap(int64_t group) const { return group * group_size_; }
    int64_t last_tap(int64_t group) const { return std::min((group + 1) * group_size_, layout_.window.centre()); }

    // Stored taps, centre, mirrored taps.
    int64_t gradient_plane(int64_t tap) const {
        const int64_t centre = layout_.window.centre(), kept = last_tap(group_) - first_tap(group_);
        if (tap == centre) return kept;
        if (tap < centre) return tap - first_tap(group_);
        return kept + 1 + tap - layout_.window.mirrored(last_tap(group_) - 1);
    }

    // The affinities of row r for a segment of stored taps.
    void compute(int64_t r, const Segment& segment) {
        T* to = affinity_.row(r, segment.tap - first_tap(group_));
        const int64_t pitch = affinity_.pitch;
        const bool inside = layout_.has_row(r, segment.offset.dy);
        if (inside) distances(to, r, segment);
        for (int64_t tap = 0; tap < segment.taps; ++tap, to += pitch) {
            const int64_t dx = segment.offset.dx + tap * layout_.window.dilation;
            const Range run = inside ? elements_inside(dx, layout_) : Range{0, 0};
            std::fill_n(to, run.begin, T(0));
            if (run.begin < run.end) affinities_of(to + run.begin, run.end - run.begin);
            std::fill(to + run.end, to + pitch, T(0));
        }
    }

    void distances(T* out, int64_t r, const Segment& segment) {
        const Tiles<T>& tile = tiles<T>();
        const int64_t step = layout_.window.dilation * layout_.lanes, shift = segment.offset.dx * layout_.lanes;
        const int64_t chunk = std::max<int64_t>(1, kChunkBytes / (guide_.pitch * static_cast<int64_t>(sizeof(T))));
        for (int64_t c = 0; c == 0 || c < guides_; c += chunk) {
            const T *here = guide_.row(r, c), *there = guide_.row(r + segment.offset.dy, c);
            for (int64_t i = 0; i < layout_.row_size(); i += tile.block) {
                const Range taps = taps_inside(segment, layout_, i, i + tile.block);
                DistanceRun<T> run{
                    nullptr, here + i, nullptr, guide_.pitch, step, affinity_.pitch, std::min(chunk, guides_ - c),
                    c > 0};
                for (int64_t tap = taps.begin; tap < taps.end;) {
                    const bool many = tap + kTapsAtOnce <= taps.end;
                    run.out = out + tap * affinity_.pitch + i;
                    run.to = there + i + shift + tap * step;
                    (many ? tile.distances : tile.distance)(run);
                    tap += many ? kTapsAtOnce : 1;
                }
            }
        }
    }

    // sums[tap] of a shared filter += affinity * gradient
    void project(const Segment& segment, int64_t r, T* sums) const {
        const TapRows<const T> affinity = this->affinity(segment, r);
        const TapRows<T> grad = gradient(segment, r);
        for (int64_t tap = 0; tap < segment.taps; ++tap) {
            const int64_t dx = segment.offset.dx + tap * layout_.window.dilation;
            const Range run = elements_inside(dx, layout_);
            sums[layout_.window.mirrored(segment.tap + tap)] +=
                inner_product(affinity.data + tap * affinity.step + run.begin, grad.data + tap * grad.step + run.begin,
                              run.end - run.begin);
        }
    }

    // dK/df_i = -K (f_i - f_j), for the pixels i of row r and their neighbours j. Both pixels have used the affinity.
    void flush(const Segment& segment, int64_t r, const Taps<T>& taps, T* coefficient) {
        const Tiles<T>& tile = tiles<T>();
        const int64_t pitch = affinity_.pitch, lanes = layout_.lanes, step = layout_.window.dilation * lanes;
        const TapRows<const T> affinity = this->affinity(segment, r);
        const TapRows<T> here = gradient(segment, r);
        for (int64_t tap = 0; tap < segment.taps; ++tap) {
            const int64_t dx = segment.offset.dx + tap * layout_.window.dilation;
            const int64_t mirrored = layout_.window.mirrored(segment.tap + tap);
            const Range run = elements_inside(dx, layout_);
            T* to = coefficient + tap * pitch;
            std::fill_n(to, pitch, T(0));
            if (run.begin >= run.end) continue;
            const T* there = grad_affinity_.row(r + segment.offset.dy, gradient_plane(mirrored)) + dx * lanes;
            combine_gradients(to + run.begin, affinity.data + tap * affinity.step + run.begin,
                              here.data + tap * here.step + run.begin, there + run.begin,
                              taps.shared ? taps.shared_backward[segment.tap + tap] : T(1),
                              taps.shared ? taps.shared_backward[mirrored] : T(1), run.end - run.begin);
        }
        for (int64_t c = 0; c < guides_;) {
            const bool many = c + kGuidesAtOnce <= guides_;
            const T* there = guide_.row(r + segment.offset.dy, c) + segment.offset.dx * lanes;
            for (int64_t i = 0; i < layout_.row_size(); i += tile.block) {
                const Range inside = taps_inside(segment, layout_, i, i + tile.block);
                if (inside.begin >= inside.end) continue;
                (many ? tile.differences : tile.difference)(
                    {grad_guide_.row(r, c) + i, guide_.row(r, c) + i, there + i + inside.begin * step, guide_.pitch,
                     step, coefficient + inside.begin * pitch + i, pitch, inside.end - inside.begin});
            }
            c += many ? kGuidesAtOnce : 1;
        }
    }

    static constexpr int64_t kChunkBytes = 16 << 10;  // bytes of guide channels: two rows stay in the first-level cache

    Layout layout_;
    int64_t guides_, group_size_, groups_;
    int64_t group_ = -1;  // the group whose affinities are in affinity_
    bool has_gradients_ = false;
    Planes<T> guide_, grad_guide_;
    Planes<T> affinity_;       // of the stored taps of a group
    Planes<T> grad_affinity_;  // of all taps of the group
    Planes<T> own_;            // affinity of a pixel to itself: 1, or NaN if its guide is not finite
};

}  // namespace
}  // namespace cxrfast

// The pixel-adaptive filter of a wave of images on the CPU, and its gradients.
#pragma once

#include "cpu/pac_crf/affinity.h"

namespace cxrfast {
namespace {

// out[:, n] += matrix * in[:, n], for one row of planes.
template <typename T>
void mix_row(T* out, const T* in, const TiledMatrices<T>& matrix, const T* ones, int64_t pitch, int64_t n) {
    const Tiles<T>& tile = tiles<T>();
    matrix.for_each_tile([&](int64_t first, int64_t width) {
        for (int64_t i = 0; i < n; i += tile.block) {
            tile.filter[width - 1](
                {out + first * pitch + i, in + i, pitch, 0, ones, 0, matrix.at(0, first, width), matrix.rows(), 1});
        }
    });
}

template <typename T>
class PixelAdaptiveFilter {
  public:
    PixelAdaptiveFilter(const Layout& layout, int64_t guide_channels, bool all_affinities, bool with_gradients)
        : layout_(layout), affinities_(layout, guide_channels, all_affinities, with_gradients) {}

    template <typename scalar_t>
    void begin_wave(const scalar_t* guide,  // [images, G, H, W]
                    const ImageRows& part,
                    const Layout& layout) {
        layout_ = layout;
        affinities_.begin_wave(guide, part, layout);
    }

    // out += filter(in). Calls finish(r) for every row when it is complete.
    template <typename F>
    void apply(const Taps<T>& taps, const Planes<T>& in, const Planes<T>& out, const F& finish) {
        for (int64_t group = 0; group < affinities_.groups(); ++group) {
            affinities_.prepare(group);
            const std::vector<Segment> segments = affinities_.segments(group);
            in_parallel(layout_.rows(), row_work(taps, segments), [&](int64_t first, int64_t last) {
                for (int64_t r = first; r < last; ++r) {
                    for (const Segment& segment : segments) {
                        if (layout_.has_row(r, segment.offset.dy)) filter_row(taps, in, out, segment, r);
                    }
                    if (group + 1 == affinities_.groups()) finish(r);
                }
            });
        }
    }

    // Given the gradient of filter(in): adds the gradient of `in` to grad_in and the gradient of the weights to
    // `grad_taps`. The gradients of the affinities are stored until end_gradients().
    void apply_backward(const Taps<T>& taps,
                        const Planes<T>& in,
                        const Planes<T>& grad,
                        const Planes<T>& grad_in,
                        PartialSums<T>& grad_taps) {
        for (int64_t group = 0; group < affinities_.groups(); ++group) {
            affinities_.prepare(group);
            const std::vector<Segment> segments = affinities_.segments(group);
            if (!taps.shared) add_weight_gradients(taps, in, grad, segments, grad_taps);
            in_parallel(layout_.rows(), row_work(taps, segments), [&](int64_t first, int64_t last) {
                for (int64_t r = first; r < last; ++r) {
                    for (const Segment& segment : segments) {
                        if (layout_.has_row(r, segment.offset.dy)) gradient_row(taps, in, grad, grad_in, segment, r);
                    }
                }
            });
            if (taps.in > 0) affinities_.set_gradients();
            if (affinities_.groups() > 1) affinities_.flush_gradients(taps, taps.shared ? &grad_taps : nullptr);
        }
    }

    // To be called before the first apply_backward() of a wave.
    void begin_gradients() { affinities_.clear_guide_gradients(); }

    template <typename scalar_t>
    void end_gradients(const Taps<T>& taps,
                       PartialSums<T>& grad_taps,
                       scalar_t* grad_guide,  // [images, G, H, W]
                       const ImageRows& part) {
        if (affinities_.groups() == 1) {
            affinities_.flush_gradients(taps, taps.shared ? &grad_taps : nullptr);
        }
        affinities_.store_guide_gradients(grad_guide, part);
    }

  private:
    int64_t row_work(const Taps<T>& taps, const std::vector<Segment>& segments) const {
        int64_t count = 0;
        for (const Segment& segment : segments) count += segment.taps;
        return count * taps.in * (taps.shared ? 1 : taps.out) * layout_.row_size();
    }

    int64_t step() const { return layout_.window.dilation * layout_.lanes; }

    void filter_row(const Taps<T>& taps, const Planes<T>& in, const Planes<T>& out, const Segment& segment, int64_t r) {
        const Tiles<T>& tile = tiles<T>();
        const TapRows<const T> affinity = affinities_.affinity(segment, r);
        const T* source = in.row(r + segment.offset.dy) + segment.offset.dx * layout_.lanes;
        for_each_output(taps.shared, taps.forward, taps.out, [&](int64_t channel, int64_t width) {
            for (int64_t i = 0; i < layout_.row_size(); i += tile.block) {
                const Range inside = taps_inside(segment, layout_, i, i + tile.block);
                if (inside.begin >= inside.end) continue;
                const int64_t tap = segment.tap + inside.begin;
                FilterRun<T> run{out.row(r, channel) + i,
                                 source + i + inside.begin * step(),
                                 in.pitch,
                                 step(),
                                 affinity.data + i + inside.begin * affinity.step,
                                 affinity.step,
                                 nullptr,
                                 taps.in,
                                 inside.end - inside.begin};
                if (taps.shared) {
                    run.in += channel * in.pitch;
                    run.weight = taps.shared_forward.data() + tap;
                    tile.shared_filter[width - 1](run);
                } else {
                    run.weight = taps.forward.at(tap, channel, width);
                    tile.filter[width - 1](run);
                }
            }
        });
    }

    void gradient_row(const Taps<T>& taps,
                      const Planes<T>& in,
                      const Planes<T>& grad,
                      const Planes<T>& grad_in,
                      const Segment& segment,
                      int64_t r) {
        const Tiles<T>& tile = tiles<T>();
        const TapRows<const T> affinity = affinities_.affinity(segment, r);
        const TapRows<T> grad_affinity = affinities_.gradient(segment, r);
        const T* source = grad.row(r + segment.offset.dy) + segment.offset.dx * layout_.lanes;
        for_each_output(taps.shared, taps.backward, taps.in, [&](int64_t channel, int64_t width) {
            for (int64_t i = 0; i < layout_.row_size(); i += tile.block) {
                const Range inside = taps_inside(segment, layout_, i, i + tile.block);
                if (inside.begin >= inside.end) continue;
                const int64_t tap = segment.tap + inside.begin;
                GradientRun<T> g{{grad_in.row(r, channel) + i, source + i + inside.begin * step(), grad.pitch, step(),
                                  affinity.data + i + inside.begin * affinity.step, affinity.step, nullptr, taps.out,
                                  inside.end - inside.begin},
                                 in.row(r, channel) + i,
                                 grad_affinity.data + i + inside.begin * grad_affinity.step,
                                 grad_affinity.step,
                                 affinities_.has_gradients() || channel > 0};
                if (taps.shared) {
                    g.run.in += channel * grad.pitch;
                    g.run.weight = taps.shared_backward.data() + tap;
                    tile.shared_gradient[width - 1](g);
                } else {
                    g.run.weight = taps.backward.at(tap, channel, width);
                    tile.gradient[width - 1](g);
                }
            }
        });
    }

    template <typename F>
    void for_each_output(bool shared, const TiledMatrices<T>& matrices, int64_t channels, const F& visit) const {
        if (shared) {
            for_each_tile(channels, tiles<T>().most_channels, visit);
        } else {
            matrices.for_each_tile(visit);
        }
    }

    // One thread processes some of the rows with one segment.
    void add_weight_gradients(const Taps<T>& taps,
                              const Planes<T>& in,
                              const Planes<T>& grad,
                              const std::vector<Segment>& segments,
                              PartialSums<T>& grad_taps) {
        const int64_t count = segments.size();
        const int64_t work =
            row_work(taps, segments) * layout_.rows() / std::max<int64_t>(1, count * grad_taps.parts());
        in_parallel(count * grad_taps.parts(), work, [&](int64_t first, int64_t last) {
            Buffer<T> sums(layout_.window.kernel * input_pairs(taps) * taps.out * 2 * tiles<T>().vector);
            for (int64_t i = first; i < last; ++i) {
                const Segment& segment = segments[i % count];
                T* to = grad_taps.part(i / count) + segment.tap * taps.in * taps.out;
                for (int64_t c = 0; c < taps.in; c += 2 * input_pairs(taps)) {
                    const int64_t inputs = std::min(taps.in - c, 2 * input_pairs(taps));
                    add_weight_gradients(in, grad, segment, grad_taps.rows(i / count, layout_), sums.data(), taps, c,
                                         inputs);
                    add_up(to, sums.data(), segment.taps, taps, c, inputs);
                }
            }
        });
    }

    // Number of pairs of input channels that are summed together: their sums stay in the second-level cache.
    int64_t input_pairs(const Taps<T>& taps) const {
        const int64_t bytes = layout_.window.kernel * taps.out * 2 * tiles<T>().vector * sizeof(T);
        return std::clamp<int64_t>(kSumBytes / std::max<int64_t>(1, bytes), 1, (taps.in + 1) / 2);
    }

    // sums [taps of the segment, pairs of inputs, O, 2] vectors: over some rows, for input channels from c on
    void add_weight_gradients(const Planes<T>& in,
                              const Planes<T>& grad,
                              const Segment& segment,
                              Range rows,
                              T* sums,
                              const Taps<T>& taps,
                              int64_t c,
                              int64_t inputs) {
        const Tiles<T>& tile = tiles<T>();
        const int64_t pairs = (inputs + 1) / 2, lanes = layout_.lanes, vector = tile.vector;
        const int64_t at_once = std::max<int64_t>(1, kRowBytes / ((in.stride + grad.stride) * sizeof(T)));
        std::fill_n(sums, segment.taps * pairs * taps.out * 2 * vector, T(0));
        for (int64_t r = rows.begin; r < rows.end;) {
            if (!layout_.has_row(r, segment.offset.dy)) {
                ++r;
                continue;
            }
            int64_t next = r + 1;
            while (next < std::min(rows.end, r + at_once) && next % layout_.window.height != 0 &&
                   layout_.has_row(next, segment.offset.dy)) {
                ++next;
            }
            const TapRows<const T> affinity = affinities_.affinity(segment, r);
            for (int64_t tap = 0; tap < segment.taps; ++tap) {
                const int64_t dx = segment.offset.dx + tap * layout_.window.dilation;
                Range run = elements_inside(dx, layout_);
                if (run.begin >= run.end) continue;
                run.begin -= run.begin % vector;
                WeightRun<T> w{nullptr,
                               in.row(r + segment.offset.dy, c) + run.begin + dx * lanes,
                               affinity.data + tap * affinity.step + run.begin,
                               grad.pitch,
                               in.pitch,
                               grad.stride,
                               in.stride,
                               affinities_.row_step(segment),
                               next - r,
                               run.end - run.begin,
                               nullptr};
                for (int64_t pair = 0; pair < pairs; ++pair, w.in += 2 * in.pitch) {
                    w.sums = sums + (tap * pairs + pair) * taps.out * 2 * vector;
                    for_each_tile(taps.out, tile.most_channels, [&](int64_t channel, int64_t width) {
                        w.grad = grad.row(r, channel) + run.begin;
                        tile.weight[width - 1](w);
                        w.sums += width * 2 * vector;
                    });
                }
            }
            r = next;
        }
    }

    // Adds the elements of such sums to `to` [taps, C, O].
    void add_up(T* to, const T* sums, int64_t segment_taps, const Taps<T>& taps, int64_t c, int64_t inputs) {
        const int64_t vector = tiles<T>().vector;
        for (int64_t tap = 0; tap < segment_taps; ++tap) {
            for (int64_t input = 0; input < inputs; input += 2) {
                T* first = to + (tap * taps.in + c + input) * taps.out;
                add_pair_sums(first, input + 1 < inputs ? first + taps.out : nullptr, sums, taps.out, vector);
                sums += taps.out * 2 * vector;
            }
        }
    }

    static constexpr int64_t kSumBytes = 512 << 10;
    static constexpr int64_t kRowBytes = 80 << 10;  // bytes of rows that stay in the first-level cache

    Layout layout_;
    Affinities<T> affinities_;
};

}  // namespace
}  // namespace cxrfast

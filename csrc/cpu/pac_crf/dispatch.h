// The tiles of pac_conv2d and pac_crf, compiled for every vector unit; the best supported one is selected at run time.
#pragma once

#include <algorithm>
#include <array>
#include <utility>

#include "cpu/common/cpu_level.h"
#include "cpu/pac_crf/tiles.h"

namespace cxrfast {
namespace {

constexpr int kMostChannels = 14;  // of a tile: 28 sums, 2 neighbours and a weight take 31 of AVX-512's 32 registers
constexpr int kTapsAtOnce = 4;     // of a distance
constexpr int kGuidesAtOnce = 4;   // of a difference

template <typename T>
struct Tiles {
    template <typename Run>
    using ByChannels = std::array<void (*)(const Run&), kMostChannels>;  // [OUT - 1]

    int64_t vector, block;  // elements
    int64_t most_channels;
    ByChannels<FilterRun<T>> filter, shared_filter;
    ByChannels<GradientRun<T>> gradient, shared_gradient;
    ByChannels<WeightRun<T>> weight;
    void (*distances)(const DistanceRun<T>&);
    void (*distance)(const DistanceRun<T>&);
    void (*differences)(const DifferenceRun<T>&);
    void (*difference)(const DifferenceRun<T>&);
};

// clang-format off
#define CXRFAST_TILE(TARGET, NAME, RUN)                              \
    template <typename T, int COUNT>                                 \
    TARGET static void NAME(const RUN<T>& run) {                     \
        NAME##_tile<T, kBytes, COUNT>(run);                          \
    }
#define CXRFAST_TILES(LEVEL, TARGET, BYTES, MOST)                    \
    struct LEVEL {                                                   \
        static constexpr int kBytes = BYTES, kMost = MOST;           \
        CXRFAST_TILE(TARGET, filter, FilterRun)                      \
        CXRFAST_TILE(TARGET, shared_filter, FilterRun)               \
        CXRFAST_TILE(TARGET, gradient, GradientRun)                  \
        CXRFAST_TILE(TARGET, shared_gradient, GradientRun)           \
        CXRFAST_TILE(TARGET, weight, WeightRun)                      \
        CXRFAST_TILE(TARGET, distance, DistanceRun)                  \
        CXRFAST_TILE(TARGET, difference, DifferenceRun)              \
    };
CXRFAST_TILES(PortableTiles, , 16, 6)  // 12 sums, two neighbours, a weight and a product in 16 registers
CXRFAST_TILES(Avx2Tiles, CXRFAST_AVX2, 32, 6)
CXRFAST_TILES(Avx512Tiles, CXRFAST_AVX512, 64, kMostChannels)
#undef CXRFAST_TILE
#undef CXRFAST_TILES
// clang-format on

template <typename T, typename Level, int... I>
Tiles<T> tiles_of(std::integer_sequence<int, I...>) {
    constexpr int64_t vector = Level::kBytes / sizeof(T);
    return {vector,
            2 * vector,
            Level::kMost,
            {&Level::template filter<T, I + 1>...},
            {&Level::template shared_filter<T, I + 1>...},
            {&Level::template gradient<T, I + 1>...},
            {&Level::template shared_gradient<T, I + 1>...},
            {&Level::template weight<T, I + 1>...},
            &Level::template distance<T, kTapsAtOnce>,
            &Level::template distance<T, 1>,
            &Level::template difference<T, kGuidesAtOnce>,
            &Level::template difference<T, 1>};
}

template <typename T, typename Level>
Tiles<T> tiles_of() {
    return tiles_of<T, Level>(std::make_integer_sequence<int, Level::kMost>());
}

template <typename T>
const Tiles<T>& tiles() {
    static const Tiles<T> chosen = cpu_level() == CpuLevel::kAvx512 ? tiles_of<T, Avx512Tiles>()
                                   : cpu_level() == CpuLevel::kAvx2 ? tiles_of<T, Avx2Tiles>()
                                                                    : tiles_of<T, PortableTiles>();
    return chosen;
}

// Calls visit(first channel, channels) for tiles of nearly equal width.
template <typename F>
void for_each_tile(int64_t channels, int64_t most, const F& visit) {
    const int64_t count = (channels + most - 1) / most;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t first = channels * i / count;
        visit(first, channels * (i + 1) / count - first);
    }
}

}  // namespace
}  // namespace cxrfast

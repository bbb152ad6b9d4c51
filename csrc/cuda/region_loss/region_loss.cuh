// region_sums and box_log_likelihood on the device: the forward reads the logits once, the backward reads and writes
// them once. Several blocks read parts of a long row; a second kernel adds their totals in a fixed order. No thread
// adds more than 64 elements before its sum enters a tree reduction, so that float32 is sufficient for any row.
#pragma once

#include "cuda/common/rows.cuh"
#include "math/region_loss.h"
#include "math/softplus_sum.h"

namespace cxrfast {

constexpr int64_t kWarpRow = 1024;      // rows up to this length are read by a warp
constexpr int64_t kPartLength = 16384;  // of a long row

template <typename scalar_t>
using RegionChunk = Chunk<scalar_t, 2>;

template <typename scalar_t>
struct RegionRows {
    const scalar_t* x;    // [rows, length]
    const uint8_t* mask;  // [images or 1, classes or 1, length]
    int64_t rows, classes, length, parts;
    int64_t mask_image_stride, mask_class_stride;
    bool packed;

    __device__ Row<scalar_t> row(int64_t index) const {
        const int64_t image = quotient(index, classes);
        const int64_t mask_row = image * mask_image_stride + (index - image * classes) * mask_class_stride;
        return {x + index * length, mask + mask_row, 1, packed};
    }
};

template <typename acc_t>
struct RegionSums {
    struct Total {
        acc_t inside, outside;
        int64_t count;
    };

    acc_t *inside, *outside, *inside_count, *outside_count;  // [rows]

    template <typename Chunk>
    __device__ void add(Total& total, const Chunk& chunk) const {
#pragma unroll
        for (int e = 0; e < Chunk::kElements; ++e) {
            const acc_t z = sigmoid(chunk.x[e]);
            const bool exists = chunk.inside >> e & 1u, marked = chunk.marked >> e & 1u;
            total.inside += marked ? z : acc_t(0);
            total.outside += exists && !marked ? z : acc_t(0);
        }
        total.count += __popc(chunk.marked);
    }

    static __device__ Total combine(const Total& a, const Total& b) {
        return {a.inside + b.inside, a.outside + b.outside, a.count + b.count};
    }

    __device__ void write(int64_t row, int64_t length, const Total& total) const {
        inside[row] = total.inside;
        outside[row] = total.outside;
        inside_count[row] = static_cast<acc_t>(total.count);
        outside_count[row] = static_cast<acc_t>(length - total.count);
    }
};

template <typename acc_t>
struct RegionSumsGradient {
    const acc_t *inside, *outside;  // [rows]
    acc_t slope_inside, slope_outside;

    __device__ void choose(int64_t row) {
        slope_inside = inside[row];
        slope_outside = outside[row];
    }

    __device__ acc_t operator()(acc_t x, bool in_region) const {
        return (in_region ? slope_inside : slope_outside) * sigmoid_gradient(x);
    }
};

template <typename acc_t>
struct BoxLogLikelihood {
    struct Total {
        acc_t sum;
    };

    acc_t* out;  // [rows]
    Floor<acc_t> floor;

    template <typename Chunk>
    __device__ void add(Total& total, const Chunk& chunk) const {
        if (floor.is_zero()) {
            SoftplusSum<acc_t> energy;  // of Σ −log σ(±x)
#pragma unroll
            for (int e = 0; e < Chunk::kElements; ++e) {
                if (chunk.inside >> e & 1u) energy.add(-signed_by_box(chunk.x[e], (chunk.marked >> e & 1u) != 0));
            }
            total.sum -= energy.value();
            return;
        }
#pragma unroll
        for (int e = 0; e < Chunk::kElements; ++e) {
            const acc_t term = patch_log_likelihood(chunk.x[e], (chunk.marked >> e & 1u) != 0, floor);
            total.sum += chunk.inside >> e & 1u ? term : acc_t(0);
        }
    }

    static __device__ Total combine(const Total& a, const Total& b) { return {a.sum + b.sum}; }

    __device__ void write(int64_t row, int64_t, const Total& total) const { out[row] = total.sum; }
};

template <typename acc_t>
struct BoxLogLikelihoodGradient {
    const acc_t* grad;  // [rows]
    Floor<acc_t> floor;
    acc_t scale;

    __device__ void choose(int64_t row) { scale = grad[row]; }

    __device__ acc_t operator()(acc_t x, bool in_box) const {
        return scale * patch_log_likelihood_gradient(x, in_box, floor);
    }
};

// Calls body(row, part) for every part of every row, with one team each.
template <typename Body>
__device__ void for_each_part(int64_t rows, int64_t parts, const Team& team, const Body& body) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * team.count;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * team.count + team.index; i < rows * parts; i += step) {
        const int64_t row = parts == 1 ? i : quotient(i, parts);
        body(row, i - row * parts);
    }
}

// Calls body(chunk, first element) for every chunk of a part of a row.
template <typename scalar_t, typename Body>
__device__ void for_each_chunk(
    const RegionRows<scalar_t>& rows, int64_t row, int64_t part, const Team& team, const Body& body) {
    const Row<scalar_t> from = rows.row(row);
    const int64_t end = rows.parts == 1 ? rows.length : min(rows.length, (part + 1) * kPartLength);
    RegionChunk<scalar_t> chunk;
    for (int64_t first = part * kPartLength; first < end; first += RegionChunk<scalar_t>::kElements * team.size) {
        chunk.load(from, first, end, team);
        body(chunk, from, first);
    }
}

template <typename Loss, typename scalar_t>
__global__ void __launch_bounds__(kRowThreads)
    reduce_region(RegionRows<scalar_t> rows,
                  Loss loss,
                  typename Loss::Total* partial,  // [rows, parts], if there are several
                  int team_size) {
    using Total = typename Loss::Total;
    __shared__ Total shared[kRowThreads / kWarp];
    const Team team = this_team(team_size);
    for_each_part(rows.rows, rows.parts, team, [&](int64_t row, int64_t part) {
        Total total{};
        for_each_chunk(rows, row, part, team, [&](const RegionChunk<scalar_t>& chunk, const Row<scalar_t>&, int64_t) {
            loss.add(total, chunk);
        });
        total = team_reduce(total, team, shared, Loss::combine);
        if (team.rank != 0) return;
        if (rows.parts == 1) {
            loss.write(row, rows.length, total);
        } else {
            partial[row * rows.parts + part] = total;
        }
    });
}

template <typename Loss>
__global__ void __launch_bounds__(kRowThreads) combine_parts(const typename Loss::Total* partial,  // [rows, parts]
                                                             Loss loss,
                                                             int64_t rows,
                                                             int64_t parts,
                                                             int64_t length) {
    using Total = typename Loss::Total;
    const Team team = this_team(kWarp);
    for_each_part(rows, 1, team, [&](int64_t row, int64_t) {
        Total total{};
        for (int64_t part = team.rank; part < parts; part += team.size) {
            total = Loss::combine(total, partial[row * parts + part]);
        }
        total = team_reduce(total, team, static_cast<Total*>(nullptr), Loss::combine);
        if (team.rank == 0) loss.write(row, length, total);
    });
}

template <typename Gradient, typename scalar_t>
__global__ void __launch_bounds__(kRowThreads) region_backward(RegionRows<scalar_t> rows,
                                                               Gradient gradient,
                                                               scalar_t* grad_x /* [rows, length] */,
                                                               int team_size) {
    const Team team = this_team(team_size);
    for_each_part(rows.rows, rows.parts, team, [&](int64_t row, int64_t part) {
        gradient.choose(row);
        for_each_chunk(rows, row, part, team,
                       [&](const RegionChunk<scalar_t>& chunk, const Row<scalar_t>& from, int64_t first) {
                           chunk.store(grad_x + row * rows.length, from, first, team,
                                       [&](int e) { return gradient(chunk.x[e], (chunk.marked >> e & 1u) != 0); });
                       });
    });
}

}  // namespace cxrfast

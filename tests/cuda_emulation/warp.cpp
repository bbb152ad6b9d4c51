// What kernels call: barriers and warp functions.
#include "machine.h"

namespace emulation {

unsigned int lane() {
    return block.current->id % warpSize;
}

void fail(const char* message, const char* file, int line) {
    give_up(std::string(message) + " (" + file + ":" + std::to_string(line) + ")");
}

int barrier(Barrier kind, const char* name, bool predicate, const char* file, int line) {
    Thread& self = *block.current;
    const unsigned int id = self.id;
    self.name = name, self.file = file, self.line = line;
    if (block.arrived != 0) {  // any thread that waits will do
        unsigned int warp = 0;
        while (block.lanes[warp].at_barrier == 0) ++warp;
        const Thread& other = block.all[warp * warpSize + __builtin_ctz(block.lanes[warp].at_barrier)];
        if (other.line != line) give_up("arrives at another barrier: " + waiting(self) + ", " + waiting(other));
    }
    block.lanes[id / warpSize].at_barrier |= 1u << id % warpSize;
    block.count += predicate;
    const int threads = static_cast<int>(block.live);
    if (++block.arrived == block.live) release_barrier();
    wait();
    switch (kind) {
        case Barrier::plain:
            return 0;
        case Barrier::count:
            return block.result;
        case Barrier::all:
            return block.result == threads;
        case Barrier::any:
            return block.result != 0;
    }
    return 0;
}

namespace {

uint64_t combine(Warp kind, uint64_t a, uint64_t b) {
    const auto ua = static_cast<uint32_t>(a), ub = static_cast<uint32_t>(b);
    const auto sa = static_cast<int32_t>(ua), sb = static_cast<int32_t>(ub);
    switch (kind) {
        case Warp::add:
            return ua + ub;
        case Warp::min:
            return ua < ub ? ua : ub;
        case Warp::max:
            return ua > ub ? ua : ub;
        case Warp::min_signed:
            return static_cast<uint32_t>(sa < sb ? sa : sb);
        case Warp::max_signed:
            return static_cast<uint32_t>(sa > sb ? sa : sb);
        case Warp::bit_and:
            return ua & ub;
        case Warp::bit_or:
            return ua | ub;
        case Warp::bit_xor:
            return ua ^ ub;
        default:
            return 0;
    }
}

// All lanes of the mask have arrived: their results.
void complete_warp(Thread* threads, unsigned int mask, Warp kind) {
    uint64_t common = 0;
    bool first = true;
    for (unsigned int i = 0; i < warpSize; ++i) {
        if ((mask >> i & 1u) == 0) continue;
        const uint64_t value = threads[i].value;
        common = kind == Warp::ballot ? common | value << i : first ? value : combine(kind, common, value);
        first = false;
    }
    for (unsigned int i = 0; i < warpSize; ++i) {
        if ((mask >> i & 1u) == 0) continue;
        Thread& t = threads[i];
        if (kind == Warp::shuffle) {
            t.result = threads[t.source == kOwnValue ? i : t.source].value;
        } else if (kind == Warp::match) {
            t.result = 0;
            for (unsigned int j = 0; j < warpSize; ++j) {
                if (mask >> j & 1u && threads[j].value == t.value) t.result |= 1u << j;
            }
        } else {
            t.result = common;
        }
    }
}

void check_mask(const Thread& t, unsigned int lane, unsigned int exited) {
    const auto refuse = [&](const std::string& why) {
        give_up(std::string(t.name) + ": " + why + " (" + t.file + ":" + std::to_string(t.line) + ")");
    };
    if ((t.mask >> lane & 1u) == 0) refuse("the mask lacks the calling lane");
    if (t.mask & exited) {
        refuse("the mask names lane " + std::to_string(__builtin_ctz(t.mask & exited)) +
               ", which has exited or does not exist");
    }
    if (t.kind == Warp::shuffle && t.source != kOwnValue && (t.mask >> t.source & 1u) == 0) {
        refuse("reads lane " + std::to_string(t.source) + ", which the mask lacks");
    }
}

}  // namespace

uint64_t warp(Warp kind, const char* name, unsigned int mask, uint64_t value, int source, const char* file, int line) {
    Thread& self = *block.current;
    const unsigned int id = self.id, lane = id % warpSize, warp = id / warpSize;
    Thread* threads = &block.all[id - lane];
    Lanes& lanes = block.lanes[warp];
    self.kind = kind, self.name = name, self.file = file, self.line = line;
    self.mask = mask, self.value = value, self.source = source;
    check_mask(self, lane, lanes.exited);
    lanes.at_warp |= 1u << lane;
    if ((lanes.at_warp & mask) == mask) {
        for (unsigned int i = 0; i < warpSize; ++i) {
            const Thread& t = threads[i];
            if (mask >> i & 1u && (t.kind != kind || t.mask != mask || t.line != line)) {
                give_up("meets another warp function: " + waiting(self) + ", " + waiting(t));
            }
        }
        complete_warp(threads, mask, kind);
        lanes.at_warp &= ~mask;
        ++lanes.epoch;
        set_ready(warp, mask);
    }
    wait();
    return self.result;
}

}  // namespace emulation

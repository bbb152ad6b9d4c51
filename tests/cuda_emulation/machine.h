// What the parts of the emulation share: the block that runs, its threads, and the launch it belongs to.
#pragma once

#include <string>

#include "cuda_runtime.h"
#include "fibre.h"

namespace emulation {

constexpr unsigned int kMostThreads = 1024, kWarps = kMostThreads / warpSize;
constexpr size_t kSharedAlways = 48 << 10, kSharedOptIn = 99 << 10;

struct Thread {
    uint3 index;
    unsigned int id;         // x fastest
    Fibre* fibre = nullptr;  // where it runs, once started
    unsigned int last_atomic = 0;
    // What it waits for.
    Warp kind{};
    const char *name = "", *file = "";
    int line = 0, source = 0;
    unsigned int mask = 0;
    uint64_t value = 0, result = 0;
};

struct Lanes {  // of one warp, one bit each
    unsigned int ready = 0, exited = 0, at_barrier = 0, at_warp = 0;
    unsigned int epoch = 0;  // how often its lanes have met
};

struct Block {
    unsigned int order;  // how many blocks have run before it
    unsigned int threads, live, arrived, ready_warps;
    unsigned int epoch;    // how many barriers it has passed
    unsigned int atomics;  // how many it has executed
    int count, result;     // of threads at the barrier whose predicate holds; of the last barrier
    Lanes lanes[kWarps];
    Thread all[kMostThreads];
    Thread* current;
};

struct Launch {
    const void* kernel;
    void (*call)(void*);
    void* context;
    size_t shared_bytes;
};

struct Span {
    const unsigned char* data = nullptr;
    size_t bytes = 0;

    bool contains(const void* address) const {
        return static_cast<size_t>(static_cast<const unsigned char*>(address) - data) < bytes;
    }
};

extern Launch launch;
extern Block block;
extern uint64_t seed;
extern std::string error;  // of the last launch

// scheduler.cpp
void set_ready(unsigned int warp, unsigned int lanes);
void release_barrier();
void wait();  // leaves the current thread waiting; returns when it has been made ready and picked
void run_blocks();
std::string waiting(const Thread& thread);
void record(const std::string& message);
[[noreturn]] void give_up(const std::string& message);  // the fibres of the block are dropped where they stand

// races.cpp: whether two threads touch the same memory with nothing between them that orders them
void races_start(unsigned int blocks, const Span& static_shared, const Span& dynamic_shared);
void races_block_ends();
void races_stop();

}  // namespace emulation

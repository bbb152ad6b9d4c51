// Fibres: stacks that change places on request.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation {

struct Fibre {
    unsigned char* stack = nullptr;  // of the host: nullptr until its first fibre has learnt it
    size_t bytes = 0;
    size_t shift = 0;
#if defined(__x86_64__)
    void* context = nullptr;
#else
    ucontext_t context;
#endif
    void (*body)() = nullptr;
    void* sanitizer = nullptr;
};

#if defined(__x86_64__)
// Saves what a called function must preserve, and continues where `to` was left. swapcontext does as well, with a
// system call.
extern "C" void cxrfast_emulation_switch(void** from, void* to);
asm(R"(
.text
.hidden cxrfast_emulation_switch
.type cxrfast_emulation_switch, @function
cxrfast_emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cxrfast_emulation_switch, . - cxrfast_emulation_switch
)");
#endif

inline Fibre *started = nullptr, *origin = nullptr;  // told to a fibre that enters its body

inline void enter() {
    Fibre& self = *started;
#if defined(__SANITIZE_ADDRESS__)
    const void* stack = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
    if (origin->stack == nullptr) {
        origin->stack = static_cast<unsigned char*>(const_cast<void*>(stack));
        origin->bytes = bytes;
    }
#endif
    self.body();
}

inline Fibre* make_fibre() {
#if defined(__SANITIZE_ADDRESS__)
    constexpr size_t kBytes = 256 << 10;
#else
    constexpr size_t kBytes = 64 << 10;
#endif
    static size_t made = 0;
    const size_t guard = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void* memory = mmap(nullptr, guard + kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE) != 0) throw std::bad_alloc();
    auto* fibre = new Fibre;
    fibre->stack = static_cast<unsigned char*>(memory) + guard;
    fibre->bytes = kBytes;
    fibre->shift = made++ * 192 % 4096;  // or the stacks of a block would all share the same few lines of the cache
    return fibre;
}

inline void free_fibre(Fibre* fibre) {
    const size_t guard = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    munmap(fibre->stack - guard, fibre->bytes + guard);
    delete fibre;
}

// The next switch to the fibre calls the body, which never returns.
inline void start(Fibre& fibre, void (*body)()) {
    fibre.body = body;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(fibre.stack, fibre.bytes);
#endif
#if defined(__x86_64__)
    auto* top = reinterpret_cast<void**>(fibre.stack + fibre.bytes - fibre.shift);
    top[-1] = nullptr;  // enter's return address
    top[-2] = reinterpret_cast<void*>(&enter);
    fibre.context = top - 8;  // below lie the six registers
#else
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack;
    fibre.context.uc_stack.ss_size = fibre.bytes - fibre.shift;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, &enter, 0);
#endif
}

inline void switch_to(Fibre& from, Fibre& to, [[maybe_unused]] bool for_good = false) {
    started = &to;
    origin = &from;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &from.sanitizer, to.stack, to.bytes);
#endif
#if defined(__x86_64__)
    cxrfast_emulation_switch(&from.context, to.context);
#else
    swapcontext(&from.context, &to.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from.sanitizer, nullptr, nullptr);
#endif
}

// Never to be continued, unless it is started again.
[[noreturn]] inline void leave_to(Fibre& from, Fibre& to) {
    switch_to(from, to, true);
    __builtin_unreachable();
}

}  // namespace emulation

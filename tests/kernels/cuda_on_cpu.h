// CUDA C on the CPU: the words of CUDA for g++, and a launch that runs the threads of a block as fibres.
//
// A fibre runs until a barrier (or a shuffle, which is a barrier of its warp). Blocks run one after the other. `order` says in
// which order threads and blocks are served: 0 as they are numbered, 1 backwards, n > 1 shuffled by n; a kernel without races gives
// the same bits in every order, and a missing barrier shows. Where n is odd, asynchronous copies arrive when they are waited for, and
// leave NaN behind until then; else at once. Where n / 2 is odd, a warp runs until it waits for others before the next is served. Shared memory is NaN before each block, with a guarded end.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(cuda_on_cpu::shared_memory())

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
static dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace cuda_on_cpu {

enum { OK, DEADLOCK, SHARED_OVERFLOW, BAD_BLOCK, MISALIGNED };
const unsigned char GUARD = 0xA5;
const size_t GUARDED = 4096, STACK = 1 << 17;

struct Barrier {
    unsigned expected = 0, arrived = 0, generation = 0;
};

struct Warp {
    Barrier barrier;
    unsigned short rows[2][32][8];
    uint64_t slot[2][32];
    unsigned registers[2][32][6];
};

struct Copy {  // that is on its way
    void* to;
    unsigned char bytes[16];
};

struct Fibre {
    jmp_buf at;
    ucontext_t first;
    std::unique_ptr<char[]> stack;
    bool started = false, done = true;
    unsigned exchanges = 0;
    std::vector<Copy> copies;
};

static std::vector<std::unique_ptr<Fibre>> fibres;
static std::vector<Warp> warps;
static Barrier block_barrier;
static jmp_buf scheduler;
static unsigned current;
static bool moved;  // whether anything happened in this round
static void (*body)(void*);
static void* body_of;
static std::vector<unsigned char> shared;
static bool late;  // whether asynchronous copies arrive when they are waited for, or at once
static bool far;   // whether a warp runs until it waits for others before the next is served
static bool misaligned;

static unsigned char* shared_memory() {  // aligned to 128 bytes
    return shared.data() + (128 - reinterpret_cast<uintptr_t>(shared.data()) % 128) % 128;
}

static void aligned(const void* p) { misaligned |= reinterpret_cast<uintptr_t>(p) % 16 != 0; }


static void yield() {
    if (!_setjmp(fibres[current]->at)) _longjmp(scheduler, 1);
}

static void live() {
    for (;;) {
        body(body_of);
        fibres[current]->done = moved = true;
        yield();
    }
}

static void wait(Barrier& b) {
    unsigned g = b.generation;
    moved = true;
    if (++b.arrived == b.expected) {
        b.arrived = 0;
        b.generation++;
    } else {
        while (b.generation == g) yield();
    }
}

static Warp& warp() { return warps[threadIdx.x / 32]; }

template <class V>
V exchange(V v, unsigned from) {  // two sets of slots in turn: a lane that runs ahead overwrites nothing that is still to be read
    Warp& w = warp();
    unsigned side = fibres[current]->exchanges++ % 2;
    memcpy(&w.slot[side][threadIdx.x % 32], &v, sizeof v);
    wait(w.barrier);
    memcpy(&v, &w.slot[side][from % 32], sizeof v);
    return v;
}

__attribute__((noinline)) static void serve(unsigned i) {  // until it waits or ends
    Fibre& f = *fibres[i];
    if (f.done) return;
    current = i;
    threadIdx.x = i;
    if (_setjmp(scheduler)) return;
    if (f.started) _longjmp(f.at, 1);
    f.started = true;
    getcontext(&f.first);
    f.stack.reset(new char[STACK]);
    f.first.uc_stack.ss_sp = f.stack.get();
    f.first.uc_stack.ss_size = STACK;
    makecontext(&f.first, live, 0);
    setcontext(&f.first);
}

inline int run_block(unsigned n, const std::vector<unsigned>& order) {
    block_barrier = Barrier{n};
    for (Warp& w : warps) w.barrier = Barrier{32};
    for (unsigned i = 0; i < n; i++) fibres[i]->done = false, fibres[i]->exchanges = 0, fibres[i]->copies.clear();
    for (unsigned left = n; left;) {
        bool any = false;
        for (unsigned k = 0; k < n; k += far ? 32 : n)
            do {
                moved = false;
                for (unsigned j = k; j < k + (far ? 32 : n); j++) serve(order[j]);
                any |= moved;
            } while (far && moved);
        if (!any) {  // somebody waits for threads that never come: the fibres are left where they are
            fibres.clear();
            return DEADLOCK;
        }
        left = 0;
        for (unsigned i = 0; i < n; i++) left += !fibres[i]->done;
    }
    return OK;
}

template <class... A, size_t... I>
int launch(void (*kernel)(A...), void** args, const unsigned* grid, const unsigned* block, unsigned bytes, unsigned order,
           std::index_sequence<I...>) {
    unsigned n = block[0];
    if (n % 32 || n > 1024 || block[1] != 1 || block[2] != 1) return BAD_BLOCK;
    gridDim = dim3{grid[0], grid[1], grid[2]};
    blockDim = dim3{n, 1, 1};
    while (fibres.size() < n) fibres.emplace_back(new Fibre);
    warps.resize(n / 32);
    shared.resize(bytes + GUARDED + 128);
    late = order % 2, far = order / 2 % 2, misaligned = false;
    unsigned char* const memory = shared_memory();
    auto call = [&] { kernel(*reinterpret_cast<std::remove_reference_t<A>*>(args[I])...); };
    body = [](void* c) { (*reinterpret_cast<decltype(call)*>(c))(); };
    body_of = &call;
    unsigned blocks = grid[0] * grid[1] * grid[2];
    std::vector<unsigned> threads(n), numbers(blocks);
    for (unsigned i = 0; i < n; i++) threads[i] = order == 1 ? n - 1 - i : i;
    for (unsigned i = 0; i < blocks; i++) numbers[i] = order == 1 ? blocks - 1 - i : i;
    std::mt19937 random(order);
    if (order > 1) std::shuffle(numbers.begin(), numbers.end(), random);
    for (unsigned i : numbers) {
        blockIdx = dim3{i % grid[0], i / grid[0] % grid[1], i / grid[0] / grid[1]};
        if (order > 1) std::shuffle(threads.begin(), threads.end(), random);
        if (far) {  // warp by warp, in the order of their first threads
            std::vector<unsigned> rank(n / 32, n);
            for (unsigned k = n; k--;) rank[threads[k] / 32] = k;
            std::stable_sort(threads.begin(), threads.end(), [&](unsigned a, unsigned b) { return rank[a / 32] < rank[b / 32]; });
        }
        memset(memory, 0xff, bytes);  // every float a NaN
        memset(memory + bytes, GUARD, GUARDED);
        if (int error = run_block(n, threads)) return error;
        for (size_t k = bytes; k < bytes + GUARDED; k++)
            if (memory[k] != GUARD) return SHARED_OVERFLOW;
        if (misaligned) return MISALIGNED;
    }
    return OK;
}

}  // namespace cuda_on_cpu

#define KERNEL_ON_CPU(name)                                                                                              \
    extern "C" int launch_##name(const unsigned* grid, const unsigned* block, unsigned shared, unsigned order, void** args) { \
        return [&]<class... A>(void (*kernel)(A...)) {                                                                   \
            return cuda_on_cpu::launch(kernel, args, grid, block, shared, order, std::index_sequence_for<A...>());       \
        }(name);                                                                                                         \
    }

// ---------------------------------------------------------------------------------------------- the words of CUDA

static inline void __syncthreads() { cuda_on_cpu::wait(cuda_on_cpu::block_barrier); }
static inline void __syncwarp(unsigned = 0xffffffffu) { cuda_on_cpu::wait(cuda_on_cpu::warp().barrier); }
static inline void __threadfence() {}
template <class V>
V __shfl_xor_sync(unsigned, V v, int m) {
    return cuda_on_cpu::exchange(v, threadIdx.x % 32 ^ m);
}
template <class V>
V __shfl_sync(unsigned, V v, int from) {
    return cuda_on_cpu::exchange(v, from);
}
static inline int __any_sync(unsigned, int x) {
    for (int m = 16; m; m >>= 1) x |= __shfl_xor_sync(0xffffffffu, x, m);
    return x;
}
static inline unsigned atomicInc(unsigned* p, unsigned limit) {
    unsigned old = *p;
    *p = old >= limit ? 0 : old + 1;
    return old;
}
static inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline void sincospi(double x, double* s, double* c) {
    double y = 3.14159265358979323846 * x;
    *s = std::sin(y);
    *c = std::cos(y);
}
using std::max;
using std::min;

// ---------------------------------------------------------------------------------------------- tensor cores
// The layouts are those of the PTX manual's tables for mma.m16n8k8 (.tf32) and mma.m16n8k16 (.bf16).

#define MMA_INSTRUCTIONS
static inline unsigned tf32_of(float x) { return (__float_as_uint(x) + 0x1000u) & 0xffffe000u; }  // nearest, ties away
static inline unsigned bf16_of(float x) {
    unsigned u = __float_as_uint(x);
    return x == x ? (u + 0x7fffu + ((u >> 16) & 1u)) >> 16 : 0x7fc0u;
}
static inline unsigned bf16x2_of(float low, float high) { return bf16_of(low) | bf16_of(high) << 16; }

namespace cuda_on_cpu {

inline unsigned (*exchanged(const unsigned (&a)[4], const unsigned (&b)[2]))[6] {
    Warp& w = warp();
    unsigned side = fibres[current]->exchanges++ % 2, lane = threadIdx.x % 32;
    for (int i = 0; i < 4; i++) w.registers[side][lane][i] = a[i];
    for (int i = 0; i < 2; i++) w.registers[side][lane][4 + i] = b[i];
    wait(w.barrier);
    return w.registers[side];
}

}  // namespace cuda_on_cpu

static inline void mma_m16n8k8_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    auto r = cuda_on_cpu::exchanged(a, b);
    unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++)  // c_i: row g + 8 [i ≥ 2], column 2t + i mod 2
        for (unsigned k = 0; k < 8; k++) {
            float x = __uint_as_float(r[g * 4 + k % 4][2 * (k / 4) + i / 2]);       // a_i: row g + 8 [i odd], column t + 4 [i ≥ 2]
            float y = __uint_as_float(r[(2 * t + i % 2) * 4 + k % 4][4 + k / 4]);   // b_i: row t + 4 i, column g
            c[i] += x * y;
        }
}

static inline void mma_m16n8k16_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    auto r = cuda_on_cpu::exchanged(a, b);
    auto half = [](unsigned u, unsigned high) { return __uint_as_float(high ? u & 0xffff0000u : u << 16); };
    unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++)
        for (unsigned k = 0; k < 16; k++) {  // register i of a: row g + 8 [i odd], columns 2t, 2t+1, + 8 [i ≥ 2]; of b: rows 2t, 2t+1, + 8 i
            float x = half(r[g * 4 + k % 8 / 2][2 * (k / 8) + i / 2], k % 2);
            float y = half(r[(2 * t + i % 2) * 4 + k % 8 / 2][4 + k / 8], k % 2);
            c[i] += x * y;
        }
}

// ---------------------------------------------------------------------------------------------- to and from shared memory

namespace cuda_on_cpu {

inline unsigned short (*matrices(const void* row))[8] {  // row r of matrix i: that of lane 8 i + r
    Warp& w = warp();
    unsigned side = fibres[current]->exchanges++ % 2;
    aligned(row);
    memcpy(w.rows[side][threadIdx.x % 32], row, 16);
    wait(w.barrier);
    return w.rows[side];
}

}  // namespace cuda_on_cpu

static inline void ldmatrix(unsigned (&r)[4], const void* row) {
    auto m = cuda_on_cpu::matrices(row);
    unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (unsigned i = 0; i < 4; i++) r[i] = m[8 * i + g][2 * t] | (unsigned)m[8 * i + g][2 * t + 1] << 16;
}
static inline void ldmatrix_transposed(unsigned (&r)[4], const void* row) {
    auto m = cuda_on_cpu::matrices(row);
    unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (unsigned i = 0; i < 4; i++) r[i] = m[8 * i + 2 * t][g] | (unsigned)m[8 * i + 2 * t + 1][g] << 16;
}

static inline void copy_async(void* to, const void* from, bool there) {
    cuda_on_cpu::Copy c = {to, {}};
    cuda_on_cpu::aligned(to), cuda_on_cpu::aligned(from);
    if (there) memcpy(c.bytes, from, 16);
    memcpy(to, c.bytes, 16);
    if (!cuda_on_cpu::late) return;
    memset(to, 0xff, 16);
    cuda_on_cpu::fibres[cuda_on_cpu::current]->copies.push_back(c);
}
static inline void fetch_ahead(const void*) {}
static inline void copies_arrived() {
    auto& copies = cuda_on_cpu::fibres[cuda_on_cpu::current]->copies;
    for (auto& c : copies) memcpy(c.to, c.bytes, 16);
    copies.clear();
}

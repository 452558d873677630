// The vocabulary of all kernels: storage types, loads and stores, sums over a warp and over a grid's columns.
//
// STORAGE  float or bf16: how activations lie in memory; every sum is a float
// VEC      how many neighbours a lane loads at once: what fills 16 bytes where rows are aligned (8 of bf16, 4 of float), 4, or 1
//
// No header of the toolkit is included: NVRTC, nvcc and g++ (through a header that gives it the words of CUDA) read the same text.
// No gradient is summed by float atomics: every sum has one order, so a run gives the same bits again.
#pragma once

#ifndef STORAGE
#define STORAGE float
#endif
#ifndef VEC
#define VEC 1
#endif
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ __align__(128) type name[]
#endif

struct bf16 {
    unsigned short bits;
};
typedef STORAGE T;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }

__device__ __forceinline__ void put(float& to, float x) { to = x; }
__device__ __forceinline__ void put(bf16& to, float x) {  // to the nearest, ties to even; NaN stays NaN
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(x));
#else
    unsigned u = __float_as_uint(x);
    to.bits = x == x ? (unsigned short)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16) : (unsigned short)0x7fc0u;
#endif
}

// 2ˣ and 1/x in one instruction each, within two units of a float's last place; what is below 2⁻¹²⁶ becomes 0.
__device__ __forceinline__ float exp2_of(float x) {
#ifdef __CUDA_ARCH__
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(x) : "f"(x));
    return x;
#else
    return x < -126 ? 0 : exp2f(x);
#endif
}
__device__ __forceinline__ float inverse_of(float x) {
#ifdef __CUDA_ARCH__
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(x) : "f"(x));
    return x;
#else
    return 1.0f / x;
#endif
}

// a b, rounded: the compiler does not join it with a sum.
__device__ __forceinline__ float times(float a, float b) {
#ifdef __CUDA_ARCH__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

template <class S>
struct alignas(VEC * sizeof(S) < 16 ? VEC * sizeof(S) : 16) Pack {
    S v[VEC];
};

__device__ __forceinline__ void unpack(const Pack<float>& q, float (&x)[VEC]) {
#pragma unroll
    for (int k = 0; k < VEC; k++) x[k] = q.v[k];
}
__device__ __forceinline__ void unpack(const Pack<bf16>& q, float (&x)[VEC]) {
#pragma unroll
    for (int k = 0; k < VEC; k++) {
        if (VEC % 2) {
            x[k] = to_float(q.v[k]);
        } else if (k % 2 == 0) {  // two numbers of one word: a shift and a mask
            unsigned w;
            memcpy(&w, q.v + k, 4);
            x[k] = __uint_as_float(w << 16), x[k + 1] = __uint_as_float(w & 0xffff0000u);
        }
    }
}

__device__ __forceinline__ void pack(const float (&x)[VEC], Pack<float>& q) {
#pragma unroll
    for (int k = 0; k < VEC; k++) q.v[k] = x[k];
}
__device__ __forceinline__ void pack(const float (&x)[VEC], Pack<bf16>& q) {
#pragma unroll
    for (int k = 0; k < VEC; k++) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        if (VEC % 2 == 0) {
            unsigned w;
            if (k % 2 == 0) {
                asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(x[k + 1]), "f"(x[k]));
                memcpy(q.v + k, &w, 4);
            }
            continue;
        }
#endif
        put(q.v[k], x[k]);
    }
}

template <class S>
__device__ __forceinline__ Pack<S> pack_at(const S* p) {
    return *reinterpret_cast<const Pack<S>*>(p);
}

template <class S>
__device__ __forceinline__ void load(const S* p, float (&x)[VEC]) {
    unpack(pack_at(p), x);
}

template <class S>
__device__ __forceinline__ void store(S* p, const float (&x)[VEC]) {
    Pack<S> q;
    pack(x, q);
    *reinterpret_cast<Pack<S>*>(p) = q;
}

// Floats that other blocks of this launch wrote: read past the first cache, which may hold what was there before.
__device__ __forceinline__ void load_written(const float* p, float (&x)[VEC]) {
#ifdef __CUDA_ARCH__
    if constexpr (VEC % 4 == 0)
#pragma unroll
        for (int k = 0; k + 3 < VEC; k += 4)
            asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                         : "=f"(x[k]), "=f"(x[k + 1]), "=f"(x[k + 2]), "=f"(x[k + 3])
                         : "l"(p + k)
                         : "memory");
    else
#endif
        for (int k = 0; k < VEC; k++) x[k] = *(const volatile float*)(p + k);
}

__device__ __forceinline__ float warp_sum(float x) {
    for (int m = 16; m; m >>= 1) x += __shfl_xor_sync(0xffffffffu, x, m);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int m = 16; m; m >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, m));
    return x;
}

// True in the block that comes last of `of` blocks which share a counter: it sees what all others have written, and adds it up
// in a fixed order. The counter is zero before and after.
__device__ __forceinline__ bool last_of(unsigned* counter, unsigned of) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicInc(counter, of - 1) == of - 1;
    __syncthreads();
    bool answer = last;
    __threadfence();
    return answer;
}

// Columns: a block of 8 warps owns 32 VEC columns (blockIdx.x) and a chunk of rows (blockIdx.y) of a sample (blockIdx.z); lane l
// of every warp has the columns column() .. column() + VEC - 1, warp w the rows w, w + 8, … of the chunk.
enum { COLUMN_WARPS = 8 };

__device__ __forceinline__ int column() { return (blockIdx.x * 32 + threadIdx.x % 32) * VEC; }

// The sums of the block's columns over its warps, in warp 0's lanes.
__device__ __forceinline__ void over_warps(float (&sum)[VEC]) {
    alignas(16) __shared__ float parts[COLUMN_WARPS][32 * VEC];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    store(parts[warp] + lane * VEC, sum);
    __syncthreads();
    if (warp == 0)
#pragma unroll
        for (int w = 1; w < COLUMN_WARPS; w++) {
            float v[VEC];
            load(parts[w] + lane * VEC, v);
            for (int k = 0; k < VEC; k++) sum[k] += v[k];
        }
    __syncthreads();
}

// The sum of this block's columns over `count` rows of p, (count, D) floats that other blocks wrote, in warp 0's lanes.
__device__ __forceinline__ void over_written(const float* p, unsigned count, int D, float (&sum)[VEC]) {
    int c = column();
    for (int k = 0; k < VEC; k++) sum[k] = 0;
    if (c < D)
#pragma unroll 4
        for (unsigned i = threadIdx.x / 32; i < count; i += COLUMN_WARPS) {
            float v[VEC];
            load_written(p + (size_t)i * D + c, v);
            for (int k = 0; k < VEC; k++) sum[k] += v[k];
        }
    over_warps(sum);
}

// out[c] = the sum over all chunks of the sample's rows; out: that of sample b starts at b · stride, partial: (samples, chunks, D)
// floats of scratch memory, counters: one for each (sample, block of columns). True in the block that wrote it.
template <class S>
__device__ __forceinline__ bool over_chunks(float (&sum)[VEC], S* out, int stride, float* partial, unsigned* counters, int D) {
    over_warps(sum);
    int c = column();
    bool mine = threadIdx.x < 32 && c < D;
    if (gridDim.y > 1) {
        partial += (size_t)blockIdx.z * gridDim.y * D;
        if (mine) store(partial + (size_t)blockIdx.y * D + c, sum);
        if (!last_of(counters + blockIdx.z * gridDim.x + blockIdx.x, gridDim.y)) return false;
        over_written(partial, gridDim.y, D, sum);
    }
    if (mine) store(out + (size_t)blockIdx.z * stride + c, sum);
    return true;
}

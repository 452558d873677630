// Packed rows (A.20), one head of one sample at a time.
#pragma once
#include "mma.h"

#ifndef HEAD
#define HEAD 64
#endif

// threadIdx.x, read where it is used: no number that follows from it stays in a register from one tile to the next, while others
// are short of registers.
__device__ __forceinline__ int thread_here() {
#ifdef __CUDA_ARCH__
    int i;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(i));
    return i;
#else
    return threadIdx.x;
#endif
}

struct Rows {  // row n starts at p + n · pitch
    const T* p;
    size_t pitch;
    const float* bias;  // of this head, or null
};

// part 0, 1, 2: the queries, keys, values of qkv, (B, N, 3, heads, HEAD), and their bias, of (3, heads, HEAD).
__device__ __forceinline__ Rows part_of(const T* qkv, const float* bias, int part, int b, int h, int N, int heads) {
    size_t D = (size_t)heads * HEAD, at = (size_t)h * HEAD;
    Rows r = {qkv + ((size_t)b * N * 3 + part) * D + at, 3 * D, bias ? bias + part * D + at : bias};
    return r;
}

__device__ __forceinline__ Rows head_of(const T* y, int b, int h, int N, int heads) {  // y: (B, N, heads, HEAD)
    size_t D = (size_t)heads * HEAD;
    Rows r = {y + (size_t)b * N * D + (size_t)h * HEAD, D, nullptr};
    return r;
}

// of an array whose sample b starts at p + b · batch, and whose heads lie side by side in a row
__device__ __forceinline__ Rows rows_at(const T* p, int batch, int row, int b, int h) {
    Rows r = {p + (size_t)b * batch + h * HEAD, (size_t)row, nullptr};
    return r;
}

__device__ __forceinline__ float over_quad(float x) {  // the four lanes that share a row of an accumulator
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ __forceinline__ float max_of_quad(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

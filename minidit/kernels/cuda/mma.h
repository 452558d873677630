// Products of tiles on tensor cores: c (16 x 8) += a (16 x 16) b (16 x 8) by one warp, sums in float.
//
// Lane l = 4 g + t holds, as floats,
//     c[0], c[1] = c(g, 2t), c(g, 2t+1);           c[2], c[3] = the same of row g + 8
//     a[4j + 0..3] as c, for the columns 8j + 2t, 8j + 2t + 1        (so two tiles c side by side are an a)
//     b[2j + 0..1] = b(8j + 2t, g), b(8j + 2t + 1, g)
//
// FACTORS  0: float32, each factor in two tf32 parts, three products   1: tf32, 10 bits of mantissa   2: bf16, 7 bits
#pragma once
#include "common.h"

#ifndef FACTORS
#define FACTORS 0
#endif

#ifndef MMA_INSTRUCTIONS
#define MMA_INSTRUCTIONS
__device__ __forceinline__ unsigned tf32_of(float x) {
    unsigned r;
    asm volatile("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
}
__device__ __forceinline__ unsigned bf16x2_of(float low, float high) {
    unsigned r;
    asm volatile("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of bf16 from shared memory: lane l names row l % 8 of matrix l / 8, 16 bytes. Register i of lane 4 g + t
// then holds the numbers 2t, 2t + 1 of row g of matrix i; transposed, of its column g.
__device__ __forceinline__ void ldmatrix(unsigned (&r)[4], const void* row) {
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}
__device__ __forceinline__ void ldmatrix_transposed(unsigned (&r)[4], const void* row) {
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}

// 16 bytes from global into shared memory behind the thread's back, or 16 zeros. They are there after `copies_arrived`, for the
// other threads of the block after a barrier that follows it.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool there) {
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(there ? 16 : 0) : "memory");
}
// Asks for 32 bytes or more to come from the device's memory into its second cache: a hint.
__device__ __forceinline__ void fetch_ahead(const void* from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from)); }
__device__ __forceinline__ void copies_arrived() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#endif

__device__ __forceinline__ float low_of(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_of(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ __forceinline__ void mma(float (&c)[4], const float (&a)[8], const float (&b)[4]) {
#if FACTORS == 2
    unsigned p[4] = {bf16x2_of(a[0], a[1]), bf16x2_of(a[2], a[3]), bf16x2_of(a[4], a[5]), bf16x2_of(a[6], a[7])};
    unsigned q[2] = {bf16x2_of(b[0], b[1]), bf16x2_of(b[2], b[3])};
    mma_m16n8k16_bf16(c, p, q);
#else
#pragma unroll
    for (int j = 0; j < 2; j++) {  // the instruction's columns t and t + 4 are our 2t and 2t + 1: a sum over k has no order
        const float *x = a + 4 * j, *y = b + 2 * j;
        unsigned p[4] = {tf32_of(x[0]), tf32_of(x[2]), tf32_of(x[1]), tf32_of(x[3])};
        unsigned q[2] = {tf32_of(y[0]), tf32_of(y[1])};
#if FACTORS == 0
        unsigned rest_p[4] = {tf32_of(x[0] - __uint_as_float(p[0])), tf32_of(x[2] - __uint_as_float(p[1])),
                              tf32_of(x[1] - __uint_as_float(p[2])), tf32_of(x[3] - __uint_as_float(p[3]))};
        unsigned rest_q[2] = {tf32_of(y[0] - __uint_as_float(q[0])), tf32_of(y[1] - __uint_as_float(q[1]))};
        mma_m16n8k8_tf32(c, rest_p, q);
        mma_m16n8k8_tf32(c, p, rest_q);
#endif
        mma_m16n8k8_tf32(c, p, q);
    }
#endif
}

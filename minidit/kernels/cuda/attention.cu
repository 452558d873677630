// Self-attention (A.18, A.19) on packed rows (A.20) without any N x N matrix in memory: a block loops over tiles of keys and
// corrects the softmax on the way (Milakov and Gimelshein 2018; Dao et al. 2022). Only the logarithm of each row's sum is kept.
//
// qkv: (B, N, 3, heads, HEAD), to which bias, (3, heads, HEAD) or null, is added on the way; y: (B, N, heads, HEAD). WIDTH is HEAD
// rounded up to a multiple of 16; columns beyond HEAD are zero.
// A block owns TALL rows, 16 per warp, and loops over the other side in tiles of WIDE rows. Grid: (N / TALL, B · heads).
#include "heads.h"

#if FACTORS == 2 && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 890
#define PER_MULTIPROCESSOR 2
#else
#define PER_MULTIPROCESSOR 3
#endif

enum {
    WIDTH = (HEAD + 15) / 16 * 16,
    PITCH = WIDTH + 8,  // of a tile in shared memory: eight rows of pairs fall into different banks
    TALL = 64,
    WIDE = 32,
    THREADS = 4 * WIDE,
    FORWARD = HEAD <= 64 && FACTORS ? 5 : HEAD <= 96 ? 3 : 2,  // blocks per multiprocessor that the registers allow
    BACKWARD = HEAD <= 80 && FACTORS ? PER_MULTIPROCESSOR : 2,
    SLICES = WIDTH / 16,  // of a sum over the head's width
    STRIPS = WIDTH / 8,   // of an accumulator as wide as a head
};

// Rows first .. first + count - 1 into shared memory; beyond N, and beyond HEAD, zeros.
__device__ __forceinline__ void fetch(float* tile, Rows rows, int first, int count, int N) {
    for (int i = thread_here() * VEC; i < count * WIDTH; i += THREADS * VEC) {
        int n = i / WIDTH, c = i % WIDTH;
        float v[VEC] = {};
        if (first + n < N && c < HEAD) {
            load(rows.p + (first + n) * rows.pitch + c, v);
            if (rows.bias) {
                float add[VEC];
                load(rows.bias + c, add);
#pragma unroll
                for (int k = 0; k < VEC; k++) v[k] += add[k];
            }
        }
        store(tile + n * PITCH + c, v);  // one wide store: a lane's neighbours fill the banks between
    }
}

// Fragments of mma.h from shared memory. a: rows r0.., columns c0..; b of a product with a transposed tile; b of a plain one.
__device__ __forceinline__ void fragment_a(const float* tile, int r0, int c0, float (&a)[8]) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 8; i++) a[i] = tile[(r0 + g + (i & 2 ? 8 : 0)) * PITCH + c0 + (i & 4 ? 8 : 0) + 2 * t + (i & 1)];
}
__device__ __forceinline__ void fragment_bt(const float* tile, int r0, int c0, float (&b)[4]) {  // b(k, n) = tile(r0 + n, c0 + k)
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 4; i++) b[i] = tile[(r0 + g) * PITCH + c0 + (i & 2 ? 8 : 0) + 2 * t + (i & 1)];
}
__device__ __forceinline__ void fragment_b(const float* tile, int r0, int c0, float (&b)[4]) {  // b(k, n) = tile(r0 + k, c0 + n)
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 4; i++) b[i] = tile[(r0 + (i & 2 ? 8 : 0) + 2 * t + (i & 1)) * PITCH + c0 + g];
}

// s (16 x WIDE) = rows r0.. of `tall` times the rows of `wide`, transposed.
__device__ __forceinline__ void products(const float* tall, int r0, const float* wide, float (&s)[WIDE / 8][4]) {
#pragma unroll
    for (int j = 0; j < WIDE / 8; j++)
        for (int i = 0; i < 4; i++) s[j][i] = 0;
    for (int k = 0; k < SLICES; k++) {
        float a[8], b[4];
        fragment_a(tall, r0, 16 * k, a);
#pragma unroll
        for (int j = 0; j < WIDE / 8; j++) {
            fragment_bt(wide, 8 * j, 16 * k, b);
            mma(s[j], a, b);
        }
    }
}

// sum (16 x WIDTH) += s (16 x WIDE) times the tile (WIDE x WIDTH). Two tiles of s side by side are an a.
__device__ __forceinline__ void accumulate(const float (&s)[WIDE / 8][4], const float* tile, float (&sum)[STRIPS][4]) {
#pragma unroll
    for (int k = 0; k < WIDE / 16; k++) {
        float a[8], b[4];
#pragma unroll
        for (int i = 0; i < 8; i++) a[i] = s[2 * k + i / 4][i % 4];
#pragma unroll
        for (int j = 0; j < STRIPS; j++) {
            fragment_b(tile, 16 * k, 8 * j, b);
            mma(sum[j], a, b);
        }
    }
}

// Row i/2 (0: g, 1: g + 8) of an accumulator into the array `rows`, times factor[i/2].
__device__ __forceinline__ void put_rows(const float (&sum)[STRIPS][4], Rows rows, int first, int N, const float (&factor)[2]) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < STRIPS; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int n = first + g + 8 * (i / 2), c = 8 * j + 2 * t + i % 2;
            if (n < N && c < HEAD) put(const_cast<T*>(rows.p)[n * rows.pitch + c], sum[j][i] * factor[i / 2]);
        }
}

extern "C" __global__ void __launch_bounds__(128, FORWARD)
    attention(const T* qkv, const float* bias, T* y, float* log_sum, int N, int heads, float scale) {
    DYNAMIC_SHARED(float, tiles);
    float *q = tiles, *k = q + TALL * PITCH, *v = k + WIDE * PITCH;
    int b = blockIdx.y / heads, h = blockIdx.y % heads, first = blockIdx.x * TALL, r0 = threadIdx.x / 32 * 16;
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    fetch(q, part_of(qkv, bias, 0, b, h, N, heads), first, TALL, N);
    float out[STRIPS][4] = {}, s[WIDE / 8][4], top[2] = {-1e30f, -1e30f}, sum[2] = {};
    for (int m = 0; m < N; m += WIDE) {
        __syncthreads();  // the tile before is read
        fetch(k, part_of(qkv, bias, 1, b, h, N, heads), m, WIDE, N);
        fetch(v, part_of(qkv, bias, 2, b, h, N, heads), m, WIDE, N);
        __syncthreads();
        products(q, r0, k, s);
        float high[2] = {top[0], top[1]}, part[2] = {}, shrink[2];
        for (int j = 0; j < WIDE / 8; j++)
            for (int i = 0; i < 4; i++) {
                s[j][i] = m + 8 * j + 2 * t + i % 2 < N ? s[j][i] * scale : -1e30f;
                high[i / 2] = fmaxf(high[i / 2], s[j][i]);
            }
        for (int i = 0; i < 2; i++) {
            high[i] = max_of_quad(high[i]);
            shrink[i] = expf(top[i] - high[i]);
            top[i] = high[i];
        }
        for (int j = 0; j < WIDE / 8; j++)
            for (int i = 0; i < 4; i++) {
                s[j][i] = expf(s[j][i] - top[i / 2]);
                part[i / 2] += s[j][i];
            }
        for (int i = 0; i < 2; i++) sum[i] = sum[i] * shrink[i] + part[i];
        for (int j = 0; j < STRIPS; j++)
            for (int i = 0; i < 4; i++) out[j][i] *= shrink[i / 2];
        accumulate(s, v, out);
    }
    float inverse[2];
    for (int i = 0; i < 2; i++) {
        sum[i] = over_quad(sum[i]);
        inverse[i] = 1.0f / sum[i];
        int n = first + r0 + g + 8 * i;
        if (t == 0 && n < N) log_sum[(size_t)blockIdx.y * N + n] = top[i] + logf(sum[i]);
    }
    put_rows(out, head_of(y, b, h, N, heads), first + r0, N, inverse);
}

// q̄ = S̄ k scale with S̄ = P ⊙ (ȳ vᵀ - δ), δ = Σ ȳ⊙y of every row: a block owns queries and loops over the keys.
__device__ __forceinline__ void queries_backward(float* tiles, const T* qkv, const float* bias, const T* y, const T* y_bar,
                                                 const float* log_sum, T* qkv_bar, int N, int heads, float scale) {
    float *q = tiles, *bar = q + TALL * PITCH, *k = bar + TALL * PITCH, *v = k + WIDE * PITCH;
    int b = blockIdx.y / heads, h = blockIdx.y % heads, first = blockIdx.x * TALL, r0 = threadIdx.x / 32 * 16;
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    fetch(q, part_of(qkv, bias, 0, b, h, N, heads), first, TALL, N);
    fetch(bar, head_of(y_bar, b, h, N, heads), first, TALL, N);
    __syncthreads();
    Rows values = head_of(y, b, h, N, heads);
    float d[2] = {}, lse[2] = {}, out[STRIPS][4] = {}, s[WIDE / 8][4], s_bar[WIDE / 8][4];
    for (int i = 0; i < 2; i++) {
        int r = r0 + g + 8 * i, n = first + r;
        if (n < N) {
            for (int c = t; c < HEAD; c += 4) d[i] += to_float(values.p[n * values.pitch + c]) * bar[r * PITCH + c];
            lse[i] = log_sum[(size_t)blockIdx.y * N + n];
        }
        d[i] = over_quad(d[i]);
    }
    for (int m = 0; m < N; m += WIDE) {
        __syncthreads();
        fetch(k, part_of(qkv, bias, 1, b, h, N, heads), m, WIDE, N);
        fetch(v, part_of(qkv, bias, 2, b, h, N, heads), m, WIDE, N);
        __syncthreads();
        products(q, r0, k, s);
        products(bar, r0, v, s_bar);
        for (int j = 0; j < WIDE / 8; j++)
            for (int i = 0; i < 4; i++) {
                float p = m + 8 * j + 2 * t + i % 2 < N ? expf(s[j][i] * scale - lse[i / 2]) : 0.0f;
                s[j][i] = p * (s_bar[j][i] - d[i / 2]);
            }
        accumulate(s, k, out);
    }
    float factor[2] = {scale, scale};
    put_rows(out, part_of(qkv_bar, nullptr, 0, b, h, N, heads), first + r0, N, factor);
}

// k̄ = S̄ᵀ q scale and v̄ = Pᵀ ȳ: a block owns keys and loops over the queries.
__device__ __forceinline__ void keys_backward(float* tiles, const T* qkv, const float* bias, const T* y, const T* y_bar,
                                              const float* log_sum, T* qkv_bar, int N, int heads, float scale) {
    float *k = tiles, *v = k + TALL * PITCH, *q = v + TALL * PITCH, *bar = q + WIDE * PITCH;
    float *lse = bar + WIDE * PITCH, *d = lse + WIDE;
    int b = blockIdx.y / heads, h = blockIdx.y % heads, first = blockIdx.x * TALL, r0 = threadIdx.x / 32 * 16;
    int t = threadIdx.x % 4;
    Rows values = head_of(y, b, h, N, heads);
    fetch(k, part_of(qkv, bias, 1, b, h, N, heads), first, TALL, N);
    fetch(v, part_of(qkv, bias, 2, b, h, N, heads), first, TALL, N);
    float k_sum[STRIPS][4] = {}, v_sum[STRIPS][4] = {}, s[WIDE / 8][4], s_bar[WIDE / 8][4];
    for (int n = 0; n < N; n += WIDE) {
        __syncthreads();
        fetch(q, part_of(qkv, bias, 0, b, h, N, heads), n, WIDE, N);
        fetch(bar, head_of(y_bar, b, h, N, heads), n, WIDE, N);
        __syncthreads();
        const int here = FACTORS ? threadIdx.x : thread_here(), r = here / 4, m = n + r, t = here % 4;  // four lanes per row
        float delta = 0;
        if (m < N)
            for (int c = t; c < HEAD; c += 4) delta += to_float(values.p[m * values.pitch + c]) * bar[r * PITCH + c];
        delta = over_quad(delta);
        if (t == 0) {
            lse[r] = m < N ? log_sum[(size_t)blockIdx.y * N + m] : 1e30f;  // e^(s - 1e30) = 0: a row beyond the end
            d[r] = delta;
        }
        __syncthreads();
        products(k, r0, q, s);
        products(v, r0, bar, s_bar);
        for (int j = 0; j < WIDE / 8; j++)
            for (int i = 0; i < 4; i++) {
                int c = 8 * j + 2 * t + i % 2;
                s[j][i] = expf(s[j][i] * scale - lse[c]);
                s_bar[j][i] = s[j][i] * (s_bar[j][i] - d[c]);
            }
        accumulate(s, bar, v_sum);
        accumulate(s_bar, q, k_sum);
    }
    float factor[2] = {scale, scale}, one[2] = {1.0f, 1.0f};
    put_rows(k_sum, part_of(qkv_bar, nullptr, 1, b, h, N, heads), first + r0, N, factor);
    put_rows(v_sum, part_of(qkv_bar, nullptr, 2, b, h, N, heads), first + r0, N, one);
}

// Both, side by side: blockIdx.z 0 for the queries, 1 for the keys and values.
extern "C" __global__ void __launch_bounds__(128, BACKWARD)
    attention_backward(const T* qkv, const float* bias, const T* y, const T* y_bar, const float* log_sum, T* qkv_bar, int N,
                       int heads, float scale) {
    DYNAMIC_SHARED(float, tiles);
    if (blockIdx.z == 0)
        queries_backward(tiles, qkv, bias, y, y_bar, log_sum, qkv_bar, N, heads, scale);
    else
        keys_backward(tiles, qkv, bias, y, y_bar, log_sum, qkv_bar, N, heads, scale);
}

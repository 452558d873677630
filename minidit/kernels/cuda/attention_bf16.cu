// Attention (A.18) in bfloat16, by the method of attention.cu but at the speed of tensor cores. HEAD is a multiple of 8; rows are
// aligned to 16 bytes.
//
// Of the bias only the part of the queries changes a weight: that of the keys adds one number to all logits of a query, which no
// softmax sees, and that of the values is added to y once, for Σ P = 1. So nothing but q + bias is rounded again, here and in the
// adjoint.
#include "tiles.h"

constexpr int TALL = 64 * HIGH;             // queries that a block owns, by four warps
constexpr int WIDE = HIGH == 2 ? 32 : 64;   // keys of a tile
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int NARROW = 64 - 8 * MASK;
#else
constexpr int NARROW = 80 - 16 * MASK;
#endif
constexpr int BLOCKS = HEAD <= NARROW ? 3 : 2;  // per multiprocessor, as registers allow: while one waits for memory, others multiply
constexpr float LATE = 8;  // the softmax is shifted again when a logit exceeds the shift by a factor of 2^LATE

// The queries of a warp, from its rows of shared memory, as fragments, with their bias.
__device__ __forceinline__ void queries(unsigned (&q)[SLICES][HIGH][4], const bf16* own, const float* bias) {
    int t = threadIdx.x % 4;
#pragma unroll
    for (int k = 0; k < SLICES; k++)
#pragma unroll
        for (int h = 0; h < HIGH; h++) ldmatrix(q[k][h], along(own, PITCH) + 16 * h * PITCH + 16 * k);
    if (!bias) return;
#pragma unroll
    for (int j = 0; j < STRIPS; j++) {
        Two b = two_of(bias + 8 * j + 2 * t);
#pragma unroll
        for (int i = 0; i < HIGH * 2; i++) {
            unsigned& pair = q[j / 2][i / 2][i % 2 + j % 2 * 2];
            pair = bf16x2_of(low_of(pair) + b.x, high_of(pair) + b.y);
        }
    }
}

// One tile of the softmax: s becomes P, shifted by top; sum and out follow where the shift must grow. c: scale in powers of two.
__device__ __forceinline__ void softmax(float (&s)[HIGH][WIDE / 8][4], float (&top)[HIGH][2], float (&sum)[HIGH][2],
                                        float (&out)[HIGH][STRIPS][4], float c) {
    float high[HIGH][2];
    bool late = false;
#pragma unroll
    for (int h = 0; h < HIGH; h++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            high[h][i] = top[h][i];
#pragma unroll
            for (int j = 0; j < WIDE / 8; j++) high[h][i] = fmaxf(high[h][i], fmaxf(s[h][j][2 * i], s[h][j][2 * i + 1]));
            late |= (high[h][i] - top[h][i]) * c > LATE;
        }
    if (__any_sync(0xffffffffu, late)) {
#pragma unroll
        for (int h = 0; h < HIGH; h++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                high[h][i] = max_of_quad(high[h][i]);
                float shrink = exp2_of((top[h][i] - high[h][i]) * c);
                top[h][i] = high[h][i];
                sum[h][i] *= shrink;
#pragma unroll
                for (int j = 0; j < STRIPS; j++) out[h][j][2 * i] *= shrink, out[h][j][2 * i + 1] *= shrink;
            }
    }
#pragma unroll
    for (int h = 0; h < HIGH; h++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float shift = top[h][i / 2] * c;
#pragma unroll
            for (int j = 0; j < WIDE / 8; j++) {
                s[h][j][i] = exp2_of(s[h][j][i] * c - shift);
                sum[h][i / 2] += s[h][j][i];
            }
        }
}

// q: (B, N, heads, HEAD), k, v: (B, M, heads, HEAD), each with its strides of samples and rows; bias: of q, k and v, or null,
// (3, heads, HEAD); mask: numbers that are added to the logits, and which of its tiles forbid everything. Grid: (N / TALL,
// B · heads), four warps.
extern "C" __global__ void __launch_bounds__(128, BLOCKS)
    attention_bf16(const bf16* q, const bf16* k, const bf16* v, const float* bias, const float* mask, const unsigned char* dead,
                   bf16* y, float* log_sum, int N, int M, int heads, int q_batch, int q_row, int k_batch, int k_row, int v_batch,
                   int v_row, int mask_batch, int mask_head, int mask_row, int dead_batch, int dead_head, float scale) {
    DYNAMIC_SHARED(bf16, tiles);  // keys and values of one tile, and of the next, where first the queries are
    int b = blockIdx.y / heads, h = blockIdx.y % heads, first = blockIdx.x * TALL + threadIdx.x / 32 * 16 * HIGH;
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    bf16* own = tiles + (2 * WIDE + threadIdx.x / 32 * 16 * HIGH) * PITCH;
    Rows asking = rows_at(q, q_batch, q_row, b, h), keys = rows_at(k, k_batch, k_row, b, h);
    Rows values = rows_at(v, v_batch, v_row, b, h);
    if (bias) asking.bias = bias + h * HEAD, values.bias = bias + (2 * heads + h) * HEAD;
    const Tiles forbidden = {dead ? dead + b * dead_batch + h * dead_head : nullptr, N, M};
    int m = forbidden.first_alive(blockIdx.x * TALL, TALL, 0, WIDE);
    fetch<WIDE, 128>(tiles, keys, m, M);
    fetch<WIDE, 128>(tiles + WIDE * PITCH, values, m, M);
    fetch<TALL, 128>(tiles + 2 * WIDE * PITCH, asking, blockIdx.x * TALL, N);
    copies_arrived();
    __syncthreads();
    unsigned a[SLICES][HIGH][4];
    queries(a, own, asking.bias);
    float out[HIGH][STRIPS][4] = {}, top[HIGH][2], sum[HIGH][2] = {}, c = scale * LOG2E;
#pragma unroll
    for (int i = 0; i < HIGH * 2; i++) top[i / 2][i % 2] = -1e30f;
    for (int turn = 0; m < M; turn ^= 1) {
        const bf16* tile = tiles + turn * 2 * WIDE * PITCH;
        int after = forbidden.first_alive(blockIdx.x * TALL, TALL, m + WIDE, WIDE);
        copies_arrived();
        __syncthreads();  // the tile has come, and all have read the one before
        if (after < M) {
            bf16* next = tiles + (turn ^ 1) * 2 * WIDE * PITCH;
            const int i = MASK ? thread_here() : threadIdx.x;
            fetch<WIDE, 128>(next, keys, after, M, i);
            fetch<WIDE, 128>(next + WIDE * PITCH, values, after, M, i);
        }
        float s[HIGH][WIDE / 8][4] = {};
#pragma unroll
        for (int i = 0; i < SLICES; i++)
#pragma unroll
            for (int j = 0; j < WIDE / 8; j += 2) {
                unsigned b[4];
                ldmatrix(b, across(tile, PITCH) + 8 * j * PITCH + 16 * i);
                two(s, j, a[i], b);
            }
#if MASK
        const int row = first + g, column = m + 2 * t, left = M - column;
        const float unscale = 1 / scale, *add = mask + (size_t)b * mask_batch + (size_t)h * mask_head + column;
#pragma unroll
        for (int i = 0; i < HIGH * 2; i++) {
            if (row + 8 * i < N) {
                const float* numbers = add + (size_t)(row + 8 * i) * mask_row;
#pragma unroll
                for (int j = 0; j < WIDE / 4; j++)
                    if (j / 2 * 8 + j % 2 < left) s[i / 2][j / 2][i % 2 * 2 + j % 2] += numbers[j / 2 * 8 + j % 2] * unscale;
            }
        }
#endif
        if (m + WIDE > M) {
#pragma unroll
            for (int j = 0; j < WIDE / 8; j++)
#pragma unroll
                for (int i = 0; i < HIGH * 4; i++)
                    if (m + 8 * j + 2 * t + i % 2 >= M) s[i / 4][j][i % 4] = -1e30f;
        }
        softmax(s, top, sum, out, c);
#pragma unroll
        for (int i = 0; i < WIDE / 16; i++) {
            unsigned p[HIGH][4];
            packed(p, s, i);
            accumulate(out, p, along(tile + (WIDE + 16 * i) * PITCH, PITCH));
        }
        m = after;
    }
    float inverse[HIGH][2];
#pragma unroll
    for (int i = 0; i < HIGH * 2; i++) {
        float all = over_quad(sum[i / 2][i % 2]);
        inverse[i / 2][i % 2] = 1 / all;
        int n = first + 8 * i + g;
        if (t == 0 && n < N) log_sum[(size_t)blockIdx.y * N + n] = top[i / 2][i % 2] * scale + logf(all);
    }
    __syncthreads();
    rounded(own, out, inverse, values.bias);
    put_rows(own, head_of(y, b, h, N, heads), first, N);
}

// dead[mask, tile of FLAG_ROWS queries, tile of FLAG_COLUMNS keys]: whether all numbers of that tile are -∞. batches, heads: of
// which the mask has numbers of their own. Grid: (tiles of keys, tiles of queries, batches · heads).
extern "C" __global__ void __launch_bounds__(128)
    attention_mask_tiles(const float* mask, unsigned char* dead, int N, int M, int heads, int mask_batch, int mask_head,
                         int mask_row) {
    __shared__ int found[4];
    mask += (size_t)(blockIdx.z / heads) * mask_batch + (size_t)(blockIdx.z % heads) * mask_head;
    int m = blockIdx.x * FLAG_COLUMNS + threadIdx.x % FLAG_COLUMNS, alive = 0;
    for (int i = threadIdx.x / FLAG_COLUMNS; i < FLAG_ROWS; i += 128 / FLAG_COLUMNS) {
        int n = blockIdx.y * FLAG_ROWS + i;
        if (n < N && m < M && !(mask[(size_t)n * mask_row + m] < -3.402823466e38f)) alive = 1;
    }
    alive = __any_sync(0xffffffffu, alive);
    if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = alive;
    __syncthreads();
    if (threadIdx.x == 0)
        dead[((size_t)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] = !(found[0] | found[1] | found[2] | found[3]);
}

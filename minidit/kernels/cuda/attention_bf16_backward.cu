// The adjoint (A.19) of attention_bf16.cu by five products: logits and P̄ are computed once, by the block that owns the keys.
//
//     Pᵀ = 2^(k qᵀ c - lse)    S̄ᵀ = Pᵀ ⊙ (v ȳᵀ - δ)    v̄ += Pᵀ ȳ    k̄ += S̄ᵀ q    q̄ = S̄ k        δ = Σ ȳ ⊙ (y - bias of v)
//
// A warp owns 16 HIGH keys and their k̄ and v̄; the block goes through the queries, TILE at a time. S̄ᵀ goes to shared memory, where
// all warps take it, one tile later, to sum q̄ over the block's keys in their order. Where there are more keys than one block owns, the parts of
// q̄ go to memory as float32 and are added up by a second kernel: no sum depends on the order of blocks.
#include "tiles.h"

#ifndef WARPS
#define WARPS 8
#endif

constexpr int THREADS = 32 * WARPS, KEYS = 16 * HIGH * WARPS, TILE = 64;
constexpr int SUB = HEAD * HIGH <= 144 ? 32 : 16;                      // queries of which a warp holds logits
constexpr int SHARES = WARPS / 4, SHARE = (STRIPS + SHARES - 1) / SHARES;  // warps that share 16 rows of q̄, and the strips of each
constexpr int ACROSS = TILE + 8;                                       // the pitch of S̄ᵀ

// Shared memory: the block's keys and values, then twice, for tiles in turn: queries, ȳ, S̄ᵀ, lse and δ.
constexpr int K = 0, V = KEYS * PITCH, TURNS = 2 * KEYS * PITCH;
constexpr int Q = 0, BAR = TILE * PITCH, S_BAR = 2 * TILE * PITCH, SUMS = S_BAR + KEYS * ACROSS, TURN = SUMS + 4 * TILE;

// lse (in powers of two) and δ of a tile's rows, THREADS / TILE lanes per row.
__device__ __forceinline__ void row_sums(float* lse, Rows y, Rows bar, const float* log_sum, int first, int N) {
    constexpr int LANES = THREADS / TILE;
    int r = threadIdx.x / LANES, t = threadIdx.x % LANES, n = first + r;
    float sum = 0;
    if (n < N)
#pragma unroll
        for (int c = 8 * t; c < HEAD; c += 8 * LANES) {
            Piece a = *reinterpret_cast<const Piece*>(y.p + n * y.pitch + c), b = *reinterpret_cast<const Piece*>(bar.p + n * bar.pitch + c);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float left = y.bias ? y.bias[c + 2 * i] : 0, right = y.bias ? y.bias[c + 2 * i + 1] : 0;
                sum += (low_of(a.pairs[i]) - left) * low_of(b.pairs[i]) + (high_of(a.pairs[i]) - right) * high_of(b.pairs[i]);
            }
        }
#pragma unroll
    for (int m = 1; m < LANES; m *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, m);
    if (t == 0) {
        lse[r] = n < N ? log_sum[n] * LOG2E : 1e30f;  // 2^(s - 1e30) = 0: a row beyond the end
        lse[TILE + r] = sum;
    }
}

// s (16 HIGH keys x SUB queries) = the warp's rows of a tile times SUB rows of another, transposed.
__device__ __forceinline__ void products(float (&s)[HIGH][SUB / 8][4], const bf16* own, const bf16* rows) {
#pragma unroll
    for (int h = 0; h < HIGH; h++)
#pragma unroll
        for (int j = 0; j < SUB / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) s[h][j][i] = 0;
#pragma unroll
    for (int k = 0; k < SLICES; k++) {
        unsigned a[HIGH][4], b[4];
#pragma unroll
        for (int h = 0; h < HIGH; h++) ldmatrix(a[h], along(own, PITCH) + 16 * h * PITCH + 16 * k);
#pragma unroll
        for (int j = 0; j < SUB / 8; j += 2) {
            ldmatrix(b, across(rows, PITCH) + 8 * j * PITCH + 16 * k);
            two(s, j, a, b);
        }
    }
}

// The warp's part of a tile's S̄ᵀ into shared memory, and what it adds to k̄ and v̄. first: the warp's first key.
__device__ __forceinline__ void keys_share(bf16* memory, bf16* turn, int first, int N, float c, float (&k_bar)[HIGH][STRIPS][4],
                                           float (&v_bar)[HIGH][STRIPS][4]) {
    int own = threadIdx.x / 32 * 16 * HIGH, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll 1
    for (int r = 0; r < TILE; r += SUB) {
        float s[HIGH][SUB / 8][4], s_bar[HIGH][SUB / 8][4];
        products(s, memory + K + own * PITCH, turn + Q + r * PITCH);
        products(s_bar, memory + V + own * PITCH, turn + BAR + r * PITCH);
#pragma unroll
        for (int j = 0; j < SUB / 8; j++) {
            const float *lse = reinterpret_cast<const float*>(turn + SUMS) + r + 8 * j + 2 * t, *delta = lse + TILE;
#pragma unroll
            for (int h = 0; h < HIGH; h++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    s[h][j][i] = exp2_of(s[h][j][i] * c - lse[i % 2]);
                    if (first + 16 * h + i / 2 * 8 + g >= N) s[h][j][i] = 0;
                    s_bar[h][j][i] = s[h][j][i] * (s_bar[h][j][i] - delta[i % 2]);
                }
        }
#pragma unroll
        for (int i = 0; i < SUB / 16; i++) {
            unsigned a[HIGH][4];
            packed(a, s, i);
            accumulate(v_bar, a, along(turn + BAR + (r + 16 * i) * PITCH, PITCH));
            packed(a, s_bar, i);
            accumulate(k_bar, a, along(turn + Q + (r + 16 * i) * PITCH, PITCH));
#pragma unroll
            for (int h = 0; h < HIGH; h++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int key = own + 16 * h + e % 2 * 8 + g, query = r + 16 * i + e / 2 * 8 + 2 * t;
                    *reinterpret_cast<unsigned*>(turn + S_BAR + key * ACROSS + query) = a[h][e];
                }
        }
    }
}

// 16 rows of a tile's q̄ by SHARES warps, summed over the block's keys, of which `count` are there.
__device__ __forceinline__ void queries_share(const bf16* memory, const bf16* turn, int count, float (&sum)[1][SHARE][4]) {
    int strip = threadIdx.x / 32 % 4, column = threadIdx.x / 128 * SHARE * 8;
    const bf16 *a_at = across(turn + S_BAR + 16 * strip, ACROSS), *b_at = along(memory + K + column, PITCH);
#pragma unroll 4
    for (int k = 0; k < count; k += 16) {
        unsigned a[4], b[4];
        ldmatrix_transposed(a, a_at + k * ACROSS);
#pragma unroll
        for (int j = 0; j < SHARE; j += 2) {
            ldmatrix_transposed(b, b_at + k * PITCH + 8 * j);
            const unsigned left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
            mma_m16n8k16_bf16(sum[0][j], a, left);
            if (j + 1 < SHARE) mma_m16n8k16_bf16(sum[0][j + 1], a, right);
        }
    }
}

// partial: null, or (blocks of keys, B · heads, N, HEAD). Grid: (N / KEYS, B · heads).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_bf16_backward(const bf16* qkv, const float* bias, const bf16* y, const bf16* y_bar, const float* log_sum, bf16* qkv_bar,
                            float* partial, int N, int heads, float scale) {
    DYNAMIC_SHARED(bf16, memory);
    int b = blockIdx.y / heads, h = blockIdx.y % heads, block = blockIdx.x * KEYS, own = threadIdx.x / 32 * 16 * HIGH;
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, strip = threadIdx.x / 32 % 4 * 16, column = threadIdx.x / 128 * SHARE * 8;
    Rows q = part_of(qkv, nullptr, 0, b, h, N, heads), bar = head_of(y_bar, b, h, N, heads), values = head_of(y, b, h, N, heads);
    Rows q_bar = part_of(qkv_bar, nullptr, 0, b, h, N, heads);
    if (bias) values.bias = bias + (2 * heads + h) * HEAD;
    log_sum += (size_t)blockIdx.y * N;
    if (partial) partial += ((size_t)blockIdx.x * gridDim.y + blockIdx.y) * N * HEAD;
    fetch<KEYS, THREADS>(memory + K, part_of(qkv, nullptr, 1, b, h, N, heads), block, N);
    fetch<KEYS, THREADS>(memory + V, part_of(qkv, nullptr, 2, b, h, N, heads), block, N);
    auto begin = [&](bf16* turn, int n) {  // a tile of queries is on its way
        fetch<TILE, THREADS>(turn + Q, q, n, N);
        fetch<TILE, THREADS>(turn + BAR, bar, n, N);
        row_sums(reinterpret_cast<float*>(turn + SUMS), values, bar, log_sum, n, N);
    };
    begin(memory + TURNS, 0);
    float k_bar[HIGH][STRIPS][4] = {}, v_bar[HIGH][STRIPS][4] = {};
    for (int n = 0; n < N + TILE; n += TILE) {
        bf16 *turn = memory + TURNS + n / TILE % 2 * TURN, *other = memory + TURNS + (n / TILE + 1) % 2 * TURN;
        copies_arrived();
        __syncthreads();  // this tile is there, S̄ of the one before is written, and nobody reads the one before that
        if (n + TILE < N) begin(other, n + TILE);
        if (n > 0) {
            float sum[1][SHARE][4] = {};
            queries_share(memory, other, min(KEYS, N - block), sum);
#pragma unroll
            for (int j = 0; j < SHARE; j++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int row = n - TILE + strip + 8 * i + g, at = column + 8 * j + 2 * t;
                    if (row >= N || column + 8 * j >= HEAD) continue;
                    float left = sum[0][j][2 * i] * scale, right = sum[0][j][2 * i + 1] * scale;
                    if (partial) {
                        partial[(size_t)row * HEAD + at] = left;
                        partial[(size_t)row * HEAD + at + 1] = right;
                    } else {
                        *reinterpret_cast<unsigned*>(const_cast<bf16*>(q_bar.p) + row * q_bar.pitch + at) = bf16x2_of(left, right);
                    }
                }
        }
        if (n < N && block + own < N) keys_share(memory, turn, block + own, N, scale * LOG2E, k_bar, v_bar);
    }
    __syncthreads();
    float factor[HIGH][2], one[HIGH][2];
#pragma unroll
    for (int i = 0; i < HIGH * 2; i++) factor[i / 2][i % 2] = scale, one[i / 2][i % 2] = 1;
    put_rows(k_bar, factor, nullptr, memory + K + own * PITCH, part_of(qkv_bar, nullptr, 1, b, h, N, heads), block + own, N);
    put_rows(v_bar, one, nullptr, memory + V + own * PITCH, part_of(qkv_bar, nullptr, 2, b, h, N, heads), block + own, N);
}

// q̄ = the sum of `parts` parts, (parts, B · heads, N, HEAD). Grid: (N · HEAD / 8 / 128, B · heads).
extern "C" __global__ void __launch_bounds__(128)
    attention_bf16_parts(const float* partial, bf16* qkv_bar, int parts, int N, int heads) {
    int i = blockIdx.x * 128 + threadIdx.x, n = i / STRIPS, c = i % STRIPS * 8;
    if (n >= N) return;
    Rows q_bar = part_of(qkv_bar, nullptr, 0, blockIdx.y / heads, blockIdx.y % heads, N, heads);
    float sum[8] = {};
    for (int p = 0; p < parts; p++) {
        const float* x = partial + (((size_t)p * gridDim.y + blockIdx.y) * N + n) * HEAD + c;
#pragma unroll
        for (int k = 0; k < 8; k++) sum[k] += x[k];
    }
    Piece out;
#pragma unroll
    for (int k = 0; k < 4; k++) out.pairs[k] = bf16x2_of(sum[2 * k], sum[2 * k + 1]);
    *reinterpret_cast<Piece*>(const_cast<bf16*>(q_bar.p) + n * q_bar.pitch + c) = out;
}

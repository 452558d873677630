// The adjoint (A.19) of attention_bf16.cu by five products: logits and P̄ are computed once, by the block that owns the keys.
//
//     Pᵀ = 2^(k qᵀ c - lse)    S̄ᵀ = Pᵀ ⊙ (v ȳᵀ - δ)    v̄ += Pᵀ ȳ    k̄ += S̄ᵀ q    q̄ = S̄ k        δ = Σ ȳ ⊙ (y - bias of v)
//
// A warp owns 16 HIGH keys and their k̄ and v̄; the block goes through the queries, TILE at a time. S̄ᵀ goes to shared memory, where
// all warps take it to sum q̄ over the block's keys in their order. Where there are more keys than one block owns, the parts of q̄ go
// to memory as float32 and are added up by a second kernel: no sum depends on the order of blocks.
#include "tiles.h"

#ifndef WARPS
#define WARPS 8
#endif
#ifndef TILE
#define TILE 64  // or 128, of eight warps
#endif

constexpr int THREADS = 32 * WARPS, KEYS = 16 * HIGH * WARPS;
constexpr int SUB = HEAD <= (HIGH == 2 ? 64 - 8 * MASK : 112) ? 32 : 16;  // queries of which a warp holds logits
constexpr int SHARES = WARPS / 4;                              // warps that share the same rows of q̄
constexpr int TALL = TILE / 64;                                // strips of 16 of those rows
constexpr int SHARE = (STRIPS + SHARES - 1) / SHARES;          // strips of 8 of their columns, of each warp
constexpr int GROUP = SHARE > 9 || SHARE * TALL > 10 ? 4 : SHARE;  // of which it has registers for so many
constexpr int ACROSS = TILE + 8;                               // the pitch of S̄ᵀ
constexpr int AHEAD = THREADS / TILE;                          // threads that ask for a row of y before it is needed

// Shared memory: the block's keys and values, S̄ᵀ, then twice, for tiles in turn: queries, ȳ, lse and -δ.
constexpr int K = 0, V = KEYS * PITCH, S_BAR = 2 * KEYS * PITCH, TURNS = S_BAR + KEYS * ACROSS;
constexpr int Q = 0, BAR = TILE * PITCH, SUMS = 2 * TILE * PITCH, TURN = SUMS + 4 * TILE;

// lse (in powers of two) and -δ of a tile's rows, LANES lanes per row.
__device__ __forceinline__ void row_sums(float* to, Rows y, Rows y_bar, const float* log_sum, int first, int N) {
    constexpr int LANES = THREADS / 64;
    const int thread = thread_here(), t = thread % LANES;
    float delta[TALL] = {};
    const bf16 *y_at[TALL], *bar_at[TALL];
#pragma unroll
    for (int u = 0; u < TALL; u++) {
        int n = min(first + thread / LANES + 64 * u, N - 1) * (int)y.pitch + 8 * t;
        y_at[u] = y.p + n, bar_at[u] = y_bar.p + n;
    }
#pragma unroll
    for (int c = 0; c < HEAD; c += 8 * LANES) {
        if (c + 8 * LANES > HEAD && c + 8 * t >= HEAD) break;
        Two add[4] = {};
#pragma unroll
        for (int k = 0; k < 4 && y.bias; k++) add[k] = two_of(y.bias + c + 8 * t + 2 * k);
#pragma unroll
        for (int u = 0; u < TALL; u++) {
            Piece a = *reinterpret_cast<const Piece*>(y_at[u] + c), b = *reinterpret_cast<const Piece*>(bar_at[u] + c);
#pragma unroll
            for (int k = 0; k < 4; k++)
                delta[u] += (low_of(a.pairs[k]) - add[k].x) * low_of(b.pairs[k]) + (high_of(a.pairs[k]) - add[k].y) * high_of(b.pairs[k]);
        }
    }
#pragma unroll
    for (int u = 0; u < TALL; u++) {
#pragma unroll
        for (int m = 1; m < LANES; m *= 2) delta[u] += __shfl_xor_sync(0xffffffffu, delta[u], m);
        int r = thread / LANES + 64 * u;
        if (t) continue;
        to[r] = first + r < N ? log_sum[first + r] * LOG2E : 1e30f;  // 2^(s - 1e30) = 0: a row beyond the end
        to[TILE + r] = -delta[u];
    }
}

// s (16 HIGH keys x SUB queries) += the warp's rows of a tile times SUB rows of another, transposed.
__device__ __forceinline__ void products(float (&s)[HIGH][SUB / 8][4], const bf16* own, const bf16* rows) {
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

struct Mask {  // of one head
    const float* p;
    int row;
};

// The warp's part of a tile's S̄ᵀ into shared memory, zero beyond key M, and what it adds to k̄ and v̄, of which nobody reads what is
// beyond. first: the warp's first key, n: the tile's first query.
__device__ __forceinline__ void keys_share(bf16* memory, const bf16* turn, int first, int M, int n, int N, Mask mask,
                                           Tiles forbidden, float c, float (&k_bar)[HIGH][STRIPS][4],
                                           float (&v_bar)[HIGH][STRIPS][4]) {
    int own = threadIdx.x / 32 * 16 * HIGH, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll 1
    for (int r = 0; r < min(TILE, N - n); r += SUB) {
        if (forbidden.dead(n + r, first)) continue;
        float s[HIGH][SUB / 8][4] = {}, s_bar[HIGH][SUB / 8][4];
        const float* lse = reinterpret_cast<const float*>(turn + SUMS) + r + 2 * t;
#pragma unroll
        for (int j = 0; j < SUB / 8; j++) {
            Two minus = two_of(lse + TILE + 8 * j);
#pragma unroll
            for (int i = 0; i < HIGH * 4; i++) s_bar[i / 4][j][i % 4] = i % 2 ? minus.y : minus.x;
        }
        products(s, memory + K + own * PITCH, turn + Q + r * PITCH);
        products(s_bar, memory + V + own * PITCH, turn + BAR + r * PITCH);
#pragma unroll
        for (int j = 0; j < SUB / 8; j++) {
            Two less = two_of(lse + 8 * j);
#pragma unroll
            for (int i = 0; i < HIGH * 4; i++) {
                float& p = s[i / 4][j][i % 4];
                float shift = -(i % 2 ? less.y : less.x);
#if MASK
                int key = first + i / 2 * 8 + g, query = n + r + 8 * j + 2 * t + i % 2;
                if (query < N && key < M) shift += mask.p[(size_t)query * mask.row + key] * LOG2E;
#endif
                p = exp2_of(p * c + shift);
                s_bar[i / 4][j][i % 4] *= p;
            }
        }
        if (M - first < 16 * HIGH) {
#pragma unroll
            for (int i = 0; i < HIGH * SUB / 2; i++)
                if (first + i / (SUB / 2) * 16 + i % 4 / 2 * 8 + g >= M) s_bar[i / (SUB / 2)][i / 4 % (SUB / 8)][i % 4] = 0;
        }
#pragma unroll
        for (int i = 0; i < SUB / 16; i++) {
            unsigned a[HIGH][4];
            packed(a, s, i);
            accumulate(v_bar, a, along(turn + BAR + (r + 16 * i) * PITCH, PITCH));
            packed(a, s_bar, i);
            accumulate(k_bar, a, along(turn + Q + (r + 16 * i) * PITCH, PITCH));
#pragma unroll
            for (int e = 0; e < HIGH * 4; e++) {
                int key = own + e / 4 * 16 + e % 2 * 8 + g, query = r + 16 * i + e % 4 / 2 * 8 + 2 * t;
                *reinterpret_cast<unsigned*>(memory + S_BAR + key * ACROSS + query) = a[e / 4][e % 4];
            }
        }
    }
}

// The warp's part of q̄ of the tile that starts at row n: 16 TALL rows and SHARE strips, GROUP at a time, summed over the block's
// keys, of which `count` are there, from `block` on.
__device__ __forceinline__ void queries_share(const bf16* memory, int count, float scale, float* partial, Rows q_bar, int n, int N,
                                              Tiles forbidden, int block) {
    const int thread = thread_here(), strip = thread / 32 % 4 * 16 * TALL, g = thread % 32 / 4, t = thread % 4;
    if (n + strip >= N) return;
#pragma unroll 1
    for (int column = thread / 128 * SHARE * 8, end = column + SHARE * 8; column < end; column += GROUP * 8) {
        const bf16 *a_at = across(memory + S_BAR + strip, ACROSS, thread), *b_at = along(memory + K + column, PITCH, thread);
        float sum[TALL][GROUP][4] = {};
#pragma unroll 1
        for (int k = 0; k < count; k += 16 * HIGH, a_at += 16 * HIGH * ACROSS, b_at += 16 * HIGH * PITCH) {
            if (forbidden.dead(n + strip, block + k)) continue;
#pragma unroll
            for (int h = 0; h < HIGH; h++) {
                unsigned a[TALL][4], b[4];
#pragma unroll
                for (int u = 0; u < TALL; u++) ldmatrix_transposed(a[u], a_at + 16 * h * ACROSS + 16 * u);
#pragma unroll
                for (int j = 0; j < GROUP; j += 2) {
                    ldmatrix_transposed(b, b_at + 16 * h * PITCH + 8 * j);
                    const unsigned left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
                    for (int u = 0; u < TALL; u++) {
                        mma_m16n8k16_bf16(sum[u][j], a[u], left);
                        if (j + 1 < GROUP) mma_m16n8k16_bf16(sum[u][j + 1], a[u], right);
                    }
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 2 * TALL; i++) {
            int row = n + strip + 8 * i + g;
            if (row >= N) break;
            float* part = partial + row * HEAD + column + 2 * t;
            bf16* whole = const_cast<bf16*>(q_bar.p) + row * (int)q_bar.pitch + column + 2 * t;
#pragma unroll
            for (int j = 0; j < GROUP; j++) {
                if (column + 8 * j >= HEAD) break;
                float left = sum[i / 2][j][i % 2 * 2] * scale, right = sum[i / 2][j][i % 2 * 2 + 1] * scale;
                if (partial)
                    *reinterpret_cast<Two*>(part + 8 * j) = Two{left, right};
                else
                    *reinterpret_cast<unsigned*>(whole + 8 * j) = bf16x2_of(left, right);
            }
        }
    }
}

// to[c] += the sum of `count` rows over what this thread has of them, 8 columns; to: (THREADS / STRIPS, HEAD)
__device__ __forceinline__ void sum_rows(const bf16* rows, int pitch, int count, float* to) {
    constexpr int TOGETHER = THREADS / STRIPS;
    int c = threadIdx.x % STRIPS * 8, first = threadIdx.x / STRIPS;
    if (first >= TOGETHER) return;
    Two sum[4] = {};
#pragma unroll 4
    for (int n = first; n < count; n += TOGETHER) {
        Piece piece = *reinterpret_cast<const Piece*>(rows + n * pitch + c);
#pragma unroll
        for (int k = 0; k < 4; k++) sum[k].x += low_of(piece.pairs[k]), sum[k].y += high_of(piece.pairs[k]);
    }
#pragma unroll
    for (int k = 0; k < 4; k++) *reinterpret_cast<Two*>(to + first * HEAD + c + 2 * k) = sum[k];
}

// q, k, v, bias, mask: as in attention_bf16.cu. q_bar; k_bar and v_bar: with strides of their own. partial: null, or
// (blocks of keys, B · heads, N, HEAD). sums_bar: null, or (B, 3, heads, HEAD), the sums over the rows of q_bar and v_bar, where one
// block owns all keys; that of k_bar is 0. Grid: (M / KEYS, B · heads).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_bf16_backward(const bf16* q, const bf16* k, const bf16* v, const float* bias, const float* mask,
                            const unsigned char* dead, const bf16* y, const bf16* y_bar, const float* log_sum, bf16* q_bar,
                            bf16* k_bar, bf16* v_bar, float* partial, float* sums_bar, int N, int M, int heads, int q_batch, int q_row,
                            int k_batch, int k_row, int v_batch, int v_row, int mask_batch, int mask_head, int mask_row,
                            int dead_batch, int dead_head, int asking_batch, int asking_row, int asked_batch, int asked_row,
                            float scale) {
    DYNAMIC_SHARED(bf16, memory);
    int b = blockIdx.y / heads, h = blockIdx.y % heads, block = blockIdx.x * KEYS, own = threadIdx.x / 32 * 16 * HIGH;
    Rows asking = rows_at(q, q_batch, q_row, b, h), bar = head_of(y_bar, b, h, N, heads), values = head_of(y, b, h, N, heads);
    Rows asking_bar = rows_at(q_bar, asking_batch, asking_row, b, h);
    if (bias) asking.bias = bias + h * HEAD, values.bias = bias + (2 * heads + h) * HEAD;
    const Tiles forbidden = {dead ? dead + b * dead_batch + h * dead_head : nullptr, N, M};
    log_sum += (size_t)blockIdx.y * N;
    if (partial) partial += ((size_t)blockIdx.x * gridDim.y + blockIdx.y) * N * HEAD;
    fetch<KEYS, THREADS>(memory + K, rows_at(k, k_batch, k_row, b, h), block, M);
    fetch<KEYS, THREADS>(memory + V, rows_at(v, v_batch, v_row, b, h), block, M);
    bf16* turn = memory + TURNS;
    fetch<TILE, THREADS>(turn + Q, asking, 0, N);
    fetch<TILE, THREADS>(turn + BAR, bar, 0, N);
    row_sums(reinterpret_cast<float*>(turn + SUMS), values, bar, log_sum, 0, N);
    float k_sum[HIGH][STRIPS][4] = {}, v_sum[HIGH][STRIPS][4] = {};
    for (int n = 0; n < N; n += TILE) {
        bf16* other = memory + TURNS + (n / TILE + 1) % 2 * TURN;
        copies_arrived();
        if (asking.bias) add_to_fetched<TILE, THREADS>(turn + Q, asking.bias);
        __syncthreads();  // this tile is there; nobody reads the one before that, nor S̄ of the one before
        if (n + TILE < N) {
            const int i = thread_here();
            fetch<TILE, THREADS>(other + Q, asking, n + TILE, N, i);
            fetch<TILE, THREADS>(other + BAR, bar, n + TILE, N, i);
            int row = min(n + TILE + i / AHEAD, N - 1) * (int)values.pitch;
            fetch_ahead(values.p + row + i % AHEAD * HEAD / AHEAD);
        }
        Mask here = {MASK ? mask + (size_t)b * mask_batch + (size_t)h * mask_head : nullptr, mask_row};
        if (block + own < M) keys_share(memory, turn, block + own, M, n, N, here, forbidden, scale * LOG2E, k_sum, v_sum);
        __syncthreads();  // S̄ is written
        queries_share(memory, min(KEYS, M - block), scale, partial, asking_bar, n, N, forbidden, block);
        if (n + TILE < N) row_sums(reinterpret_cast<float*>(other + SUMS), values, bar, log_sum, n + TILE, N);
        turn = other;
    }
    __syncthreads();
    float factor[HIGH][2], one[HIGH][2];
#pragma unroll
    for (int i = 0; i < HIGH * 2; i++) factor[i / 2][i % 2] = scale, one[i / 2][i % 2] = 1;
    rounded(memory + K + own * PITCH, k_sum, factor, nullptr);
    rounded(memory + V + own * PITCH, v_sum, one, nullptr);
    put_rows(memory + K + own * PITCH, rows_at(k_bar, asked_batch, asked_row, b, h), block + own, M);
    put_rows(memory + V + own * PITCH, rows_at(v_bar, asked_batch, asked_row, b, h), block + own, M);
    if (!sums_bar) return;
    __syncthreads();  // v̄ is there, and nobody reads a tile
    float* free = reinterpret_cast<float*>(memory + S_BAR);
    sum_rows(asking_bar.p, asking_row, N, free);
    sum_rows(memory + V, PITCH, M, free + 8 * THREADS);
    __syncthreads();
    for (int c = threadIdx.x; c < 2 * HEAD; c += THREADS) {
        float total = 0;
        for (int n = 0; n < THREADS / STRIPS; n++) total += free[(c < HEAD ? c : 8 * THREADS + c - HEAD) + n * HEAD];
        sums_bar[((size_t)b * 3 * heads + h) * HEAD + (c < HEAD ? c : 2 * heads * HEAD + c - HEAD)] = total;
    }
}

// q̄ = the sum of `parts` parts, (parts, B · heads, N, HEAD). Grid: (N · HEAD / 8 / 128, B · heads).
extern "C" __global__ void __launch_bounds__(128)
    attention_bf16_parts(const float* partial, bf16* q_bar, int parts, int N, int heads, int batch, int row) {
    int i = blockIdx.x * 128 + threadIdx.x, n = i / STRIPS, c = i % STRIPS * 8;
    if (n >= N) return;
    Rows rows = rows_at(q_bar, batch, row, blockIdx.y / heads, blockIdx.y % heads);
    Two sum[4] = {};
    for (int p = 0; p < parts; p++) {
        const float* x = partial + (((size_t)p * gridDim.y + blockIdx.y) * N + n) * HEAD + c;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            Two add = two_of(x + 2 * k);
            sum[k].x += add.x, sum[k].y += add.y;
        }
    }
    Piece out;
#pragma unroll
    for (int k = 0; k < 4; k++) out.pairs[k] = bf16x2_of(sum[k].x, sum[k].y);
    *reinterpret_cast<Piece*>(const_cast<bf16*>(rows.p) + n * (int)rows.pitch + c) = out;
}

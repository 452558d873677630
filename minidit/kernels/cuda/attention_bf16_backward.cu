// The adjoint (A.19) of attention_bf16.cu by five products: logits and P̄ are computed once, by the block that owns the keys.
//
//     Pᵀ = 2^(k qᵀ c - lse)    S̄ᵀ = Pᵀ ⊙ (v ȳᵀ - δ)    v̄ += Pᵀ ȳ    k̄ += S̄ᵀ q    q̄ = S̄ k        δ = Σ ȳ ⊙ (y - bias of v)
//
// A warp owns 16 HIGH keys and their k̄ and v̄; the block goes through the queries, TILE at a time. S̄ᵀ goes to shared memory, where
// all warps take it, one tile later, to sum q̄ over the block's keys in their order. Where there are more keys than one block owns,
// the parts of q̄ go to memory as float32 and are added up by a second kernel: no sum depends on the order of blocks.
#include "tiles.h"

#ifndef WARPS
#define WARPS 8
#endif

constexpr int THREADS = 32 * WARPS, KEYS = 16 * HIGH * WARPS, TILE = 64;
constexpr int SUB = HEAD <= (HIGH == 2 ? 64 : 112) ? 32 : 16;             // queries of which a warp holds logits
constexpr int SHARES = WARPS / 4;                         // warps that share 16 rows of q̄
constexpr int SHARE = (STRIPS + SHARES - 1) / SHARES;     // strips of each
constexpr int GROUP = SHARE > 9 ? 4 : SHARE;                           // strips of q̄ for which a warp has registers
constexpr int ACROSS = TILE + 8;                                       // the pitch of S̄ᵀ

// Shared memory: the block's keys and values, then twice, for tiles in turn: queries, ȳ, S̄ᵀ, lse and δ.
constexpr int K = 0, V = KEYS * PITCH, TURNS = 2 * KEYS * PITCH;
constexpr int Q = 0, BAR = TILE * PITCH, S_BAR = 2 * TILE * PITCH, SUMS = S_BAR + KEYS * ACROSS, TURN = SUMS + 4 * TILE;

// lse (in powers of two) and δ of a tile's rows, LANES lanes per row. Between `begin` and `end` the numbers are on their way.
struct RowSums {
    static constexpr int LANES = THREADS / TILE, PIECES = (STRIPS + LANES - 1) / LANES;
    Piece y[PIECES], bar[PIECES];
    float lse;

    __device__ __forceinline__ void begin(Rows from, Rows bar_from, const float* log_sum, int first, int N) {
        int n = min(first + (int)threadIdx.x / LANES, N - 1), at = n * (int)from.pitch + threadIdx.x % LANES * 8;
        lse = log_sum[n];
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            y[i] = bar[i] = Piece{};
            if ((i + 1) * LANES > STRIPS && i * LANES + threadIdx.x % LANES >= STRIPS) break;
            y[i] = *reinterpret_cast<const Piece*>(from.p + at + 8 * LANES * i);
            bar[i] = *reinterpret_cast<const Piece*>(bar_from.p + at + 8 * LANES * i);
        }
    }

    __device__ __forceinline__ void end(float* to, const float* bias, int first, int N) {
        int r = threadIdx.x / LANES, t = threadIdx.x % LANES;
        float delta = 0;
#pragma unroll
        for (int i = 0; i < PIECES * 4; i++) {
            unsigned a = y[i / 4].pairs[i % 4], b = bar[i / 4].pairs[i % 4];
            Two add = {0, 0};
            int c = (i / 4 * LANES + t) * 8 + i % 4 * 2;
            if (bias && c < HEAD) add = two_of(bias + c);
            delta += (low_of(a) - add.x) * low_of(b) + (high_of(a) - add.y) * high_of(b);
        }
#pragma unroll
        for (int m = 1; m < LANES; m *= 2) delta += __shfl_xor_sync(0xffffffffu, delta, m);
        if (t == 0) {
            to[r] = first + r < N ? lse * LOG2E : 1e30f;  // 2^(s - 1e30) = 0: a row beyond the end
            to[TILE + r] = first + r < N ? delta : 0;
        }
    }
};

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

struct Mask {  // of one head, for the queries from `first` on
    const float* p;
    int row, first, N;
    float unscale;
};

// The warp's part of a tile's S̄ᵀ into shared memory, zero beyond key M, and what it adds to k̄ and v̄, of which nobody reads what is
// beyond. first: the warp's first key.
__device__ __forceinline__ void keys_share(bf16* memory, bf16* turn, int first, int M, Mask mask, float c,
                                           float (&k_bar)[HIGH][STRIPS][4],
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
#if MASK
                    int key = first + 16 * h + i / 2 * 8 + g, query = mask.first + r + 8 * j + 2 * t + i % 2;
                    if (query < mask.N && key < M) s[h][j][i] += mask.p[(size_t)query * mask.row + key] * mask.unscale;
#endif
                    s[h][j][i] = exp2_of(s[h][j][i] * c - lse[i % 2]);
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
                    *reinterpret_cast<unsigned*>(turn + S_BAR + key * ACROSS + query) = key - own < M - first ? a[h][e] : 0;
                }
        }
    }
}

// The warp's part of q̄ of the tile that starts at row n: 16 rows and SHARE strips, GROUP at a time, summed over the block's keys,
// of which `count` are there, from `block` on.
__device__ __forceinline__ void queries_share(const bf16* memory, const bf16* turn, int count, float scale, float* partial,
                                              Rows q_bar, int n, int N, Tiles forbidden, int block) {
    int strip = threadIdx.x / 32 % 4 * 16, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const bf16* a_at = across(turn + S_BAR + strip, ACROSS);
#pragma unroll 1
    for (int column = threadIdx.x / 128 * SHARE * 8, end = column + SHARE * 8; column < end; column += GROUP * 8) {
        const bf16* b_at = along(memory + K + column, PITCH);
        float sum[GROUP][4] = {};
#pragma unroll 4
        for (int k = 0; k < count; k += 16) {
            if (forbidden.dead(n, block + k)) continue;
            unsigned a[4], b[4];
            ldmatrix_transposed(a, a_at + k * ACROSS);
#pragma unroll
            for (int j = 0; j < GROUP; j += 2) {
                ldmatrix_transposed(b, b_at + k * PITCH + 8 * j);
                const unsigned left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
                mma_m16n8k16_bf16(sum[j], a, left);
                if (j + 1 < GROUP) mma_m16n8k16_bf16(sum[j + 1], a, right);
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = n + strip + 8 * i + g;
            if (row >= N) break;
#pragma unroll
            for (int j = 0; j < GROUP; j++) {
                int at = column + 8 * j + 2 * t;
                float left = sum[j][2 * i] * scale, right = sum[j][2 * i + 1] * scale;
                if (at >= HEAD) break;
                if (partial)
                    *reinterpret_cast<Two*>(partial + row * HEAD + at) = Two{left, right};
                else
                    *reinterpret_cast<unsigned*>(const_cast<bf16*>(q_bar.p) + row * (int)q_bar.pitch + at) =
                        bf16x2_of(left, right);
            }
        }
    }
}

// to[c] = the sum of `count` rows, 16 bytes per thread. memory: 8 THREADS floats, which nobody else uses
__device__ __forceinline__ void sum_rows(const bf16* rows, int pitch, int count, float* memory, float* to) {
    constexpr int TOGETHER = THREADS / STRIPS;
    int c = threadIdx.x % STRIPS * 8, first = threadIdx.x / STRIPS;
    Two sum[4] = {};
    if (first < TOGETHER) {
#pragma unroll 4
        for (int n = first; n < count; n += TOGETHER) {
            Piece piece = *reinterpret_cast<const Piece*>(rows + n * pitch + c);
#pragma unroll
            for (int k = 0; k < 4; k++) sum[k].x += low_of(piece.pairs[k]), sum[k].y += high_of(piece.pairs[k]);
        }
#pragma unroll
        for (int k = 0; k < 4; k++) *reinterpret_cast<Two*>(memory + first * HEAD + c + 2 * k) = sum[k];
    }
    __syncthreads();
    if (threadIdx.x >= HEAD) return;
    float total = 0;
    for (int n = 0; n < TOGETHER; n++) total += memory[n * HEAD + threadIdx.x];
    to[threadIdx.x] = total;
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
    RowSums sums;
    auto begin = [&](bf16* turn, int n) {  // a tile of queries is on its way
        fetch<TILE, THREADS>(turn + Q, asking, n, N);
        fetch<TILE, THREADS>(turn + BAR, bar, n, N);
        sums.begin(values, bar, log_sum, n, N);
    };
    begin(memory + TURNS, 0);
    sums.end(reinterpret_cast<float*>(memory + TURNS + SUMS), values.bias, 0, N);
    float k_sum[HIGH][STRIPS][4] = {}, v_sum[HIGH][STRIPS][4] = {};
    for (int n = 0; n < N + TILE; n += TILE) {
        bf16 *turn = memory + TURNS + n / TILE % 2 * TURN, *other = memory + TURNS + (n / TILE + 1) % 2 * TURN;
        copies_arrived();
        if (asking.bias && n < N) add_to_fetched<TILE, THREADS>(turn + Q, asking.bias);
        __syncthreads();  // this tile is there, S̄ of the one before is written, and nobody reads the one before that
        if (n + TILE < N) begin(other, n + TILE);
        if (n > 0) queries_share(memory, other, min(KEYS, M - block), scale, partial, asking_bar, n - TILE, N, forbidden, block);
        if (n + TILE < N) sums.end(reinterpret_cast<float*>(other + SUMS), values.bias, n + TILE, N);
        if (n < N && block + own < M && !forbidden.dead(n, block + own)) {
            Mask here = {MASK ? mask + (size_t)b * mask_batch + (size_t)h * mask_head : nullptr, mask_row, n, N, 1 / scale};
            keys_share(memory, turn, block + own, M, here, scale * LOG2E, k_sum, v_sum);
        }
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
    float *free = reinterpret_cast<float*>(memory + TURNS), *to = sums_bar + ((size_t)b * 3 * heads + h) * HEAD;
    sum_rows(asking_bar.p, asking_row, N, free, to);
    sum_rows(memory + V, PITCH, M, free + 8 * THREADS, to + 2 * heads * HEAD);
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

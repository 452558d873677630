// Tiles of bf16 in shared memory, for tensor cores: there by asynchronous copies, from there by ldmatrix.
//
// A row is PITCH numbers long, an odd number of 16-byte pieces: the eight rows of a matrix lie in different banks. Columns from
// HEAD, a multiple of 8, up to WIDTH are zero. HIGH strips of 16 rows belong to a warp: a fragment of the other side serves all.
#pragma once
#undef STORAGE
#define STORAGE bf16
#include "heads.h"

#ifndef HIGH
#define HIGH 2
#endif
#ifndef MASK
#define MASK 0  // 1: numbers that are added to the logits
#endif

constexpr int WIDTH = (HEAD + 15) / 16 * 16, PITCH = WIDTH + 8;
constexpr int SLICES = WIDTH / 16;  // of a sum over the head's width
constexpr int STRIPS = HEAD / 8;    // of an accumulator as wide as a head
constexpr float LOG2E = 1.44269504f;

struct alignas(16) Piece {
    unsigned pairs[4];
};
struct alignas(8) Two {
    float x, y;
};
__device__ __forceinline__ Two two_of(const float* p) { return *reinterpret_cast<const Two*>(p); }

// Which tiles of a mask forbid everything: flags[tile of 64 queries][tile of 32 keys]. They are not computed.
enum { FLAG_ROWS = 64, FLAG_COLUMNS = 32 };

struct Tiles {
    const unsigned char* flags;  // of one head
    int N, M;

    __device__ __forceinline__ bool dead(int n, int m) const {
        return MASK && flags[n / FLAG_ROWS * ((M + FLAG_COLUMNS - 1) / FLAG_COLUMNS) + m / FLAG_COLUMNS];
    }
    // The first m, by steps of `wide` keys, at which one of `tall` queries from n on may look at a key; or beyond M.
    __device__ __forceinline__ int first_alive(int n, int tall, int m, int wide) const {
        if (!MASK) return m;
        for (; m < M; m += wide)
            for (int i = n; i < min(n + tall, N); i += FLAG_ROWS)
                for (int j = m; j < min(m + wide, M); j += FLAG_COLUMNS)
                    if (!dead(i, j)) return m;
        return m;
    }
};

// The element of a tile that lane l names for ldmatrix. `along`: an a, or transposed the b of a plain tile, 16 x 16.
// `across`: the b of a transposed tile, or transposed an a of a transposed tile.
__device__ __forceinline__ const bf16* along(const bf16* tile, int pitch, unsigned thread = threadIdx.x) {
    return tile + thread % 16 * pitch + thread % 32 / 16 * 8;
}
__device__ __forceinline__ const bf16* across(const bf16* tile, int pitch, unsigned thread = threadIdx.x) {
    return tile + (thread % 8 + thread % 32 / 16 * 8) * pitch + thread / 8 % 2 * 8;
}

// Rows first .. first + COUNT - 1 on their way into shared memory; beyond N, and beyond HEAD, zeros.
template <int COUNT, int THREADS>
__device__ __forceinline__ void fetch(bf16* tile, Rows rows, int first, int N, int thread = threadIdx.x) {
    constexpr int PIECES = COUNT * (WIDTH / 8);
#pragma unroll
    for (int at = 0; at < PIECES; at += THREADS) {
        int i = at + thread, n = i / (WIDTH / 8), c = i % (WIDTH / 8) * 8;
        if (at + THREADS > PIECES && i >= PIECES) break;
        bool there = first + n < N && c < HEAD;
        copy_async(tile + n * PITCH + c, rows.p + (there ? (first + n) * (int)rows.pitch + c : 0), there);
    }
}

// Adds a bias to the columns of what this thread has fetched, and has arrived.
template <int COUNT, int THREADS>
__device__ __forceinline__ void add_to_fetched(bf16* tile, const float* bias) {
    constexpr int PIECES = COUNT * (WIDTH / 8);
    constexpr bool SAME = THREADS % (WIDTH / 8) == 0;  // all pieces of a thread have the same columns
    const int thread = thread_here();
    Two b[4];
#pragma unroll
    for (int at = 0; at < PIECES; at += THREADS) {
        int i = at + thread, c = i % (WIDTH / 8) * 8;
        if (at + THREADS > PIECES && i >= PIECES) break;
        if (c >= HEAD) continue;
        if (!SAME || at == 0)
#pragma unroll
            for (int k = 0; k < 4; k++) b[k] = two_of(bias + c + 2 * k);
        Piece* there = reinterpret_cast<Piece*>(tile + i / (WIDTH / 8) * PITCH + c);
        Piece piece = *there;
#pragma unroll
        for (int k = 0; k < 4; k++) piece.pairs[k] = bf16x2_of(low_of(piece.pairs[k]) + b[k].x, high_of(piece.pairs[k]) + b[k].y);
        *there = piece;
    }
}

// c (16 HIGH x 8 · 2) += a (16 HIGH x 16) times two fragments b that lie side by side.
template <int J>
__device__ __forceinline__ void two(float (&c)[HIGH][J][4], int j, const unsigned (&a)[HIGH][4], const unsigned (&b)[4]) {
    const unsigned left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
    for (int h = 0; h < HIGH; h++) {
        mma_m16n8k16_bf16(c[h][j], a[h], left);
        if (j + 1 < J) mma_m16n8k16_bf16(c[h][j + 1], a[h], right);
    }
}

// Two tiles of an accumulator, columns 16 k .. 16 k + 15, as an a.
template <int J>
__device__ __forceinline__ void packed(unsigned (&a)[HIGH][4], const float (&c)[HIGH][J][4], int k) {
#pragma unroll
    for (int h = 0; h < HIGH; h++)
#pragma unroll
        for (int i = 0; i < 4; i++) a[h][i] = bf16x2_of(c[h][2 * k + i / 2][i % 2 * 2], c[h][2 * k + i / 2][i % 2 * 2 + 1]);
}

// sum (16 HIGH x HEAD) += a times 16 rows of a tile.
__device__ __forceinline__ void accumulate(float (&sum)[HIGH][STRIPS][4], const unsigned (&a)[HIGH][4], const bf16* rows) {
#pragma unroll
    for (int j = 0; j < STRIPS; j += 2) {
        unsigned b[4];
        ldmatrix_transposed(b, rows + 8 * j);
        two(sum, j, a, b);
    }
}

// A warp's rows of shared memory into the rows first .. of an array, 16 bytes at a time.
__device__ __forceinline__ void put_rows(const bf16* own, Rows rows, int first, int N) {
    __syncwarp();
#pragma unroll
    for (int at = 0; at < 16 * HIGH * STRIPS; at += 32) {
        int i = at + threadIdx.x % 32, n = i / STRIPS, c = i % STRIPS * 8;
        if (at + 32 > 16 * HIGH * STRIPS && i >= 16 * HIGH * STRIPS) break;
        if (first + n < N)
            *reinterpret_cast<Piece*>(const_cast<bf16*>(rows.p) + (first + n) * (int)rows.pitch + c) =
                *reinterpret_cast<const Piece*>(own + n * PITCH + c);
    }
}

// A warp's accumulator, times factor[h][i] of its rows, plus `add` of its columns, or null, into its rows of shared memory.
__device__ __forceinline__ void rounded(bf16* own, const float (&sum)[HIGH][STRIPS][4], const float (&factor)[HIGH][2],
                                        const float* add) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < STRIPS; j++) {
        Two b = add ? two_of(add + 8 * j + 2 * t) : Two{0, 0};
#pragma unroll
        for (int i = 0; i < HIGH * 2; i++) {
            const float f = factor[i / 2][i % 2], *c = sum[i / 2][j] + i % 2 * 2, left = c[0] * f + b.x, right = c[1] * f + b.y;
            *reinterpret_cast<unsigned*>(own + (8 * i + g) * PITCH + 8 * j + 2 * t) = bf16x2_of(left, right);
        }
    }
}

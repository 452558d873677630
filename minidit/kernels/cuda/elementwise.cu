// What runs between two matrix products: bias, GELU (A.5), SiLU (A.4), the gated residual (A.21), and sums over rows (A.12).
#include "common.h"

enum { BLOCK = 256 };

// Every kernel of columns has the grid (columns / 32 VEC, chunks of rows, samples); `chunk` rows per block.

// x += bias, in place: four rows are loaded before the first is stored. x: (rows, pitch), of which part blockIdx.z, D columns from
// blockIdx.z · apart on, is changed.
extern "C" __global__ void __launch_bounds__(256)
    add_bias(T* x, const float* __restrict__ bias, int rows, int D, int pitch, int apart, int chunk) {
    const int DEEP = 4;
    int c = column(), end = min(rows, (int)(blockIdx.y + 1) * chunk);
    if (c >= D) return;
    x += blockIdx.z * apart, bias += blockIdx.z * apart;
    float b[VEC];
    load(bias + c, b);
    for (int r = blockIdx.y * chunk + threadIdx.x / 32; r < end; r += DEEP * COLUMN_WARPS) {
        Pack<T> q[DEEP];
        T* at = x + (size_t)r * pitch + c;
#pragma unroll
        for (int j = 0; j < DEEP; j++)
            if (r + j * COLUMN_WARPS < end) q[j] = pack_at(at + (size_t)j * COLUMN_WARPS * pitch);
#pragma unroll
        for (int j = 0; j < DEEP; j++) {
            float v[VEC];
            unpack(q[j], v);
            for (int k = 0; k < VEC; k++) v[k] += b[k];
            if (r + j * COLUMN_WARPS < end) store(at + (size_t)j * COLUMN_WARPS * pitch, v);
        }
    }
}

// gelu(x) = x Φ and gelu'(x) = Φ + x Φ (1-Φ) 2u' with Φ = ½ (1 + tanh u) = 1 / (1 + e), e = exp(-2u), u = c₀ (x + c₃ x³).
// e overflows far to the left, where Φ is 0; nothing cancels.
__device__ __forceinline__ float e_of(float x, float square) {
    const float c0 = 0.7978845608028654f, c3 = 0.044715f, two = -2.0f * 1.4426950408889634f;  // e = 2^(-2u log₂e)
    return exp2_of(x * (two * c0 + two * c0 * c3 * square));
}
__device__ __forceinline__ float gelu(float x) { return x * inverse_of(1.0f + e_of(x, x * x)); }
__device__ __forceinline__ float gelu_slope(float x) {
    const float c0 = 0.7978845608028654f, c3 = 0.044715f;
    const bool exact = sizeof(T) == sizeof(float);  // for bf16, Φ (1-Φ) = Φ - Φ² is exact enough, and cannot overflow
    if (exact && fabsf(x) > 10.0f) x = copysignf(10.0f, x);
    float square = fminf(x * x, 100.0f);  // beyond, the slope is 0 or 1 to the last bit
    float e = e_of(x, square), phi = inverse_of(1.0f + e);
    return phi + x * (exact ? phi * (e * phi) : phi - phi * phi) * (2.0f * c0 + 6.0f * c0 * c3 * square);
}

// y = gelu(a + bias). a: (rows, D)
extern "C" __global__ void __launch_bounds__(256)
    bias_gelu(const T* __restrict__ a, const float* __restrict__ bias, T* __restrict__ y, int rows, int D, int chunk) {
    int c = column(), end = min(rows, (int)(blockIdx.y + 1) * chunk);
    if (c >= D) return;
    float b[VEC];
    load(bias + c, b);
#pragma unroll 4
    for (int r = blockIdx.y * chunk + threadIdx.x / 32; r < end; r += COLUMN_WARPS) {
        float v[VEC];
        load(a + (size_t)r * D + c, v);
        for (int k = 0; k < VEC; k++) v[k] = gelu(v[k] + b[k]);
        store(y + (size_t)r * D + c, v);
    }
}

// g = ȳ ⊙ gelu'(a + bias) and bias̅ = Σ g over the rows. bias may be null.
extern "C" __global__ void __launch_bounds__(256, 4)
    gelu_backward(const T* __restrict__ y_bar, const T* __restrict__ a, const float* __restrict__ bias, T* __restrict__ g,
                  float* bias_bar, float* partial, unsigned* counters, int rows, int D, int chunk) {
    int c = column(), end = min(rows, (int)(blockIdx.y + 1) * chunk);
    float sum[VEC] = {}, b[VEC] = {};
    if (c < D) {
        if (bias) load(bias + c, b);
#pragma unroll 2
        for (int r = blockIdx.y * chunk + threadIdx.x / 32; r < end; r += COLUMN_WARPS) {
            float v[VEC], s[VEC];
            load(y_bar + (size_t)r * D + c, v);
            load(a + (size_t)r * D + c, s);
            for (int k = 0; k < VEC; k++) v[k] *= gelu_slope(s[k] + b[k]), sum[k] += v[k];
            store(g + (size_t)r * D + c, v);
        }
    }
    over_chunks(sum, bias_bar, D, partial, counters, D);
}

// out = Σ x over the rows: the gradient of a bias. Columns from .. to - 1 are known to have the sum 0, and are not read.
extern "C" __global__ void __launch_bounds__(256)
    column_sum(const T* __restrict__ x, float* out, float* partial, unsigned* counters, int rows, int D, int chunk,
               int from, int to) {
    int c = column(), end = min(rows, (int)(blockIdx.y + 1) * chunk);
    float sum[VEC] = {};
    if (c < D && (c < from || c + VEC > to))
#pragma unroll 4
        for (int r = blockIdx.y * chunk + threadIdx.x / 32; r < end; r += COLUMN_WARPS) {
            float v[VEC];
            load(x + (size_t)r * D + c, v);
            for (int k = 0; k < VEC; k++) sum[k] += v[k];
        }
    over_chunks(sum, out, D, partial, counters, D);
}

// y = x + gate ⊙ (h + bias). x, h: (samples, N, D); the gate of sample b starts at b · stride; bias may be null.
extern "C" __global__ void __launch_bounds__(256)
    gated_residual(const T* __restrict__ x, const T* __restrict__ gate, const T* __restrict__ h, const float* __restrict__ bias,
                   T* __restrict__ y, int N, int D, int chunk, int stride) {
    int c = column(), end = min(N, (int)(blockIdx.y + 1) * chunk);
    if (c >= D) return;
    float g[VEC], b[VEC] = {};
    load(gate + (size_t)blockIdx.z * stride + c, g);
    if (bias) load(bias + c, b);
#pragma unroll 4
    for (int n = blockIdx.y * chunk + threadIdx.x / 32; n < end; n += COLUMN_WARPS) {
        size_t i = ((size_t)blockIdx.z * N + n) * D + c;
        float v[VEC], w[VEC];
        load(x + i, v);
        load(h + i, w);
        for (int k = 0; k < VEC; k++) v[k] += g[k] * (w[k] + b[k]);
        store(y + i, v);
    }
}

// h̄ = ȳ ⊙ gate and gate̅ = Σ ȳ⊙(h + bias) over the sample's rows; that of sample b starts at b · bar_stride. With a bias also
// bias̅ = Σ h̄ over all rows, by way of `sums`, (samples, D) floats. Scratch memory: partial, (2, samples, chunks, D), and zero counters,
// one for each sum's (sample, block of columns), then one for each block of columns.
extern "C" __global__ void __launch_bounds__(256, 3)
    gated_residual_backward(const T* __restrict__ gate, const T* __restrict__ h, const float* __restrict__ bias,
                            const T* __restrict__ y_bar, T* gate_bar, T* __restrict__ h_bar, float* bias_bar, float* sums,
                            float* partial, unsigned* counters, int N, int D, int chunk, int stride, int bar_stride) {
    int c = column(), end = min(N, (int)(blockIdx.y + 1) * chunk);
    float sum[VEC] = {}, all[VEC] = {}, g[VEC], b[VEC] = {};
    if (c < D) {
        load(gate + (size_t)blockIdx.z * stride + c, g);
        if (bias) load(bias + c, b);
#pragma unroll 2
        for (int n = blockIdx.y * chunk + threadIdx.x / 32; n < end; n += COLUMN_WARPS) {
            size_t i = ((size_t)blockIdx.z * N + n) * D + c;
            float v[VEC], w[VEC];
            load(y_bar + i, v);
            load(h + i, w);
            for (int k = 0; k < VEC; k++) sum[k] += v[k] * (w[k] + b[k]), v[k] *= g[k], all[k] += v[k];
            store(h_bar + i, v);
        }
    }
    over_chunks(sum, gate_bar, bar_stride, partial, counters, D);
    if (!bias) return;
    unsigned pairs = gridDim.z * gridDim.x;
    if (!over_chunks(all, sums, D, partial + (size_t)gridDim.z * gridDim.y * D, counters + pairs, D)) return;
    if (!last_of(counters + 2 * pairs + blockIdx.x, gridDim.z)) return;
    over_written(sums, gridDim.z, D, all);
    if (threadIdx.x < 32 && c < D) store(bias_bar + c, all);
}

// The same numbers in another type.
template <class A, class B>
__device__ __forceinline__ void convert(const A* x, B* y, long long n) {
    for (long long i = ((long long)blockIdx.x * BLOCK + threadIdx.x) * VEC; i < n; i += (long long)gridDim.x * BLOCK * VEC) {
        float v[VEC];
        load(x + i, v);
        store(y + i, v);
    }
}
extern "C" __global__ void __launch_bounds__(256) to_bfloat16(const float* x, bf16* y, long long n) { convert(x, y, n); }
extern "C" __global__ void __launch_bounds__(256) to_float32(const bf16* x, float* y, long long n) { convert(x, y, n); }

__device__ __forceinline__ float logistic(float x) {
    float e = expf(-fabsf(x));
    return x >= 0 ? 1.0f / (1.0f + e) : e / (1.0f + e);
}

// y = x σ(x)
extern "C" __global__ void __launch_bounds__(256) silu(const T* x, T* y, long long n) {
    for (long long i = ((long long)blockIdx.x * BLOCK + threadIdx.x) * VEC; i < n; i += (long long)gridDim.x * BLOCK * VEC) {
        float v[VEC];
        load(x + i, v);
        for (int k = 0; k < VEC; k++) v[k] *= logistic(v[k]);
        store(y + i, v);
    }
}

// x̄ = onto + ȳ σ (1 + x (1-σ)); onto may be null
extern "C" __global__ void __launch_bounds__(256) silu_backward(const T* x, const T* y_bar, const T* onto, T* x_bar, long long n) {
    for (long long i = ((long long)blockIdx.x * BLOCK + threadIdx.x) * VEC; i < n; i += (long long)gridDim.x * BLOCK * VEC) {
        float v[VEC], g[VEC], u[VEC];
        load(x + i, v);
        load(y_bar + i, g);
        for (int k = 0; k < VEC; k++) u[k] = 0;
        if (onto) load(onto + i, u);
        for (int k = 0; k < VEC; k++) {
            float s = logistic(v[k]), rest = logistic(-v[k]);
            v[k] = u[k] + g[k] * s * (1.0f + v[k] * rest);
        }
        store(x_bar + i, v);
    }
}

// table̅_k = Σ ȳ_b over all b with index_b = k, in order of b: no two blocks write one row. Grid: rows of the table.
extern "C" __global__ void __launch_bounds__(128)
    embedding_backward(const long long* index, const T* y_bar, T* table_bar, int count, int rows, int D) {
    DYNAMIC_SHARED(int, mine);  // (count,): whether sample b took this row
    __shared__ bool any;
    if (threadIdx.x == 0) any = false;
    __syncthreads();
    for (int b = threadIdx.x; b < count; b += blockDim.x) {
        mine[b] = (index[b] < 0 ? index[b] + rows : index[b]) == (long long)blockIdx.x;  // -1 is the last row, as in NumPy
        if (mine[b]) any = true;
    }
    __syncthreads();
    int samples = any ? count : 0;  // most rows of a large table are nobody's
    for (int c = threadIdx.x; c < D; c += blockDim.x) {
        float total = 0;
        for (int b = 0; b < samples; b++)
            if (mine[b]) total += to_float(y_bar[(size_t)b * D + c]);
        put(table_bar[(size_t)blockIdx.x * D + c], total);
    }
}

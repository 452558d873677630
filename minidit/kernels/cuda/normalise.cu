// Softmax (A.13) and layer norm (A.14), plain with weights or modulated (A.15): sums in float, two passes for σ².
//
// Softmax: one warp per row. Layer norm: ROW_WARPS warps per row, which hold it in registers, so that every number is read once:
//
// STEPS      how often a lane loads VEC numbers of a row: STEPS · VEC · 32 · ROW_WARPS ≥ D
// ROW_WARPS  1, or 4 where a row is too long for the registers of one warp
// RESIDUAL   1: a row of layer norm is first x + gate ⊙ (h + bias)
#include "common.h"

#ifndef STEPS
#define STEPS 1
#endif
#ifndef ROW_WARPS
#define ROW_WARPS 1
#endif
#ifndef RESIDUAL
#define RESIDUAL 0
#endif

enum { ROWS = 4, LANES = 32 * ROW_WARPS, TOGETHER = ROWS / ROW_WARPS };  // warps of a block; lanes of a row; rows at the same time

extern "C" __global__ void __launch_bounds__(128) softmax(const T* x, T* y, int rows, int D) {
    int row = blockIdx.x * ROWS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    const T* r = x + (size_t)row * D;
    float top = -3.402823466e38f, v[VEC];
    for (int i = lane * VEC; i < D; i += 32 * VEC) {
        load(r + i, v);
        for (int k = 0; k < VEC; k++) top = fmaxf(top, v[k]);
    }
    top = warp_max(top);
    float sum = 0;
    for (int i = lane * VEC; i < D; i += 32 * VEC) {
        load(r + i, v);
        for (int k = 0; k < VEC; k++) sum += expf(v[k] - top);
    }
    float inverse = 1.0f / warp_sum(sum);
    for (int i = lane * VEC; i < D; i += 32 * VEC) {
        load(r + i, v);
        for (int k = 0; k < VEC; k++) v[k] = expf(v[k] - top) * inverse;
        store(y + (size_t)row * D + i, v);
    }
}

extern "C" __global__ void __launch_bounds__(128) softmax_backward(const T* y, const T* y_bar, T* x_bar, int rows, int D) {
    int row = blockIdx.x * ROWS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    size_t start = (size_t)row * D;
    float v[VEC], g[VEC], sum = 0;
    for (int i = lane * VEC; i < D; i += 32 * VEC) {
        load(y + start + i, v);
        load(y_bar + start + i, g);
        for (int k = 0; k < VEC; k++) sum += v[k] * g[k];
    }
    sum = warp_sum(sum);
    for (int i = lane * VEC; i < D; i += 32 * VEC) {
        load(y + start + i, v);
        load(y_bar + start + i, g);
        for (int k = 0; k < VEC; k++) v[k] *= g[k] - sum;
        store(x_bar + start + i, v);
    }
}

// The sum over all lanes of a row, in each of them.
__device__ __forceinline__ float row_sum(float x) {
    x = warp_sum(x);
#if ROW_WARPS > 1
    __shared__ float parts[ROWS];
    __syncthreads();  // the sum before is read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    for (int w = 0; w < ROWS; w++) x += parts[w];
#endif
    return x;
}

// The first of the VEC columns of a lane in a step.
__device__ __forceinline__ int column_of(int step) { return (step * LANES + threadIdx.x % LANES) * VEC; }

// a/b, correctly rounded, from 1/b rounded: an exact mean stays exact.
__device__ __forceinline__ float quotient(float a, float b, float inverse) {
    float q = a * inverse;
    return fmaf(fmaf(-q, b, a), inverse, q);
}

// y = x̂ (one + scale) + shift. x: (samples, N, D); scale and shift of sample b start at b · stride. Grid (chunks, samples): a block
// takes `chunk` rows of a sample. one is 1 for a modulation, 0 for a weight. Keeps μ and r = 1/√(σ² + ε) of every row.
// With RESIDUAL the row is first x + gate ⊙ (h + bias), which is kept in x_out; the gate of sample b starts at b · gate_stride.
extern "C" __global__ void __launch_bounds__(128)
    layer_norm(const T* __restrict__ x, const T* __restrict__ gate, const T* __restrict__ h, const float* __restrict__ bias,
               T* __restrict__ x_out, const T* __restrict__ scale, const T* __restrict__ shift, T* __restrict__ y,
               float* __restrict__ mean, float* __restrict__ inverse, int N, int D, int chunk, int gate_stride, int scale_stride,
               int shift_stride, float one, float eps) {
    int first = blockIdx.x * chunk, end = min(N, first + chunk);
    float width = D, inverse_width = 1.0f / width;
    gate += (size_t)blockIdx.y * gate_stride, scale += (size_t)blockIdx.y * scale_stride;
    shift += (size_t)blockIdx.y * shift_stride;
    for (int n = first + threadIdx.x / LANES; n < end; n += TOGETHER) {
        size_t row = (size_t)blockIdx.y * N + n, start = row * D;
        Pack<T> xs[STEPS] = {}, hs[STEPS] = {}, gates[STEPS] = {}, scales[STEPS] = {}, shifts[STEPS] = {};
        Pack<float> biases[STEPS] = {};
#pragma unroll
        for (int s = 0; s < STEPS; s++) {  // all that the row needs, before anything waits for it
            int c = column_of(s);
            if (c < D) xs[s] = pack_at(x + start + c), scales[s] = pack_at(scale + c), shifts[s] = pack_at(shift + c);
            if (RESIDUAL && c < D) hs[s] = pack_at(h + start + c), gates[s] = pack_at(gate + c), biases[s] = pack_at(bias + c);
        }
        float v[STEPS][VEC], sum = 0, square = 0;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            unpack(xs[s], v[s]);
            if (RESIDUAL) {
                float p[VEC], g[VEC], b[VEC];
                unpack(hs[s], p), unpack(gates[s], g), unpack(biases[s], b);
                for (int k = 0; k < VEC; k++) v[s][k] += g[k] * (p[k] + b[k]);
                pack(v[s], xs[s]);
                unpack(xs[s], v[s]);  // as it is kept: the norm that the adjoint sees
                if (column_of(s) < D) *reinterpret_cast<Pack<T>*>(x_out + start + column_of(s)) = xs[s];
            }
            for (int k = 0; k < VEC; k++) sum += v[s][k];
        }
        float mu = quotient(row_sum(sum), width, inverse_width);
#pragma unroll
        for (int s = 0; s < STEPS; s++)
            for (int k = 0; k < VEC; k++) {
                v[s][k] -= mu;
                if (column_of(s) < D) square += v[s][k] * v[s][k];
            }
        float r = rsqrtf(row_sum(square) * inverse_width + eps);
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            float w[VEC], b[VEC];
            unpack(scales[s], w), unpack(shifts[s], b);
            for (int k = 0; k < VEC; k++) v[s][k] = v[s][k] * r * (one + w[k]) + b[k];
            if (column_of(s) < D) store(y + start + column_of(s), v[s]);
        }
        if (threadIdx.x % LANES == 0) mean[row] = mu, inverse[row] = r;
    }
}

// x̄ = onto + r (g - mean g - x̂ mean(g⊙x̂)) with g = ȳ (one + scale);  scale̅ = Σ ȳ⊙x̂ and shift̅ = Σ ȳ over a sample's rows.
// Grid (chunks, samples): a block takes `chunk` rows of a sample. onto may be null. partial: (samples, chunks, 2, D) floats.
// A lane keeps the sums of its own columns in registers; ȳ, x and onto stay packed there between the two passes over a row.
extern "C" __global__ void __launch_bounds__(128)
    layer_norm_backward(const T* __restrict__ x, const T* __restrict__ scale, const float* __restrict__ mean,
                        const float* __restrict__ inverse, const T* __restrict__ y_bar, const T* __restrict__ onto,
                        T* __restrict__ x_bar, T* scale_bar, T* shift_bar, float* partial, unsigned* counters, int N, int D,
                        int chunk, int scale_stride, int scale_bar_stride, int shift_bar_stride, float one) {
    DYNAMIC_SHARED(float, sums);  // (rows at the same time, 2, D)
    int b = blockIdx.y, first = blockIdx.x * chunk, end = min(N, first + chunk);
    float to_scale[STEPS][VEC] = {}, to_shift[STEPS][VEC] = {}, width = D, inverse_width = 1.0f / width;
    scale += (size_t)b * scale_stride;
    for (int n = first + threadIdx.x / LANES; n < end; n += TOGETHER) {
        size_t row = (size_t)b * N + n, start = row * D;
        Pack<T> xs[STEPS] = {}, bars[STEPS] = {}, before[STEPS] = {}, weights[STEPS] = {};
#pragma unroll
        for (int s = 0; s < STEPS; s++) {  // beyond D everything is 0
            int c = column_of(s);
            if (c < D) xs[s] = pack_at(x + start + c), bars[s] = pack_at(y_bar + start + c), weights[s] = pack_at(scale + c);
            if (onto && c < D) before[s] = pack_at(onto + start + c);
        }
        float mu = mean[row], r = inverse[row], g_sum = 0, gx_sum = 0;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            float v[VEC], bar[VEC], w[VEC];
            unpack(xs[s], v), unpack(bars[s], bar), unpack(weights[s], w);
            for (int k = 0; k < VEC; k++) {
                float x_hat = (v[k] - mu) * r, g = times(bar[k], one + w[k]);
                to_scale[s][k] += bar[k] * x_hat;
                to_shift[s][k] += bar[k];
                g_sum += g;
                gx_sum += g * x_hat;
            }
        }
        float m1 = quotient(row_sum(g_sum), width, inverse_width), m2 = row_sum(gx_sum) * inverse_width;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            float v[VEC], bar[VEC], w[VEC], u[VEC];
            unpack(xs[s], v), unpack(bars[s], bar), unpack(weights[s], w), unpack(before[s], u);
            for (int k = 0; k < VEC; k++) {  // g rounded as in m1: their difference is exactly 0 where a row is one number
                float x_hat = (v[k] - mu) * r, g = times(bar[k], one + w[k]);
                v[k] = u[k] + r * (g - m1 - x_hat * m2);
            }
            if (column_of(s) < D) store(x_bar + start + column_of(s), v);
        }
    }
    float* mine = sums + threadIdx.x / LANES * 2 * D;
#pragma unroll
    for (int s = 0; s < STEPS; s++)
        if (column_of(s) < D) {
            store(mine + column_of(s), to_scale[s]);
            store(mine + D + column_of(s), to_shift[s]);
        }
    __syncthreads();
    unsigned chunks = gridDim.x;
    T *to_scale_bar = scale_bar + (size_t)b * scale_bar_stride, *to_shift_bar = shift_bar + (size_t)b * shift_bar_stride;
    for (int i = threadIdx.x; i < 2 * D; i += blockDim.x) {
        float total = 0;
        for (int w = 0; w < TOGETHER; w++) total += sums[w * 2 * D + i];
        if (chunks == 1)
            put(*(i < D ? to_scale_bar + i : to_shift_bar + i - D), total);
        else
            partial[((size_t)b * chunks + blockIdx.x) * 2 * D + i] = total;
    }
    if (chunks == 1 || !last_of(counters + b, chunks)) return;
    for (int i = threadIdx.x; i < 2 * D; i += blockDim.x) {
        const volatile float* p = partial + (size_t)b * chunks * 2 * D + i;
        float total = 0;
        for (unsigned c = 0; c < chunks; c++) total += p[(size_t)c * 2 * D];
        put(*(i < D ? to_scale_bar + i : to_shift_bar + i - D), total);
    }
}

// Softmax (A.13) and layer norm (A.14), plain with weights or modulated (A.15), alone or joined with the gated residual (A.21)
// before it: sums in float, two passes for σ².
//
// Softmax: one warp per row. Layer norm: ROW_WARPS warps per row, which hold it in registers, so that every number is read once:
//
// STEPS      how often a lane loads VEC numbers of a row: STEPS · VEC · 32 · ROW_WARPS ≥ D
// ROW_WARPS  1, then a block takes four rows at a time; or more, where a row is too long for the registers of one warp
// WHOLE      1: a row fills its lanes, STEPS · VEC · 32 · ROW_WARPS = D
// RESIDUAL   1: a row of layer norm is first x + gate ⊙ (h + bias)
#include "common.h"

#ifndef STEPS
#define STEPS 1
#endif
#ifndef ROW_WARPS
#define ROW_WARPS 1
#endif
#ifndef WHOLE
#define WHOLE 0
#endif
#ifndef RESIDUAL
#define RESIDUAL 0
#endif

enum { ROWS = 4 };                                                            // of softmax in a block
enum { WARPS = ROW_WARPS > 1 ? ROW_WARPS : 4, LANES = 32 * ROW_WARPS, TOGETHER = WARPS / ROW_WARPS };  // rows at the same time
enum { FEW = STEPS * VEC <= 12 };  // numbers per lane: then the registers of at least 12 warps fit on a multiprocessor

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

// The sums of two numbers over all lanes of a row, in each of them. turn: counts the calls; what a warp writes one turn ahead is
// written elsewhere, and two turns ahead no warp can be.
__device__ __forceinline__ void row_sums(float& a, float& b, int& turn) {
    a = warp_sum(a), b = warp_sum(b);
#if ROW_WARPS > 1
    __shared__ float parts[2][WARPS][2];
    float(*now)[2] = parts[turn++ & 1];
    if (threadIdx.x % 32 == 0) now[threadIdx.x / 32][0] = a, now[threadIdx.x / 32][1] = b;
    __syncthreads();
    a = b = 0;
    for (int w = 0; w < WARPS; w++) a += now[w][0], b += now[w][1];
#endif
}
__device__ __forceinline__ float row_sum(float x, int& turn) {
    x = warp_sum(x);
#if ROW_WARPS > 1
    __shared__ float parts[2][WARPS];
    float* now = parts[turn++ & 1];
    if (threadIdx.x % 32 == 0) now[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    for (int w = 0; w < WARPS; w++) x += now[w];
#endif
    return x;
}

// The first of the VEC columns of a lane in a step, and whether there is such a column.
__device__ __forceinline__ int column_of(int step) { return (step * LANES + threadIdx.x % LANES) * VEC; }
__device__ __forceinline__ bool there(int step, int D) { return WHOLE || column_of(step) < D; }

// a/b, correctly rounded, from 1/b rounded: an exact mean stays exact.
__device__ __forceinline__ float quotient(float a, float b, float inverse) {
    float q = a * inverse;
    return fmaf(fmaf(-q, b, a), inverse, q);
}

// The lane's numbers of one row of D, plus `more`; beyond D, `more`.
template <class S>
__device__ __forceinline__ void spread(float (&x)[STEPS][VEC], const S* p, int D, float more) {
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        Pack<S> q = {};
        if (there(s, D)) q = pack_at(p + column_of(s));
        unpack(q, x[s]);
        for (int k = 0; k < VEC; k++) x[s][k] += more;
    }
}

// y = x̂ (one + scale) + shift. x: (samples, N, D); scale and shift of sample b start at b · stride. Grid (chunks, samples): a block
// takes `chunk` rows of a sample. one is 1 for a modulation, 0 for a weight. Keeps μ and r = 1/√(σ² + ε) of every row.
// With RESIDUAL the row is first x + gate ⊙ (h + bias), which is kept in x_out; the gate of sample b starts at b · gate_stride.
extern "C" __global__ void __launch_bounds__(32 * WARPS, FEW ? 12 / WARPS : 1)
    layer_norm(const T* __restrict__ x, const T* __restrict__ gate, const T* __restrict__ h, const float* __restrict__ bias,
               T* __restrict__ x_out, const T* __restrict__ scale, const T* __restrict__ shift, T* __restrict__ y,
               float* __restrict__ mean, float* __restrict__ inverse, int N, int D, int chunk, int gate_stride, int scale_stride,
               int shift_stride, float one, float eps) {
    int first = blockIdx.x * chunk, end = min(N, first + chunk), turn = 0;
    float width = D, inverse_width = 1.0f / width, w[STEPS][VEC], b[STEPS][VEC], g[STEPS][VEC], add[STEPS][VEC];
    spread(w, scale + (size_t)blockIdx.y * scale_stride, D, one);
    spread(b, shift + (size_t)blockIdx.y * shift_stride, D, 0);
    if (RESIDUAL) spread(g, gate + (size_t)blockIdx.y * gate_stride, D, 0), spread(add, bias, D, 0);
    for (int n = first + threadIdx.x / LANES; n < end; n += TOGETHER) {
        size_t row = (size_t)blockIdx.y * N + n, start = row * D;
        Pack<T> xs[STEPS] = {}, hs[STEPS] = {};
#pragma unroll
        for (int s = 0; s < STEPS; s++) {  // the whole row, before anything waits for it
            if (there(s, D)) xs[s] = pack_at(x + start + column_of(s));
            if (RESIDUAL && there(s, D)) hs[s] = pack_at(h + start + column_of(s));
        }
        float v[STEPS][VEC], sum = 0, square = 0;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            unpack(xs[s], v[s]);
            if (RESIDUAL) {
                float p[VEC];
                unpack(hs[s], p);
                for (int k = 0; k < VEC; k++) v[s][k] += g[s][k] * (p[k] + add[s][k]);
                pack(v[s], xs[s]);
                unpack(xs[s], v[s]);  // as it is kept: the norm that the adjoint sees
                if (there(s, D)) *reinterpret_cast<Pack<T>*>(x_out + start + column_of(s)) = xs[s];
            }
            for (int k = 0; k < VEC; k++) sum += v[s][k];
        }
        float mu = quotient(row_sum(sum, turn), width, inverse_width);
#pragma unroll
        for (int s = 0; s < STEPS; s++)
            for (int k = 0; k < VEC; k++) {
                v[s][k] -= mu;
                if (there(s, D)) square += v[s][k] * v[s][k];
            }
        float r = rsqrtf(row_sum(square, turn) * inverse_width + eps);
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            for (int k = 0; k < VEC; k++) v[s][k] = v[s][k] * r * w[s][k] + b[s][k];
            if (there(s, D)) store(y + start + column_of(s), v[s]);
        }
        if (threadIdx.x % LANES == 0) mean[row] = mu, inverse[row] = r;
    }
}

enum { SUMS = RESIDUAL ? 4 : 2 };

// The block's sums of columns in shared memory: sum number `which` of this lane's row.
__device__ __forceinline__ void keep(float* sums, int which, const float (&x)[STEPS][VEC], int D) {
#pragma unroll
    for (int s = 0; s < STEPS; s++)
        if (there(s, D)) store(sums + (threadIdx.x / LANES * SUMS + which) * D + column_of(s), x[s]);
}

// x̄ = onto + r (g - mean g - x̂ mean(g⊙x̂)) with g = ȳ (one + scale);  scale̅ = Σ ȳ⊙x̂ and shift̅ = Σ ȳ over a sample's rows.
// Grid (chunks, samples): a block takes `chunk` rows of a sample. onto may be null. partial: (samples, chunks, SUMS, D) floats.
// A lane keeps the sums of its own columns in registers, and its numbers of a row between the two passes.
// With RESIDUAL also h̄ = x̄ ⊙ gate, gate̅ = Σ x̄⊙(h + bias), and Σ h̄ of every sample to bias_bars, (samples, D) floats.
extern "C" __global__ void __launch_bounds__(32 * WARPS, FEW ? 12 / WARPS : 1)
    layer_norm_backward(const T* __restrict__ x, const T* __restrict__ scale, const float* __restrict__ mean,
                        const float* __restrict__ inverse, const T* __restrict__ y_bar, const T* __restrict__ onto,
                        T* __restrict__ x_bar, T* scale_bar, T* shift_bar, float* partial, unsigned* counters,
                        const T* __restrict__ gate, const T* __restrict__ h, const float* __restrict__ bias,
                        T* __restrict__ h_bar, T* gate_bar, float* bias_bars, int N, int D, int chunk, int scale_stride,
                        int scale_bar_stride, int shift_bar_stride, int gate_stride, int gate_bar_stride, float one) {
    DYNAMIC_SHARED(float, sums);  // (rows at the same time, SUMS, D)
    int sample = blockIdx.y, first = blockIdx.x * chunk, end = min(N, first + chunk), turn = 0;
    float to_scale[STEPS][VEC] = {}, to_shift[STEPS][VEC] = {}, to_x[STEPS][VEC] = {}, to_gate[STEPS][VEC] = {};
    float width = D, inverse_width = 1.0f / width, w[STEPS][VEC], a[STEPS][VEC];
    spread(w, scale + (size_t)sample * scale_stride, D, one);
    if (RESIDUAL) spread(a, gate + (size_t)sample * gate_stride, D, 0);
    for (int n = first + threadIdx.x / LANES; n < end; n += TOGETHER) {
        size_t row = (size_t)sample * N + n, start = row * D;
        Pack<T> xs[STEPS] = {}, bars[STEPS] = {}, before[STEPS] = {}, hs[STEPS] = {};
#pragma unroll
        for (int s = 0; s < STEPS; s++)  // beyond D everything is 0
            if (there(s, D)) {
                size_t i = start + column_of(s);
                xs[s] = pack_at(x + i), bars[s] = pack_at(y_bar + i);
                if (RESIDUAL || onto) before[s] = pack_at(onto + i);
                if (RESIDUAL) hs[s] = pack_at(h + i);
            }
        float mu = mean[row], r = inverse[row], g_sum = 0, gx_sum = 0, x_hat[STEPS][VEC], g[STEPS][VEC];
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            float bar[VEC];
            unpack(xs[s], x_hat[s]), unpack(bars[s], bar);
            for (int k = 0; k < VEC; k++) {
                x_hat[s][k] = (x_hat[s][k] - mu) * r, g[s][k] = times(bar[k], w[s][k]);
                to_scale[s][k] += bar[k] * x_hat[s][k];
                to_shift[s][k] += bar[k];
                g_sum += g[s][k];
                gx_sum += g[s][k] * x_hat[s][k];
            }
        }
        row_sums(g_sum, gx_sum, turn);
        float m1 = quotient(g_sum, width, inverse_width), m2 = gx_sum * inverse_width;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            float v[VEC], u[VEC], hidden[VEC];
            unpack(before[s], u);
            for (int k = 0; k < VEC; k++) v[k] = u[k] + r * (g[s][k] - m1 - x_hat[s][k] * m2);
            if (there(s, D)) store(x_bar + start + column_of(s), v);
            if (RESIDUAL) {  // (h + bias) and the gate are taken into the sums at the end
                unpack(hs[s], hidden);
                for (int k = 0; k < VEC; k++)
                    to_gate[s][k] += v[k] * hidden[k], to_x[s][k] += v[k], v[k] *= a[s][k];
                if (there(s, D)) store(h_bar + start + column_of(s), v);
            }
        }
    }
    keep(sums, 0, to_scale, D), keep(sums, 1, to_shift, D);
    if (RESIDUAL) keep(sums, 2, to_gate, D), keep(sums, 3, to_x, D);
    __syncthreads();
    unsigned chunks = gridDim.x;
    const float* parts = sums;
    int count = TOGETHER;
    if (chunks > 1) {
        partial += (size_t)sample * chunks * SUMS * D;
        for (int i = threadIdx.x; i < SUMS * D; i += blockDim.x) {
            float total = 0;
            for (int j = 0; j < TOGETHER; j++) total += sums[j * SUMS * D + i];
            partial[(size_t)blockIdx.x * SUMS * D + i] = total;
        }
        if (!last_of(counters + sample, chunks)) return;
        parts = partial, count = chunks;
    }
    for (int c = threadIdx.x; c < D; c += blockDim.x) {
        float total[SUMS] = {};
#pragma unroll 4
        for (int j = 0; j < count; j++)
#pragma unroll
            for (int i = 0; i < SUMS; i++) total[i] += *(const volatile float*)(parts + ((size_t)j * SUMS + i) * D + c);
        put(scale_bar[(size_t)sample * scale_bar_stride + c], total[0]);
        put(shift_bar[(size_t)sample * shift_bar_stride + c], total[1]);
        if (RESIDUAL) {
            put(gate_bar[(size_t)sample * gate_bar_stride + c], total[SUMS - 2] + bias[c] * total[SUMS - 1]);
            bias_bars[(size_t)sample * D + c] = to_float(gate[(size_t)sample * gate_stride + c]) * total[SUMS - 1];
        }
    }
}

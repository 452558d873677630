// Softmax (A.13) and layer norm (A.14), plain with weights or modulated (A.15): one warp per row, sums in float, two passes for σ².
#include "common.h"

enum { ROWS = 4 };  // rows, and warps, of a block

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

// y = x̂ (one + scale) + shift. x: (rows, D), N rows per sample; scale and shift of sample b start at b · stride (0: one for all).
// one is 1 for a modulation, 0 for a weight. Keeps μ and r = 1/√(σ² + ε) of every row.
// With h the row is first x + gate ⊙ (h + bias), which is kept in x_out; the gate of sample b starts at b · gate_stride.
extern "C" __global__ void __launch_bounds__(128)
    layer_norm(const T* x, const T* gate, const T* h, const float* bias, T* x_out, const T* scale, const T* shift, T* y,
               float* mean, float* inverse, int rows, int N, int D, int gate_stride, int scale_stride, int shift_stride, float one,
               float eps) {
    int row = blockIdx.x * ROWS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    const T *r = x + (size_t)row * D, *s = scale + (size_t)(row / N) * scale_stride, *b = shift + (size_t)(row / N) * shift_stride;
    float v[VEC], w[VEC], u[VEC], sum = 0, square = 0;
    if (h) {  // below, a lane reads only what the same lane writes here
        const T *to_h = h + (size_t)row * D, *g = gate + (size_t)(row / N) * gate_stride;
        for (int i = lane * VEC; i < D; i += 32 * VEC) {
            float p[VEC];
            load(r + i, v);
            load(to_h + i, p);
            load(g + i, w);
            load(bias + i, u);
            for (int k = 0; k < VEC; k++) v[k] += w[k] * (p[k] + u[k]);
            store(x_out + (size_t)row * D + i, v);
        }
        r = x_out + (size_t)row * D;
    }
    for (int i = lane * VEC; i < D; i += 32 * VEC) {
        load(r + i, v);
        for (int k = 0; k < VEC; k++) sum += v[k];
    }
    float mu = warp_sum(sum) / D;
    for (int i = lane * VEC; i < D; i += 32 * VEC) {
        load(r + i, v);
        for (int k = 0; k < VEC; k++) square += (v[k] - mu) * (v[k] - mu);
    }
    float inv = 1.0f / sqrtf(warp_sum(square) / D + eps);
    for (int i = lane * VEC; i < D; i += 32 * VEC) {
        load(r + i, v);
        load(s + i, w);
        load(b + i, u);
        for (int k = 0; k < VEC; k++) v[k] = (v[k] - mu) * inv * (one + w[k]) + u[k];
        store(y + (size_t)row * D + i, v);
    }
    if (lane == 0) mean[row] = mu, inverse[row] = inv;
}

// x̄ = onto + r (g - mean g - x̂ mean(g⊙x̂)) with g = ȳ (one + scale);  scale̅ = Σ ȳ⊙x̂ and shift̅ = Σ ȳ over a sample's rows.
// Grid (chunks, samples): a block takes `chunk` rows of a sample. onto may be null. partial: (samples, chunks, 2, D) floats.
extern "C" __global__ void __launch_bounds__(128)
    layer_norm_backward(const T* x, const T* scale, const float* mean, const float* inverse, const T* y_bar, const T* onto,
                        T* x_bar, T* scale_bar, T* shift_bar, float* partial, unsigned* counters, int N, int D, int chunk,
                        int scale_stride, int scale_bar_stride, int shift_bar_stride, float one) {
    DYNAMIC_SHARED(float, sums);  // (warps, 2, D): every lane adds to its own columns
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, b = blockIdx.y;
    float *to_scale = sums + warp * 2 * D, *to_shift = to_scale + D;
    const T* s = scale + (size_t)b * scale_stride;
    for (int i = lane * VEC; i < D; i += 32 * VEC)
        for (int k = 0; k < VEC; k++) to_scale[i + k] = to_shift[i + k] = 0;
    int first = blockIdx.x * chunk, end = min(N, first + chunk);
    for (int n = first + warp; n < end; n += ROWS) {
        size_t row = (size_t)b * N + n, start = row * D;
        float mu = mean[row], inv = inverse[row], v[VEC], g[VEC], w[VEC], u[VEC], g_sum = 0, gx_sum = 0;
        for (int i = lane * VEC; i < D; i += 32 * VEC) {
            load(x + start + i, v);
            load(y_bar + start + i, g);
            load(s + i, w);
            for (int k = 0; k < VEC; k++) {
                float x_hat = (v[k] - mu) * inv;
                to_scale[i + k] += g[k] * x_hat;
                to_shift[i + k] += g[k];
                g[k] *= one + w[k];
                g_sum += g[k];
                gx_sum += g[k] * x_hat;
            }
        }
        float m1 = warp_sum(g_sum) / D, m2 = warp_sum(gx_sum) / D;
        for (int i = lane * VEC; i < D; i += 32 * VEC) {
            load(x + start + i, v);
            load(y_bar + start + i, g);
            load(s + i, w);
            for (int k = 0; k < VEC; k++) u[k] = 0;
            if (onto) load(onto + start + i, u);
            for (int k = 0; k < VEC; k++) v[k] = u[k] + inv * (g[k] * (one + w[k]) - m1 - (v[k] - mu) * inv * m2);
            store(x_bar + start + i, v);
        }
    }
    __syncthreads();
    unsigned chunks = gridDim.x;
    T *to_scale_bar = scale_bar + (size_t)b * scale_bar_stride, *to_shift_bar = shift_bar + (size_t)b * shift_bar_stride;
    for (int i = threadIdx.x; i < 2 * D; i += blockDim.x) {
        float total = 0;
        for (int w = 0; w < ROWS; w++) total += sums[w * 2 * D + i];
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

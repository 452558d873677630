// One optimiser step over flat vectors (O.1 - O.6): the norm, then clipping, AdamW and EMA in one pass.
//
// Everything that changes from step to step is read from the device: rates = (lr, 1-β₁ⁿ, 1-β₂ⁿ, d), written by the host's
// `set_rates` or, in a captured graph, by `next_rates` from a counter that lives on the device.
#include "common.h"

enum { BLOCK = 256 };

extern "C" __global__ void set_rates(float* rates, float lr, float c1, float c2, float d) {
    if (threadIdx.x == 0) rates[0] = lr, rates[1] = c1, rates[2] = c2, rates[3] = d;
}

// n = ++*step, and the laws of the learning rate (O.5, O.6) and of the EMA (O.4) in float64.
extern "C" __global__ void next_rates(long long* step, float* rates, double lr, double final_lr, long long warmup, long long steps,
                                      double b1, double b2, double ema) {
    if (threadIdx.x) return;
    double n = (double)++*step, rate = lr;
    if (n < warmup) {
        rate = lr * n / warmup;
    } else {
        double u = min(1.0, (n - warmup) / (double)max(1LL, steps - warmup));
        rate = lr * (final_lr + (1 - final_lr) * 0.5 * (1 + cos(3.14159265358979323846 * u)));
    }
    rates[0] = (float)rate;
    rates[1] = (float)(1 - pow(b1, n));
    rates[2] = (float)(1 - pow(b2, n));
    rates[3] = (float)min(ema, (1 + n) / (10 + n));
}

// *square = Σ g². partial: (blocks,) floats. Each block's sum, then the last block's sum of those, has one order.
extern "C" __global__ void __launch_bounds__(256)
    square_sum(const float* g, float* square, float* partial, unsigned* counter, long long n) {
    __shared__ float warps[8];
    float sum = 0, v[VEC];
    for (long long i = ((long long)blockIdx.x * BLOCK + threadIdx.x) * VEC; i < n; i += (long long)gridDim.x * BLOCK * VEC) {
        load(g + i, v);
        for (int k = 0; k < VEC; k++) sum += v[k] * v[k];
    }
    for (int pass = 0; pass < 2; pass++) {
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
        __syncthreads();
        float total = 0;
        for (int w = 0; w < 8; w++) total += warps[w];
        if (threadIdx.x == 0) *(pass ? square : partial + blockIdx.x) = total;
        if (pass == 0 && !last_of(counter, gridDim.x)) return;
        const volatile float* p = partial;
        sum = 0;
        if (pass == 0)
            for (unsigned i = threadIdx.x; i < gridDim.x; i += BLOCK) sum += p[i];
    }
}

// θ, m, v, average ← one step with the gradient f g, where f = factor · min(1, limit/√square); limit 0 or square null: f = factor.
// decays: λ where a weight decays, or null. copy: θ in bfloat16, written too, or null. a1, a2: 1-β₁ and 1-β₂, which the host rounds once: 1 - 0.999f is off by 1e-5.
extern "C" __global__ void __launch_bounds__(256, 3)
    adamw_ema(float* theta, float* m, float* v, const float* g, const float* decays, float* average, const float* rates,
              const float* square, const float* factor, bf16* copy, float limit, float b1, float b2, float a1, float a2, float eps,
              long long n) {
    float lr = rates[0], c1 = 1.0f / rates[1], c2 = 1.0f / rates[2], d = rates[3], f = factor ? *factor : 1.0f;
    if (square && limit > 0) f *= fminf(1.0f, limit / fmaxf(sqrtf(*square), 1e-12f));
    for (long long i = ((long long)blockIdx.x * BLOCK + threadIdx.x) * VEC; i < n; i += (long long)gridDim.x * BLOCK * VEC) {
        float p[VEC], mi[VEC], vi[VEC], gi[VEC], a[VEC], w[VEC];
        load(theta + i, p);
        load(m + i, mi);
        load(v + i, vi);
        load(g + i, gi);
        load(average + i, a);
        for (int k = 0; k < VEC; k++) w[k] = 0;
        if (decays) load(decays + i, w);
        for (int k = 0; k < VEC; k++) {
            float x = f * gi[k];
            mi[k] = b1 * mi[k] + a1 * x;
            vi[k] = b2 * vi[k] + a2 * x * x;
            p[k] -= lr * (mi[k] * c1 / (sqrtf(vi[k] * c2) + eps) + w[k] * p[k]);
            a[k] = d * a[k] + (1 - d) * p[k];
        }
        store(theta + i, p);
        if (copy) store(copy + i, p);
        store(m + i, mi);
        store(v + i, vi);
        store(average + i, a);
    }
}

// The laws of diffusion on a batch: the noisy sample (D.1), and one guided step down (G.1, D.4, D.7, D.17).
//
// Coefficients are float64 tables on the device, and the rung, too, is read there: a captured step is replayed for every rung.
#include "common.h"

enum { BLOCK = 256 };

// x_t = √ᾱ x_0 + √(1-ᾱ) ε of the sample's own rung t_b. x_0: (B, per_sample)
extern "C" __global__ void __launch_bounds__(256) q_sample(const T* x_0, const T* eps, const long long* t, const double* alpha_bar,
                                                          T* x_t, long long n, long long per_sample) {
    for (long long i = ((long long)blockIdx.x * BLOCK + threadIdx.x) * VEC; i < n; i += (long long)gridDim.x * BLOCK * VEC) {
        double a = alpha_bar[t[i / per_sample]];
        float signal = (float)sqrt(a), noise = (float)sqrt(1 - a), x[VEC], e[VEC];
        load(x_0 + i, x);
        load(eps + i, e);
        for (int k = 0; k < VEC; k++) x[k] = signal * x[k] + noise * e[k];
        store(x_t + i, x);
    }
}

enum { EPS, X_0, V };

// x_s = √ᾱ_s x̂_0 + √(1-ᾱ_s-c²) ε̂ + fresh z, with (x̂_0, ε̂) from out = u + w (o - u), the network's guided output.
//
// table: (steps, 4) float64 rows ᾱ_t, ᾱ_s, c, fresh; *step chooses the row. out, out_u: sample b starts at b · out_stride (the
// network may have more channels than the picture); out_u null: no guidance. kind: what the network predicts. clip: |x̂_0| ≤ 1,
// and ε̂ again from it. z may be null where fresh is 0. x_0_hat may be null.
extern "C" __global__ void __launch_bounds__(256)
    guided_step(const T* x_t, const T* out, const T* out_u, const T* z, const double* table, const long long* step, T* x_s,
                T* x_0_hat, long long n, long long per_sample, long long out_stride, float w, int kind, int clip) {
    const double* row = table + 4 * *step;
    double a_t = row[0], a_s = row[1], c = row[2], rest = 1 - a_s - c * c;
    float signal_t = (float)sqrt(a_t), noise_t = (float)sqrt(1 - a_t), signal = (float)sqrt(a_s);
    float direction = (float)sqrt(rest > 0 ? rest : 0.0), fresh = (float)row[3];
    for (long long i = ((long long)blockIdx.x * BLOCK + threadIdx.x) * VEC; i < n; i += (long long)gridDim.x * BLOCK * VEC) {
        long long j = i / per_sample * out_stride + i % per_sample;
        float x[VEC], o[VEC], u[VEC], fresh_z[VEC], guess[VEC];
        load(x_t + i, x);
        load(out + j, o);
        if (out_u) {
            load(out_u + j, u);
            for (int k = 0; k < VEC; k++) o[k] = u[k] + w * (o[k] - u[k]);
        }
        for (int k = 0; k < VEC; k++) fresh_z[k] = 0;
        if (z) load(z + i, fresh_z);
        for (int k = 0; k < VEC; k++) {
            float x_0, e;
            if (kind == EPS) {
                e = o[k];
                x_0 = (x[k] - noise_t * e) / signal_t;
            } else if (kind == X_0) {
                x_0 = o[k];
                e = (x[k] - signal_t * x_0) / noise_t;
            } else {
                x_0 = signal_t * x[k] - noise_t * o[k];
                e = noise_t * x[k] + signal_t * o[k];
            }
            if (clip) {
                x_0 = fminf(fmaxf(x_0, -1.0f), 1.0f);
                e = (x[k] - signal_t * x_0) / noise_t;
            }
            guess[k] = x_0;
            x[k] = signal * x_0 + direction * e + fresh * fresh_z[k];
        }
        store(x_s + i, x);
        if (x_0_hat) store(x_0_hat + i, guess);
    }
}

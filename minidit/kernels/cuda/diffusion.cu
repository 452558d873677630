// The laws of diffusion on a batch: the noisy sample (P.1), and one guided step of a walk (G.1, P.3, P.4).
//
// Coefficients are float64 numbers on the device, and the row of a step, too, is read there: a captured step is replayed for all.
#include "common.h"

enum { BLOCK = 256 };

// x_t = α x_0 + σ ε at the sample's own level (α_b, σ_b). x_0: (B, per_sample)
extern "C" __global__ void __launch_bounds__(256) mix(const T* x_0, const T* eps, const double* alpha, const double* sigma,
                                                     T* x_t, long long n, long long per_sample) {
    for (long long i = ((long long)blockIdx.x * BLOCK + threadIdx.x) * VEC; i < n; i += (long long)gridDim.x * BLOCK * VEC) {
        float signal = (float)alpha[i / per_sample], noise = (float)sigma[i / per_sample], x[VEC], e[VEC];
        load(x_0 + i, x);
        load(eps + i, e);
        for (int k = 0; k < VEC; k++) x[k] = signal * x[k] + noise * e[k];
        store(x_t + i, x);
    }
}

// x_s = α_s x̂_0 + √(σ_s²-c²) ε̂ + std z, with (x̂_0, ε̂) read off F = F_u + w (F - F_u), the network's guided answer.
//
// table: rows of `columns` float64, see Row in diffusion/row.py; *step chooses the row. F, F_u: sample b starts at b · F_stride
// (the network may have more channels than the picture); F_u null: no guidance. clip: |x̂_0| ≤ 1, and ε̂ again from it. z may be
// null where std is 0. x_0_hat may be null.
extern "C" __global__ void __launch_bounds__(256)
    walk_step(const T* x_t, const T* F, const T* F_u, const T* z, const double* table, int columns, const long long* step, T* x_s,
              T* x_0_hat, long long n, long long per_sample, long long F_stride, float w, int clip) {
    const double* row = table + columns * *step;
    float x_of_x = (float)row[0], x_of_F = (float)row[1], eps_of_x = (float)row[2], eps_of_F = (float)row[3];
    double rest = row[7] * row[7] - row[8] * row[8];
    float alpha_t = (float)row[4], sigma_t = (float)row[5], signal = (float)row[6], std = (float)row[9];
    float direction = (float)sqrt(rest > 0 ? rest : 0.0);
    for (long long i = ((long long)blockIdx.x * BLOCK + threadIdx.x) * VEC; i < n; i += (long long)gridDim.x * BLOCK * VEC) {
        long long j = i / per_sample * F_stride + i % per_sample;
        float x[VEC], f[VEC], u[VEC], fresh[VEC], guess[VEC];
        load(x_t + i, x);
        load(F + j, f);
        if (F_u) {
            load(F_u + j, u);
            for (int k = 0; k < VEC; k++) f[k] = u[k] + w * (f[k] - u[k]);
        }
        for (int k = 0; k < VEC; k++) fresh[k] = 0;
        if (z) load(z + i, fresh);
        for (int k = 0; k < VEC; k++) {
            float x_0 = x_of_x * x[k] + x_of_F * f[k], e = eps_of_x * x[k] + eps_of_F * f[k];
            if (clip) {
                x_0 = fminf(fmaxf(x_0, -1.0f), 1.0f);
                e = (x[k] - alpha_t * x_0) / sigma_t;
            }
            guess[k] = x_0;
            x[k] = signal * x_0 + direction * e + std * fresh[k];
        }
        store(x_s + i, x);
        if (x_0_hat) store(x_0_hat + i, guess);
    }
}

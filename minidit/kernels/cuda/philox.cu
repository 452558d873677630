// Philox4x32-10 and what is drawn from it: the integers and the counters of random.py (R.1 - R.5), word for word.
//
// counter = (block within the sample, draw, sample, stream), key = seed. The number of the draw is *step · per + more with a counter
// on the device (null: 0), so that a captured graph draws new numbers at each replay. A thread makes one block: four words of a sample.
#include "common.h"

struct Words {
    unsigned w[4];
};

__device__ __forceinline__ Words philox4x32(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0, unsigned k1) {
    for (int i = 0; i < 10; i++) {
        unsigned long long p0 = (unsigned long long)c0 * 0xD2511F53u, p1 = (unsigned long long)c2 * 0xCD9E8D57u;
        c0 = (unsigned)(p1 >> 32) ^ c1 ^ k0;
        c1 = (unsigned)p1;
        c2 = (unsigned)(p0 >> 32) ^ c3 ^ k1;
        c3 = (unsigned)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Words out = {{c0, c1, c2, c3}};
    return out;
}

// The words of this thread; sample and first entry by reference. False beyond the end.
__device__ __forceinline__ bool mine(const long long* samples, int n, int per_sample, unsigned k0, unsigned k1, unsigned stream,
                                     const long long* step, unsigned per, unsigned more, Words& words, long long& sample, int& entry) {
    int blocks = (per_sample + 3) / 4;
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    sample = i / blocks;
    entry = (int)(i % blocks) * 4;
    if (sample >= n) return false;
    unsigned index = (unsigned)(samples ? samples[sample] : sample);
    words = philox4x32((unsigned)(entry / 4), (step ? (unsigned)*step * per : 0u) + more, index, stream, k0, k1);
    return true;
}

__device__ __forceinline__ void put(double& to, double x) { to = x; }

// Numbers in (0, 1); in double, for laws of training times, never 1, to which a float may round.
template <class S>
__device__ __forceinline__ void fractions(S* out, const long long* samples, int n, int per_sample, unsigned k0, unsigned k1,
                                          unsigned stream, const long long* step, unsigned per, unsigned more) {
    Words words;
    long long sample;
    int entry;
    if (!mine(samples, n, per_sample, k0, k1, stream, step, per, more, words, sample, entry)) return;
    for (int k = 0; k < 4 && entry + k < per_sample; k++)
        put(out[sample * per_sample + entry + k], (words.w[k] + 0.5) * (1.0 / 4294967296.0));
}

extern "C" __global__ void uniform(T* out, const long long* samples, int n, int per_sample, unsigned k0, unsigned k1,
                                   unsigned stream, const long long* step, unsigned per, unsigned more) {
    fractions(out, samples, n, per_sample, k0, k1, stream, step, per, more);
}
extern "C" __global__ void uniform64(double* out, const long long* samples, int n, int per_sample, unsigned k0, unsigned k1,
                                     unsigned stream, const long long* step, unsigned per, unsigned more) {
    fractions(out, samples, n, per_sample, k0, k1, stream, step, per, more);
}

extern "C" __global__ void normal(T* out, const long long* samples, int n, int per_sample, unsigned k0, unsigned k1,
                                  unsigned stream, const long long* step, unsigned per, unsigned more) {
    Words words;
    long long sample;
    int entry;
    if (!mine(samples, n, per_sample, k0, k1, stream, step, per, more, words, sample, entry)) return;
    for (int k = 0; k < 4 && entry + k < per_sample; k += 2) {
        double radius = sqrt(-2.0 * log((words.w[k] + 0.5) * (1.0 / 4294967296.0))), s, c;
        sincospi((words.w[k + 1] + 0.5) * (2.0 / 4294967296.0), &s, &c);
        T* to = out + sample * per_sample + entry + k;
        put(to[0], (float)(radius * c));
        if (entry + k + 1 < per_sample) put(to[1], (float)(radius * s));
    }
}

extern "C" __global__ void integers(long long* out, const long long* samples, int n, int per_sample, unsigned k0, unsigned k1,
                                    unsigned stream, const long long* step, unsigned per, unsigned more, long long low,
                                    unsigned long long span) {
    Words words;
    long long sample;
    int entry;
    if (!mine(samples, n, per_sample, k0, k1, stream, step, per, more, words, sample, entry)) return;
    for (int k = 0; k < 4 && entry + k < per_sample; k++)
        out[sample * per_sample + entry + k] = (long long)((words.w[k] * span) >> 32) + low;
}

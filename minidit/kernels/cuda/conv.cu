// A convolution as a matrix product over windows (A.23): the windows of a picture as rows, and rows added back to the picture.
// Rows are pixels (b, r, c) of the output, their columns (i, j, channel). No sum is made by atomics: every pixel collects its own.
#include "common.h"

// rows: (B h w, kh kw C). x[b, c, y, x] lies at b sb + c sc + y sh + x sw; VEC > 1 only where sc is 1.
extern "C" __global__ void __launch_bounds__(256)
    columns(const T* x, T* rows, long long n, int C, int H, int W, int h, int w, int kh, int kw, int stride, int before,
            long long sb, long long sc, long long sh, long long sw) {
    int across = C / VEC;
    for (long long k = blockIdx.x * 256ll + threadIdx.x; k < n; k += gridDim.x * 256ll) {
        int c = (int)(k % across) * VEC;
        long long rest = k / across;
        int j = (int)(rest % kw), i = (int)(rest / kw % kh);
        rest /= kh * kw;
        int s = (int)(rest % w), r = (int)(rest / w % h);
        long long b = rest / w / h;
        int y = stride * r + i - before, z = stride * s + j - before;
        float v[VEC];
        for (int m = 0; m < VEC; m++) v[m] = 0;
        if (y >= 0 && y < H && z >= 0 && z < W) load(x + b * sb + c * sc + y * sh + z * sw, v);
        store(rows + k * VEC, v);
    }
}

// The adjoint: x_bar, (B, H, W, C), is for every pixel the sum of its places in the windows, in one order.
extern "C" __global__ void __launch_bounds__(256)
    picture(const T* rows, T* x_bar, long long n, int C, int H, int W, int h, int w, int kh, int kw, int stride, int before) {
    int across = C / VEC;
    for (long long k = blockIdx.x * 256ll + threadIdx.x; k < n; k += gridDim.x * 256ll) {
        int c = (int)(k % across) * VEC;
        long long rest = k / across;
        int z = (int)(rest % W), y = (int)(rest / W % H);
        long long b = rest / W / H;
        float sum[VEC], v[VEC];
        for (int m = 0; m < VEC; m++) sum[m] = 0;
        for (int i = 0; i < kh; i++) {
            int r = y + before - i;
            if (r < 0 || r % stride || r / stride >= h) continue;
            for (int j = 0; j < kw; j++) {
                int s = z + before - j;
                if (s < 0 || s % stride || s / stride >= w) continue;
                load(rows + (((b * h + r / stride) * w + s / stride) * kh * kw + i * kw + j) * C + c, v);
                for (int m = 0; m < VEC; m++) sum[m] += v[m];
            }
        }
        store(x_bar + k * VEC, sum);
    }
}

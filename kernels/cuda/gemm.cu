// A product of matrices of any float types and strides, for what cuBLASLt does not take or where it is missing: fp32 sums on
// ordinary units, in an order that depends on the shape alone.
#include "common.cuh"

enum { F32, F16, BF16 }; // as kernels.DType

__device__ __forceinline__ float fetch(const void *p, long long i, int type) {
	return type == F32 ? ((const float *)p)[i] : type == F16 ? to(((const f16 *)p)[i]) : to(((const bf16 *)p)[i]);
}

__device__ __forceinline__ void put(void *p, long long i, int type, float v) {
	if (type == F32) ((float *)p)[i] = v;
	else if (type == F16) ((f16 *)p)[i] = as<f16>(v);
	else ((bf16 *)p)[i] = as<bf16>(v);
}

// Each block computes 64 × 64 elements of out, each thread 4 × 4, from tiles 16 deep.
constexpr int TILE = 64, DEEP = 16;

// out (M,N) = alpha·x (M,K)·y (K,N) + beta·out + bias (N). An element of x lies at m·xm + k·xk, one of y at k·yk + n·yn.
extern "C" __global__ void __launch_bounds__(256) gemm(void *out, const void *x, const void *y, const void *bias, int M, int N, int K,
	long long xm, long long xk, long long yk, long long yn, float alpha, float beta, int out_type, int x_type, int y_type, int bias_type) {
	__shared__ float xs[DEEP][TILE + 4], ys[DEEP][TILE + 4];
	int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE, tx = threadIdx.x % 16 * 4, ty = threadIdx.x / 16 * 4;
	float sum[4][4] = {};
	for (int k0 = 0; k0 < K; k0 += DEEP) {
		for (int i = threadIdx.x; i < TILE * DEEP; i += 256) {
			// Neighbouring threads read what lies side by side.
			int a = xk == 1 ? i / DEEP : i % TILE, ka = xk == 1 ? i % DEEP : i / TILE;
			xs[ka][a] = m0 + a < M && k0 + ka < K ? fetch(x, (m0 + a) * xm + (k0 + ka) * xk, x_type) : 0;
			int b = yk == 1 ? i / DEEP : i % TILE, kb = yk == 1 ? i % DEEP : i / TILE;
			ys[kb][b] = n0 + b < N && k0 + kb < K ? fetch(y, (k0 + kb) * yk + (n0 + b) * yn, y_type) : 0;
		}
		__syncthreads();
#pragma unroll
		for (int k = 0; k < DEEP; k++) {
			float4 a = *(float4 *)&xs[k][ty], b = *(float4 *)&ys[k][tx];
			float as[4] = {a.x, a.y, a.z, a.w}, bs[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
			for (int i = 0; i < 4; i++)
#pragma unroll
				for (int j = 0; j < 4; j++) sum[i][j] += as[i] * bs[j];
		}
		__syncthreads();
	}
	for (int i = 0; i < 4; i++)
		for (int j = 0; j < 4; j++) {
			int m = m0 + ty + i, n = n0 + tx + j;
			if (m >= M || n >= N) continue;
			long long at = (long long)m * N + n;
			float v = alpha * sum[i][j];
			if (beta != 0) v += beta * fetch(out, at, out_type);
			if (bias) v += fetch(bias, n, bias_type);
			put(out, at, out_type, v);
		}
}

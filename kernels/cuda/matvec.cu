// Linear for a few tokens: a warp has a row of the weights, which are read once and multiplied with all tokens. Sums are fp32.
#include "vector.cuh"

__device__ __forceinline__ float bias_at(const void *bias, int type, int row) {
	if (!bias) return 0;
	return type == 0 ? ((const float *)bias)[row] : type == 1 ? to(((const f16 *)bias)[row]) : to(((const bf16 *)bias)[row]);
}

// out (T,N) = x (T,K)·weight (N,K)ᵀ + bias, T at most 8, K a multiple of 8, rows of x and weight aligned to 16 bytes.
template <int T, class X, class W>
__device__ __forceinline__ void some(X *out, const X *x, const W *weight, const void *bias, int bias_type, int tokens, int N, int K) {
	const int lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
	if (row >= N) return;
	float sum[T] = {};
	const W *w = weight + (long long)row * K;
#pragma unroll 2
	for (int k = 8 * lane; k < K; k += 256) {
		float wide[8], v[8];
		load8(wide, w + k, 8, true);
#pragma unroll
		for (int t = 0; t < T; t++) {
			if (t >= tokens) break;
			load8(v, x + (long long)t * K + k, 8, true);
#pragma unroll
			for (int i = 0; i < 8; i++) sum[t] = fmaf(wide[i], v[i], sum[t]);
		}
	}
#pragma unroll
	for (int t = 0; t < T; t++) {
		if (t >= tokens) break;
		float all = warp_sum(sum[t]);
		if (lane == 0) out[(long long)t * N + row] = as<X>(all + bias_at(bias, bias_type, row));
	}
}

template <class X, class W>
__device__ __forceinline__ void matvec(X *out, const X *x, const W *weight, const void *bias, int bias_type, int tokens, int N, int K) {
	if (tokens == 1) some<1>(out, x, weight, bias, bias_type, tokens, N, K);
	else if (tokens <= 4) some<4>(out, x, weight, bias, bias_type, tokens, N, K);
	else some<8>(out, x, weight, bias, bias_type, tokens, N, K);
}

#define MATVEC(XS, X, WS, W) \
	extern "C" __global__ void __launch_bounds__(256) matvec##XS##WS(X *out, const X *x, const W *weight, const void *bias, int bias_type, int tokens, int N, int K) { \
		matvec(out, x, weight, bias, bias_type, tokens, N, K); \
	}
#define MATVEC_F32(WS, W) MATVEC(_f32, float, WS, W)
#define MATVEC_F16(WS, W) MATVEC(_f16, f16, WS, W)
#define MATVEC_BF16(WS, W) MATVEC(_bf16, bf16, WS, W)
EACH_FLOAT(MATVEC_F32)
EACH_FLOAT(MATVEC_F16)
EACH_FLOAT(MATVEC_BF16)

// The product of 16-bit matrices on tensor cores, where cuBLASLt is missing: blocks of 128 × 128 of the output, from tiles 32 deep, three
// of which are in shared memory or on their way there.
#include "mma.cuh"
#include "vector.cuh"

constexpr int SIDE = 128, DEPTH = 32, STAGES = 3;

// A tile has its 16-byte pieces in an order in which neither copies nor ldmatrix meet in a bank.
template <class T> __device__ __forceinline__ T *narrow(T *tile, int row, int piece) { return tile + row * DEPTH + (piece ^ row / 2 % 4) * 8; }
template <class T> __device__ __forceinline__ T *wide(T *tile, int row, int piece) { return tile + row * SIDE + (piece ^ row % 8) * 8; }

// out (M,N) = alpha·x (M,K)·op(y) + beta·out + bias (N), y (K,N) or transposed (N,K); bias may be none. K is a multiple of 8, and
// so is N where y is not transposed; x and y are aligned to 16 bytes. A warp has 64 × 32 of the output.
template <bool TRANSPOSED, class T> __device__ __forceinline__ void tiles(T *out, const T *x, const T *y, const T *bias, int M, int N, int K, float alpha, float beta) {
	__shared__ __align__(128) T xs[STAGES][SIDE * DEPTH], ys[STAGES][SIDE * DEPTH];
	const int m0 = blockIdx.y * SIDE, n0 = blockIdx.x * SIDE, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
	const int wm = warp / 4 * 64, wn = warp % 4 * 32;

	auto load = [&](int stage, int k0) {
#pragma unroll
		for (int h = 0; h < 2; h++) {
			int i = threadIdx.x + 256 * h, row = i / 4, piece = i % 4, k = k0 + 8 * piece;
			bool there = m0 + row < M && k < K;
			fetch16(narrow(xs[stage], row, piece), there ? x + (long long)(m0 + row) * K + k : x, there);
			if (TRANSPOSED) {
				there = n0 + row < N && k < K;
				fetch16(narrow(ys[stage], row, piece), there ? y + (long long)(n0 + row) * K + k : y, there);
			} else {
				row = i / 16, piece = i % 16;
				there = k0 + row < K && n0 + 8 * piece < N;
				fetch16(wide(ys[stage], row, piece), there ? y + (long long)(k0 + row) * N + n0 + 8 * piece : y, there);
			}
		}
	};

	float sum[4][4][4] = {};
	const int steps = (K + DEPTH - 1) / DEPTH;
#pragma unroll
	for (int s = 0; s < STAGES - 1; s++) {
		if (s < steps) load(s, s * DEPTH);
		fetched();
	}
	for (int s = 0; s < steps; s++) {
		await<STAGES - 2>();
		__syncthreads();
		if (s + STAGES - 1 < steps) load((s + STAGES - 1) % STAGES, (s + STAGES - 1) * DEPTH);
		fetched();
		T *xt = xs[s % STAGES], *yt = ys[s % STAGES];
#pragma unroll
		for (int k = 0; k < DEPTH; k += 16) {
			uint32_t a[4][4], b[2][4];
#pragma unroll
			for (int i = 0; i < 4; i++) matrices<false>(a[i], narrow(xt, wm + 16 * i + lane % 16, k / 8 + lane / 16));
#pragma unroll
			for (int j = 0; j < 2; j++)
				if (TRANSPOSED) matrices<false>(b[j], narrow(yt, wn + 16 * j + lane / 16 * 8 + lane % 8, k / 8 + lane / 8 % 2));
				else matrices<true>(b[j], wide(yt, k + lane % 16, wn / 8 + 2 * j + lane / 16));
#pragma unroll
			for (int i = 0; i < 4; i++)
#pragma unroll
				for (int j = 0; j < 4; j++) mma(sum[i][j], a[i][0], a[i][1], a[i][2], a[i][3], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], T());
		}
	}

	const bool even = N % 2 == 0 && (uintptr_t)out % 4 == 0;
#pragma unroll
	for (int i = 0; i < 4; i++)
#pragma unroll
		for (int h = 0; h < 2; h++) {
			int m = m0 + wm + 16 * i + 8 * h + lane / 4;
			if (m >= M) continue;
#pragma unroll
			for (int j = 0; j < 4; j++) {
				int n = n0 + wn + 8 * j + lane % 4 * 2;
				T *at = out + (long long)m * N + n;
				float v[2];
#pragma unroll
				for (int e = 0; e < 2; e++) {
					v[e] = alpha * sum[i][j][2 * h + e];
					if (n + e >= N) continue;
					if (beta != 0) v[e] += beta * to(at[e]);
					if (bias) v[e] += to(bias[n + e]);
				}
				if (even && n + 1 < N) *(uint32_t *)at = pack(v, T());
				else
					for (int e = 0; e < 2 && n + e < N; e++) at[e] = as<T>(v[e]);
			}
		}
}

#define TILES(NAME, T) \
	extern "C" __global__ void __launch_bounds__(256, 2) tiles##NAME(T *out, const T *x, const T *y, const T *bias, int M, int N, int K, float alpha, float beta) { \
		tiles<false>(out, x, y, bias, M, N, K, alpha, beta); \
	} \
	extern "C" __global__ void __launch_bounds__(256, 2) tiles_transposed##NAME(T *out, const T *x, const T *y, const T *bias, int M, int N, int K, float alpha, float beta) { \
		tiles<true>(out, x, y, bias, M, N, K, alpha, beta); \
	}
TILES(_f16, f16)
TILES(_bf16, bf16)

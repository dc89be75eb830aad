// The adapter's products with dropout in them: the masked input is made where it is used instead of being written and read.
// A is fp32 (r,K), everything else of the activations' type but the gradient of A. Ranks are done eight at a time.
#include "philox.cuh"

enum { GROUP = 8, TOKENS = 4 };

// row8 reads eight values of row `at` of A, 0 where there is no such row or column.
__device__ __forceinline__ void row8(float *w, const float *a, int at, int r, int i, int K, bool even) {
	load8(w, a + (long long)at * K + i, at < r ? K - i : 0, even && at < r && i + 8 <= K);
}

// low (T,r) = drop(x)·Aᵀ: a block has four tokens and eight ranks, its threads share the columns.
template <class T> __device__ __forceinline__ void low_rank(T *low, const T *x, const float *a, int tokens, int K, int r, mask m) {
	long long t = (long long)blockIdx.x * TOKENS;
	int rank = blockIdx.y * GROUP;
	bool even = aligned(x) && aligned(a) && K % 8 == 0;
	float sum[TOKENS][GROUP] = {};
	for (int i = threadIdx.x * 8; i < K; i += blockDim.x * 8) {
		float v[TOKENS][8];
#pragma unroll
		for (int k = 0; k < TOKENS; k++) {
			bool there = t + k < tokens;
			load8(v[k], x + (t + k) * K + i, there ? K - i : 0, even && there);
			if (there) m.apply(v[k], t + k, i);
		}
#pragma unroll
		for (int g = 0; g < GROUP; g++) {
			float w[8];
			row8(w, a, rank + g, r, i, K, even);
#pragma unroll
			for (int k = 0; k < TOKENS; k++)
#pragma unroll
				for (int j = 0; j < 8; j++) sum[k][g] += v[k][j] * w[j];
		}
	}
	__shared__ float part[32][TOKENS * GROUP];
#pragma unroll
	for (int k = 0; k < TOKENS; k++)
#pragma unroll
		for (int g = 0; g < GROUP; g++) {
			float s = warp_sum(sum[k][g]);
			if (threadIdx.x % 32 == 0) part[threadIdx.x / 32][k * GROUP + g] = s;
		}
	__syncthreads();
	if (threadIdx.x >= TOKENS * GROUP) return;
	float s = 0;
	for (int w = 0; w < blockDim.x / 32; w++) s += part[w][threadIdx.x];
	long long row = t + threadIdx.x / GROUP;
	int column = rank + threadIdx.x % GROUP;
	if (row < tokens && column < r) low[row * r + column] = as<T>(s);
}

// dx (T,K) += drop(dlow·A): a thread has eight columns of four tokens.
template <class T> __device__ __forceinline__ void low_rank_input(T *dx, const T *dlow, const float *a, int tokens, int K, int r, mask m) {
	int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
	if (i >= K) return;
	bool even = aligned(dx) && aligned(a) && K % 8 == 0, grouped = aligned(dlow) && r % 8 == 0;
	for (long long t = (long long)blockIdx.y * TOKENS; t < tokens; t += (long long)gridDim.y * TOKENS) {
		float sum[TOKENS][8] = {};
		for (int rank = 0; rank < r; rank += GROUP) {
			float d[TOKENS][GROUP];
#pragma unroll
			for (int k = 0; k < TOKENS; k++) {
				bool there = t + k < tokens;
				load8(d[k], dlow + (t + k) * r + rank, there ? r - rank : 0, grouped && there);
			}
#pragma unroll
			for (int g = 0; g < GROUP; g++) {
				float w[8];
				row8(w, a, rank + g, r, i, K, even);
#pragma unroll
				for (int k = 0; k < TOKENS; k++)
#pragma unroll
					for (int j = 0; j < 8; j++) sum[k][j] += d[k][g] * w[j];
			}
		}
#pragma unroll
		for (int k = 0; k < TOKENS; k++) {
			if (t + k >= tokens) break;

			T *at = dx + (t + k) * K + i;
			float v[8];
			load8(v, at, K - i, even);
			m.apply(sum[k], t + k, i);
#pragma unroll
			for (int j = 0; j < 8; j++) v[j] += sum[k][j];
			store8(at, v, K - i, even);
		}
	}
}

// part (parts,r,K) holds dlowᵀ·drop(x) of each part of the tokens: a thread has eight columns and eight ranks.
template <class T> __device__ __forceinline__ void low_rank_parts(float *part, const T *dlow, const T *x, int tokens, int K, int r, int each, mask m) {
	int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8, rank = blockIdx.z * GROUP;
	if (i >= K) return;
	bool even = aligned(x) && K % 8 == 0, grouped = aligned(dlow) && r % 8 == 0;
	float sum[GROUP][8] = {};
	long long from = (long long)blockIdx.y * each, until = min(from + each, (long long)tokens);
#pragma unroll 2
	for (long long t = from; t < until; t++) {
		float v[8], d[GROUP];
		load8(v, x + t * K + i, K - i, even);
		m.apply(v, t, i);
		load8(d, dlow + t * r + rank, r - rank, grouped);
#pragma unroll
		for (int g = 0; g < GROUP; g++)
#pragma unroll
			for (int j = 0; j < 8; j++) sum[g][j] += d[g] * v[j];
	}
#pragma unroll
	for (int g = 0; g < GROUP; g++)
		if (rank + g < r) store8(part + ((long long)blockIdx.y * r + rank + g) * K + i, sum[g], K - i, K % 8 == 0);
}

// add_parts adds up the parts, in their order: sum (n) += Σ part (parts,n).
extern "C" __global__ void add_parts(float *sum, const float *part, int parts, long long n) {
	long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n) return;
	float s = 0;
	for (int p = 0; p < parts; p++) s += part[p * n + i];
	sum[i] += s;
}

#define ADAPTER(NAME, T) \
	extern "C" __global__ void low_rank##NAME(T *low, const T *x, const float *a, int tokens, int K, int r, MASK(m)) { \
		low_rank(low, x, a, tokens, K, r, AS_MASK(m)); \
	} \
	extern "C" __global__ void low_rank_input##NAME(T *dx, const T *dlow, const float *a, int tokens, int K, int r, MASK(m)) { \
		low_rank_input(dx, dlow, a, tokens, K, r, AS_MASK(m)); \
	} \
	extern "C" __global__ void low_rank_parts##NAME(float *part, const T *dlow, const T *x, int tokens, int K, int r, int each, MASK(m)) { \
		low_rank_parts(part, dlow, x, tokens, K, r, each, AS_MASK(m)); \
	}
EACH_FLOAT(ADAPTER)

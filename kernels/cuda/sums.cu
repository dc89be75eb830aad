// SumSquares: out += Σ x². Each block adds up a part whose place depends on the number of elements alone, and one block adds up
// the parts, so the sum is the same on every GPU and in every run.
#include "vector.cuh"

// part holds the sum of each block's elements: those of the runs of eight blockIdx·threads + thread, a grid apart.
template <class T> __device__ __forceinline__ void squares(float *part, const T *x, long long n) {
	bool even = aligned(x);
	float sum = 0;
	for (long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 8; i < n; i += (long long)gridDim.x * blockDim.x * 8) {
		float v[8];
		load8(v, x + i, (int)min(n - i, 8LL), even && i + 8 <= n);
#pragma unroll
		for (int k = 0; k < 8; k++) sum += v[k] * v[k];
	}
	sum = block_sum(sum);
	if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

extern "C" __global__ void sum_parts(float *out, const float *part, int n) {
	float sum = 0;
	for (int i = threadIdx.x; i < n; i += blockDim.x) sum += part[i];
	sum = block_sum(sum);
	if (threadIdx.x == 0) *out += sum;
}

#define SUM_SQUARES(NAME, T) \
	extern "C" __global__ void sum_squares##NAME(float *part, const T *x, long long n) { squares(part, x, n); }
EACH_FLOAT(SUM_SQUARES)

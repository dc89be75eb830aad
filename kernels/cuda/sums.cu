// SumSquares: out += Σ x². Where one block does not do, each block adds up a part whose place depends on the number of elements
// alone, and one block adds up the parts. So the sum is the same on every GPU and in every run.
#include "vector.cuh"

// squares is the sum of a block's elements: those of its threads' runs of eight, a grid apart.
template <class T> __device__ __forceinline__ float squares(const T *x, long long n) {
	bool even = aligned(x);
	float sum = 0;
#pragma unroll 4
	for (long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 8; i < n; i += (long long)gridDim.x * blockDim.x * 8) {
		float v[8];
		load8(v, x + i, (int)min(n - i, 8LL), even && i + 8 <= n);
#pragma unroll
		for (int k = 0; k < 8; k++) sum += v[k] * v[k];
	}
	return block_sum(sum);
}

extern "C" __global__ void sum_parts(float *out, const float *part, int n) {
	float sum = 0;
	for (int i = threadIdx.x; i < n; i += blockDim.x) sum += part[i];
	sum = block_sum(sum);
	if (threadIdx.x == 0) *out += sum;
}

// sum_squares writes the parts, sum_few adds the sum of one block to out.
#define SUM_SQUARES(NAME, T) \
	extern "C" __global__ void sum_squares##NAME(float *part, const T *x, long long n) { \
		float sum = squares(x, n); \
		if (threadIdx.x == 0) part[blockIdx.x] = sum; \
	} \
	extern "C" __global__ void __launch_bounds__(1024) sum_few##NAME(float *out, const T *x, long long n) { \
		float sum = squares(x, n); \
		if (threadIdx.x == 0) *out += sum; \
	}
EACH_FLOAT(SUM_SQUARES)

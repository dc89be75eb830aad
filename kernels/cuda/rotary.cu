// Rotary position embedding, in place: a block turns the heads of one token, of x or, with blockIdx.y 1, of y.
#include "vector.cuh"

// A head's pairs (i, i+half) are taken eight at a time.
template <class T>
__device__ __forceinline__ void rotary(T *x, const int *positions, const float *table, int heads, int dim, int half, int inverse) {
	x += (long long)blockIdx.x * heads * dim;
	const float *cosines = table + (long long)positions[blockIdx.x] * 2 * half, *sines = cosines + half;
	int runs = (half + 7) / 8;
	for (int k = threadIdx.x; k < heads * runs; k += blockDim.x) {
		int i = k % runs * 8, n = min(half - i, 8);
		T *first = x + (long long)(k / runs) * dim + i, *second = first + half;
		bool wide = n == 8 && aligned(first) && aligned(second) && aligned(cosines + i) && aligned(sines + i);
		float a[8], b[8], c[8], s[8];
		load8(a, first, n, wide);
		load8(b, second, n, wide);
		load8(c, cosines + i, n, wide);
		load8(s, sines + i, n, wide);
#pragma unroll
		for (int j = 0; j < 8; j++) {
			float p = a[j], q = b[j], sine = inverse ? -s[j] : s[j];
			a[j] = p * c[j] - q * sine, b[j] = q * c[j] + p * sine;
		}
		store8(first, a, n, wide);
		store8(second, b, n, wide);
	}
}

#define ROTARY(NAME, T) \
	extern "C" __global__ void rotary##NAME(T *x, int x_heads, T *y, int y_heads, const int *positions, const float *table, int dim, int half, int inverse) { \
		rotary(blockIdx.y ? y : x, positions, table, blockIdx.y ? y_heads : x_heads, dim, half, inverse); \
	}
EACH_FLOAT(ROTARY)

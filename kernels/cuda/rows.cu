// Rows found by number: Embed converts them, Gather and Scatter move their bytes. One block a row; outputs are overwritten.
#include "vector.cuh"

template <class O, class X> __device__ __forceinline__ void embed(O *out, const X *table, const int *ids, int D) {
	O *to = out + (long long)blockIdx.x * D;
	const X *from = table + (long long)ids[blockIdx.x] * D;
	bool wide = aligned(to) && aligned(from);
	for (int i = threadIdx.x * 8; i < D; i += blockDim.x * 8) {
		float v[8];
		load8(v, from + i, D - i, wide && i + 8 <= D);
		store8(to + i, v, D - i, wide && i + 8 <= D);
	}
}

#define EMBED(NAME, O, X) \
	extern "C" __global__ void embed##NAME(O *out, const X *table, const int *ids, int D) { embed(out, table, ids, D); }
EMBED(_f32_f32, float, float)
EMBED(_f32_f16, float, f16)
EMBED(_f32_bf16, float, bf16)
EMBED(_f16_f32, f16, float)
EMBED(_f16_f16, f16, f16)
EMBED(_f16_bf16, f16, bf16)
EMBED(_bf16_f32, bf16, float)
EMBED(_bf16_f16, bf16, f16)
EMBED(_bf16_bf16, bf16, bf16)

// A row is n units of 16, 4, 2 or 1 bytes.
#define MOVE(NAME, T) \
	extern "C" __global__ void gather##NAME(T *out, const T *x, const int *rows, int n) { \
		T *to = out + (long long)blockIdx.x * n; \
		const T *from = x + (long long)rows[blockIdx.x] * n; \
		for (int i = threadIdx.x; i < n; i += blockDim.x) to[i] = from[i]; \
	} \
	extern "C" __global__ void scatter##NAME(T *out, const T *x, const int *rows, int n) { \
		T *to = out + (long long)rows[blockIdx.x] * n; \
		const T *from = x + (long long)blockIdx.x * n; \
		for (int i = threadIdx.x; i < n; i += blockDim.x) to[i] = from[i]; \
	}
MOVE(_16, uint4)
MOVE(_4, uint32_t)
MOVE(_2, uint16_t)
MOVE(_1, uint8_t)

// Dropout with the mask that kernels.DropoutKeep defines, bit by bit: out = x·mask·scale, a block a token. out may be x.
#include "vector.cuh"

// philox is Philox4x32-10: four random words for a counter and a key.
__device__ __forceinline__ uint4 philox(uint4 c, uint2 k) {
#pragma unroll
	for (int i = 0; i < 10; i++) {
		uint32_t high0 = __umulhi(0xD2511F53u, c.x), low0 = 0xD2511F53u * c.x;
		uint32_t high1 = __umulhi(0xCD9E8D57u, c.z), low1 = 0xCD9E8D57u * c.z;
		c = make_uint4(high1 ^ c.y ^ k.x, low1, high0 ^ c.w ^ k.y, low0);
		k.x += 0x9E3779B9u, k.y += 0xBB67AE85u;
	}
	return c;
}

template <class T>
__device__ __forceinline__ void dropout(T *out, const T *x, const int *tokens, int D, uint32_t threshold, float scale, uint2 key, uint32_t step) {
	long long t = blockIdx.x;
	uint32_t row = tokens[2 * t], position = tokens[2 * t + 1];
	out += t * D, x += t * D;
	bool even = aligned(out) && aligned(x);
	for (int i = threadIdx.x * 8; i < D; i += blockDim.x * 8) {
		bool wide = even && i + 8 <= D;
		float v[8];
		load8(v, x + i, D - i, wide);
		uint4 r = philox(make_uint4(i / 4, position, row, step), key), q = philox(make_uint4(i / 4 + 1, position, row, step), key);
		uint32_t words[8] = {r.x, r.y, r.z, r.w, q.x, q.y, q.z, q.w};
#pragma unroll
		for (int k = 0; k < 8; k++) v[k] = words[k] >= threshold ? v[k] * scale : 0;
		store8(out + i, v, D - i, wide);
	}
}

#define DROPOUT(NAME, T) \
	extern "C" __global__ void dropout##NAME(T *out, const T *x, const int *tokens, int D, unsigned threshold, float scale, unsigned key0, unsigned key1, unsigned step) { \
		dropout(out, x, tokens, D, threshold, scale, make_uint2(key0, key1), step); \
	}
EACH_FLOAT(DROPOUT)

// The mask of dropout that kernels.DropoutKeep defines, bit by bit.
#pragma once
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

// A mask is one use of dropout: what is kept is scaled. With threshold 0 everything is kept as it is.
struct mask {
	const int *tokens; // (T,2)
	uint32_t threshold;
	float scale;
	uint2 key;
	uint32_t step;

	// apply masks eight elements of token t's row, from column i.
	__device__ __forceinline__ void apply(float *v, long long t, int i) const {
		if (!threshold) return;
		uint32_t row = tokens[2 * t], position = tokens[2 * t + 1];
		uint4 r = philox(make_uint4(i / 4, position, row, step), key), q = philox(make_uint4(i / 4 + 1, position, row, step), key);
		uint32_t words[8] = {r.x, r.y, r.z, r.w, q.x, q.y, q.z, q.w};
#pragma unroll
		for (int k = 0; k < 8; k++) v[k] = words[k] >= threshold ? v[k] * scale : 0;
	}
};

// A kernel takes a mask as these parameters, and makes it of them.
#define MASK(M) const int *M##_tokens, unsigned M##_threshold, float M##_scale, unsigned M##_key0, unsigned M##_key1, unsigned M##_step
#define AS_MASK(M) mask{M##_tokens, M##_threshold, M##_scale, make_uint2(M##_key0, M##_key1), M##_step}

// The 8-bit maps of bitsandbytes' dynamic type: 256 ascending values.
#pragma once
#include "vector.cuh"

// nearest is the code of the value nearest to x; exactly between two it is the even one, and 0 for a NaN.
__device__ __forceinline__ uint8_t nearest(const float *map, float x) {
	if (x != x) return 0;
	int code = 0;
#pragma unroll
	for (int half = 128; half; half /= 2) {
		int at = code + half - 1;
		if (x > __fmul_rn(__fadd_rn(map[at], map[at + 1]), 0.5f)) code += half;
	}
	if (code < 255 && (code & 1) && x == __fmul_rn(__fadd_rn(map[code], map[code + 1]), 0.5f)) code++;
	return code;
}

// Runs of eight elements as fp32, in 16-byte accesses where addresses allow it.
#pragma once
#include "common.cuh"

__device__ __forceinline__ bool aligned(const void *p) { return (uintptr_t)p % 16 == 0; }

__device__ __forceinline__ void unpack(float *v, uint32_t w, f16) {
	float2 f = __half22float2(*(__half2 *)&w);
	v[0] = f.x, v[1] = f.y;
}
__device__ __forceinline__ void unpack(float *v, uint32_t w, bf16) {
	v[0] = __uint_as_float(w << 16), v[1] = __uint_as_float(w & 0xffff0000);
}
__device__ __forceinline__ uint32_t pack(const float *v, f16) {
	__half2 h = __floats2half2_rn(v[0], v[1]);
	return *(uint32_t *)&h;
}
__device__ __forceinline__ uint32_t pack(const float *v, bf16) {
	__nv_bfloat162 h = __floats2bfloat162_rn(v[0], v[1]);
	return *(uint32_t *)&h;
}

// load8 reads n ≤ 8 elements at p; the others are 0. wide promises that there are 8 and that p is aligned.
__device__ __forceinline__ void load8(float *v, const float *p, int n, bool wide) {
	if (wide) {
		float4 a = ((const float4 *)p)[0], b = ((const float4 *)p)[1];
		v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
		return;
	}
#pragma unroll
	for (int i = 0; i < 8; i++) v[i] = i < n ? p[i] : 0;
}
template <class T> __device__ __forceinline__ void load8(float *v, const T *p, int n, bool wide) {
	if (wide) {
		uint4 w = *(const uint4 *)p;
		unpack(v, w.x, T()), unpack(v + 2, w.y, T()), unpack(v + 4, w.z, T()), unpack(v + 6, w.w, T());
		return;
	}
#pragma unroll
	for (int i = 0; i < 8; i++) v[i] = i < n ? to(p[i]) : 0;
}

// store8 writes n ≤ 8 elements at p, rounded to its type.
__device__ __forceinline__ void store8(float *p, const float *v, int n, bool wide) {
	if (wide) {
		((float4 *)p)[0] = make_float4(v[0], v[1], v[2], v[3]);
		((float4 *)p)[1] = make_float4(v[4], v[5], v[6], v[7]);
		return;
	}
#pragma unroll
	for (int i = 0; i < 8; i++)
		if (i < n) p[i] = v[i];
}
template <class T> __device__ __forceinline__ void store8(T *p, const float *v, int n, bool wide) {
	if (wide) {
		*(uint4 *)p = make_uint4(pack(v, T()), pack(v + 2, T()), pack(v + 4, T()), pack(v + 6, T()));
		return;
	}
#pragma unroll
	for (int i = 0; i < 8; i++)
		if (i < n) p[i] = as<T>(v[i]);
}

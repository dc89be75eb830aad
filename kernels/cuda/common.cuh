// What all kernels share: types, conversions, sums over a warp and a block.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

typedef __half f16;
typedef __nv_bfloat16 bf16;

// to is a value as fp32; as<T> rounds one to T, to the nearest and ties to even.
__device__ __forceinline__ float to(float x) { return x; }
__device__ __forceinline__ float to(f16 x) { return __half2float(x); }
__device__ __forceinline__ float to(bf16 x) { return __bfloat162float(x); }
template <class T> __device__ __forceinline__ T as(float x);
template <> __device__ __forceinline__ float as<float>(float x) { return x; }
template <> __device__ __forceinline__ f16 as<f16>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ bf16 as<bf16>(float x) { return __float2bfloat16_rn(x); }

__device__ __forceinline__ float warp_sum(float x) {
	for (int i = 16; i; i /= 2) x += __shfl_xor_sync(~0u, x, i);
	return x;
}
__device__ __forceinline__ float warp_max(float x) {
	for (int i = 16; i; i /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
	return x;
}

// block_sum and block_max are over all threads of a one-dimensional block of whole warps, known to all of them afterwards,
// in an order that never changes.
__device__ __forceinline__ float block_sum(float x) {
	__shared__ float part[32];
	x = warp_sum(x);
	__syncthreads();
	if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
	__syncthreads();
	return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? part[threadIdx.x % 32] : 0);
}
__device__ __forceinline__ float block_max(float x) {
	__shared__ float part[32];
	x = warp_max(x);
	__syncthreads();
	if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
	__syncthreads();
	return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? part[threadIdx.x % 32] : -INFINITY);
}

// EACH_FLOAT instantiates a kernel template for the three float types, under names that end in the type.
// KERNEL(name, T) is the definition of one of them.
#define EACH_FLOAT(KERNEL) KERNEL(_f32, float) KERNEL(_f16, f16) KERNEL(_bf16, bf16)

// The instructions of decoding that C++ has no name for.
#pragma once
#include "common.cuh"

// Weights are read once a token: they leave nothing in the L1 cache.
__device__ __forceinline__ uint4 stream16(const void *p) {
	uint4 v;
	asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
	return v;
}
__device__ __forceinline__ uint2 stream8(const void *p) {
	uint2 v;
	asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
	return v;
}

// warm asks for what lies at p to be brought nearer.
__device__ __forceinline__ void warm(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// let_next allows the kernel behind this one to begin; await_previous waits until all that the kernels before this one wrote
// is there. Everything that depends on them comes after it, and every kernel calls it.
__device__ __forceinline__ void let_next() {
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ __forceinline__ void await_previous() {
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// mma adds to c (16×8) the product of a (16×16) and b (16×8), all spread over a warp. With g = lane/4 and t = lane%4 a lane
// has of a rows g and g+8, of b column g, each at k = 2t, 2t+1, 2t+8, 2t+9, and of c rows g and g+8 at columns 2t, 2t+1.
__device__ __forceinline__ void mma(float *c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		: "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

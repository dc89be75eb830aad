// The instructions of decoding that C++ has no name for.
#pragma once
#include "common.cuh"

// copy brings BYTES from device memory to shared memory in its own time, zeros where there is nothing.
template <int BYTES> // 16 or 8
__device__ __forceinline__ void copy(void *to, const void *from, bool there) {
	unsigned at = (unsigned)__cvta_generic_to_shared(to);
	int size = there ? BYTES : 0;
	if constexpr (BYTES == 16) asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(size) : "memory");
	else asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], 8, %2;" ::"r"(at), "l"(from), "r"(size) : "memory");
}

// close ends a group of a thread's copies; await_groups waits until all but its N latest groups are there.
__device__ __forceinline__ void close_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void await_groups() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

__device__ __forceinline__ void await_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// lane_id is the lane, in a register of its own: what the compiler works out anew at each use is waited for each time.
__device__ __forceinline__ unsigned lane_id() {
	unsigned lane;
	asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
	return lane;
}

// warm asks for what lies at p to be brought nearer.
__device__ __forceinline__ void warm(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// Gate is where all blocks of a grid meet: each arrives, and passes when all have. What a block wrote before it arrives is seen
// by those that have passed. One thread arrives and another waits, neither in the warps that have most to do besides: who arrives
// is held up until the block's writes are seen.
struct Gate {
	static constexpr int ARRIVES = 256, WAITS = 480;
	unsigned *count, target;
	__device__ void arrive() {
		__syncthreads();
		target += gridDim.x;
		if (threadIdx.x == ARRIVES) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(count) : "memory");
	}
	__device__ void pass() const {
		if (threadIdx.x == WAITS) {
			unsigned seen;
			do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(count) : "memory");
			while ((int)(seen - target) < 0);
		}
		__syncthreads();
	}
};

// mma adds to c (16×8) the product of a (16×16) and b (16×8), all spread over a warp. With g = lane/4 and t = lane%4 a lane
// has of a rows g and g+8, of b column g, each at k = 2t, 2t+1, 2t+8, 2t+9, and of c rows g and g+8 at columns 2t, 2t+1.
__device__ __forceinline__ void mma(float *c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		: "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

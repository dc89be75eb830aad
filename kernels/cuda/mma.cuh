// The tensor cores' product of small matrices of 16-bit numbers, summed in fp32, and what brings its operands there.
#pragma once
#include "common.cuh"

// mma adds to c (16,8) the product of a (16,16) and b (16,8). With g = lane/4 and q = 2·(lane%4), a lane holds of a the rows g and
// g+8 at columns q, q+1, then both at q+8, q+9; of b the rows q, q+1, then q+8, q+9 at column g; of c the rows g, then g+8 at
// columns q, q+1.
__device__ __forceinline__ void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1, f16) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		: "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1, bf16) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		: "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// matrices reads four 8 × 8 matrices from shared memory: lane i names row i%8 of matrix i/8, and holds of each its row lane/4 at
// columns 2·(lane%4) and the next; transposed, its column lane/4 at those rows.
template <bool TRANSPOSED> __device__ __forceinline__ void matrices(uint32_t (&r)[4], const void *row) {
	uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
	if (TRANSPOSED)
		asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
	else
		asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

// fetch16 and fetch8 begin to copy that many bytes to shared memory, zeros where there are none. fetched ends a group of such copies,
// and await<N> waits until at most N of this thread's groups are under way.
__device__ __forceinline__ void fetch16(void *shared, const void *from, bool there) {
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ __forceinline__ void fetch8(void *shared, const void *from, bool there) {
	asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)), "l"(from), "r"(there ? 8 : 0) : "memory");
}
__device__ __forceinline__ void fetched() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void await() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

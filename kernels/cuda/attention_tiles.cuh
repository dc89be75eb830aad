// Tiles of attention in shared memory and the tensor cores' m16n8k16 products on them, for 16-bit types. A tile's rows are
// WIDTH + 8 elements apart, which keeps ldmatrix free of bank conflicts, as WIDTH is a multiple of 16.
#pragma once
#include "common.cuh"

constexpr int QUERIES = 64, KEYS = 64, THREADS = 128; // of a block: four warps of 16 rows each

template <int WIDTH> constexpr int ROW = WIDTH + 8;

__device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// load_tile begins to copy rows [first, first + ROWS) of a matrix, `apart` elements apart and d wide, into a tile. Rows from end
// on, and what lies beyond d, become 0.
template <int ROWS, int WIDTH, class T>
__device__ __forceinline__ void load_tile(T *tile, const T *from, long long apart, int first, int end, int d) {
	for (int i = threadIdx.x; i < ROWS * (WIDTH / 8); i += THREADS) {
		int row = i / (WIDTH / 8), col = i % (WIDTH / 8) * 8;
		bool there = first + row < end && col < d;
		const T *source = there ? from + (first + row) * apart + col : from;
		asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(tile + row * ROW<WIDTH> + col)), "l"(source), "r"(there ? 16 : 0));
	}
}
__device__ __forceinline__ void load_commit() { asm volatile("cp.async.commit_group;"); }
template <int LEFT> __device__ __forceinline__ void load_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT)); }

__device__ __forceinline__ void load_matrices(uint32_t *r, const void *p) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(p)));
}
__device__ __forceinline__ void load_transposed(uint32_t *r, const void *p) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(p)));
}

__device__ __forceinline__ void multiply(float *c, const uint32_t *a, uint32_t b0, uint32_t b1, f16) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		: "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void multiply(float *c, const uint32_t *a, uint32_t b0, uint32_t b1, bf16) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		: "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t two(float a, float b, f16) {
	__half2 h = __floats2half2_rn(a, b);
	return *(uint32_t *)&h;
}
__device__ __forceinline__ uint32_t two(float a, float b, bf16) {
	__nv_bfloat162 h = __floats2bfloat162_rn(a, b);
	return *(uint32_t *)&h;
}

// rows16 reads a warp's 16 rows of a tile as the left operand of products.
template <int WIDTH, class T> __device__ __forceinline__ void rows16(uint32_t (*a)[4], const T *tile, int first) {
	int lane = threadIdx.x % 32;
#pragma unroll
	for (int k = 0; k < WIDTH / 16; k++) load_matrices(a[k], tile + (first + lane % 16) * ROW<WIDTH> + k * 16 + lane / 16 * 8);
}

// against_rows sets c (16, COLUMNS) += a (16, WIDTH) · tile (COLUMNS, WIDTH)ᵀ.
template <int COLUMNS, int WIDTH, class T> __device__ __forceinline__ void against_rows(float (*c)[4], const uint32_t (*a)[4], const T *tile) {
	int lane = threadIdx.x % 32;
#pragma unroll
	for (int n = 0; n < COLUMNS / 16; n++)
#pragma unroll
		for (int k = 0; k < WIDTH / 16; k++) {
			uint32_t b[4];
			load_matrices(b, tile + (n * 16 + lane / 16 * 8 + lane % 8) * ROW<WIDTH> + k * 16 + lane / 8 % 2 * 8);
			multiply(c[2 * n], a[k], b[0], b[1], T());
			multiply(c[2 * n + 1], a[k], b[2], b[3], T());
		}
}

// onto_columns sets c (16, WIDTH) += p (16, DEPTH) · tile (DEPTH, WIDTH), p rounded to T.
template <int DEPTH, int WIDTH, class T> __device__ __forceinline__ void onto_columns(float (*c)[4], const float (*p)[4], const T *tile) {
	int lane = threadIdx.x % 32;
#pragma unroll
	for (int k = 0; k < DEPTH / 16; k++) {
		uint32_t a[4] = {two(p[2 * k][0], p[2 * k][1], T()), two(p[2 * k][2], p[2 * k][3], T()),
			two(p[2 * k + 1][0], p[2 * k + 1][1], T()), two(p[2 * k + 1][2], p[2 * k + 1][3], T())};
#pragma unroll
		for (int n = 0; n < WIDTH / 16; n++) {
			uint32_t b[4];
			load_transposed(b, tile + (k * 16 + lane % 16) * ROW<WIDTH> + n * 16 + lane / 16 * 8);
			multiply(c[2 * n], a, b[0], b[1], T());
			multiply(c[2 * n + 1], a, b[2], b[3], T());
		}
	}
}

// Span is the keys [from, to) of a query.
struct Span { int from, to; };

__device__ __forceinline__ Span span_of(const int *spans, int t, int tokens) {
	if (t >= tokens || spans[2 * t + 1] <= 0) return {0x7fffffff, 0};
	return {spans[2 * t], spans[2 * t] + spans[2 * t + 1]};
}

__device__ __forceinline__ Span warp_union(Span s) {
	for (int i = 16; i; i /= 2) {
		s.from = min(s.from, __shfl_xor_sync(~0u, s.from, i));
		s.to = max(s.to, __shfl_xor_sync(~0u, s.to, i));
	}
	return s;
}

// block_union is the smallest span around those of all threads, known to all.
__device__ __forceinline__ Span block_union(Span s) {
	__shared__ Span part[THREADS / 32];
	s = warp_union(s);
	__syncthreads();
	if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = s;
	__syncthreads();
	for (int i = 0; i < THREADS / 32; i++) s.from = min(s.from, part[i].from), s.to = max(s.to, part[i].to);
	return s;
}

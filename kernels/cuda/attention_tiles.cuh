// Tiles of attention in shared memory and the tensor cores' m16n8k16 products on them, for 16-bit types. A tile's rows are
// WIDTH + 8 elements apart, which keeps ldmatrix free of bank conflicts, as WIDTH is a multiple of 16.
#pragma once
#include "mma.cuh"

constexpr int QUERIES = 64, KEYS = 64, THREADS = 128; // of a block: four warps of 16 rows each

template <int WIDTH> constexpr int ROW = WIDTH + 8;

// load_tile begins to copy rows [first, first + ROWS) of a matrix, `apart` elements apart and d wide, into a tile. Rows from end
// on, and what lies beyond d, become 0.
template <int ROWS, int WIDTH, class T>
__device__ __forceinline__ void load_tile(T *tile, const T *from, long long apart, int first, int end, int d) {
	for (int i = threadIdx.x; i < ROWS * (WIDTH / 8); i += THREADS) {
		int row = i / (WIDTH / 8), col = i % (WIDTH / 8) * 8;
		bool there = first + row < end && col < d;
		fetch16(tile + row * ROW<WIDTH> + col, there ? from + (first + row) * apart + col : from, there);
	}
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
	for (int k = 0; k < WIDTH / 16; k++) matrices<false>(a[k], tile + (first + lane % 16) * ROW<WIDTH> + k * 16 + lane / 16 * 8);
}

// against_rows sets c (16, COLUMNS) += a (16, WIDTH) · tile (COLUMNS, WIDTH)ᵀ.
template <int COLUMNS, int WIDTH, class T> __device__ __forceinline__ void against_rows(float (*c)[4], const uint32_t (*a)[4], const T *tile) {
	int lane = threadIdx.x % 32;
#pragma unroll
	for (int n = 0; n < COLUMNS / 16; n++)
#pragma unroll
		for (int k = 0; k < WIDTH / 16; k++) {
			uint32_t b[4];
			matrices<false>(b, tile + (n * 16 + lane / 16 * 8 + lane % 8) * ROW<WIDTH> + k * 16 + lane / 8 % 2 * 8);
			mma(c[2 * n], a[k][0], a[k][1], a[k][2], a[k][3], b[0], b[1], T());
			mma(c[2 * n + 1], a[k][0], a[k][1], a[k][2], a[k][3], b[2], b[3], T());
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
			matrices<true>(b, tile + (k * 16 + lane % 16) * ROW<WIDTH> + n * 16 + lane / 16 * 8);
			mma(c[2 * n], a[0], a[1], a[2], a[3], b[0], b[1], T());
			mma(c[2 * n + 1], a[0], a[1], a[2], a[3], b[2], b[3], T());
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

// Mine is what a thread of a block of queries knows of them: the block's first, its warp's two rows as operands hold them (lane/4 and
// 8 below), the keys of these, those that any row of the warp reads, and those that any of the block does.
struct Mine {
	int first, row[2];
	Span own[2], near, all;
	__device__ __forceinline__ int tiles() const { return all.to > all.from ? (all.to - all.from + KEYS - 1) / KEYS : 0; }
};

__device__ __forceinline__ Mine mine_of(const int *spans, int tokens) {
	Mine m;
	m.first = blockIdx.x * QUERIES;
	m.all = block_union(span_of(spans, m.first + threadIdx.x % QUERIES, tokens));
	for (int r = 0; r < 2; r++) {
		m.row[r] = m.first + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * r;
		m.own[r] = span_of(spans, m.row[r], tokens);
	}
	m.near = warp_union({min(m.own[0].from, m.own[1].from), max(m.own[0].to, m.own[1].to)});
	return m;
}

// fetch_keys begins to copy the i-th 64 of the keys and values that a block of queries reads into one of two places.
template <int WIDTH, class T>
__device__ __forceinline__ void fetch_keys(T *keys, T *values, const T *k, const T *v, long long apart, Span all, int i, int d) {
	int place = i % 2 * KEYS * ROW<WIDTH>, from = all.from + i * KEYS;
	load_tile<KEYS, WIDTH>(keys + place, k, apart, from, all.to, d);
	load_tile<KEYS, WIDTH>(values + place, v, apart, from, all.to, d);
	fetched();
}

// store_rows writes a thread's part of a warp's 16 rows, the r-th of its two times share[r].
template <int WIDTH, class T>
__device__ __forceinline__ void store_rows(T *out, long long apart, const float (*sum)[4], const int *row, int end, const float *share, int d) {
#pragma unroll
	for (int r = 0; r < 2; r++)
#pragma unroll
		for (int n = 0; n < WIDTH / 8; n++) {
			int col = n * 8 + threadIdx.x % 4 * 2;
			if (row[r] < end && col < d) *(uint32_t *)(out + row[r] * apart + col) = two(sum[n][2 * r] * share[r], sum[n][2 * r + 1] * share[r], T());
		}
}

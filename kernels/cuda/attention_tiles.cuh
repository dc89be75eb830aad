// Tiles of attention in shared memory and the tensor cores' m16n8k16 products on them, for 16-bit types. A tile's rows are
// WIDTH + 8 elements apart, which keeps ldmatrix free of bank conflicts, as WIDTH is a multiple of 16.
#pragma once
#include "mma.cuh"

constexpr int OWN = 64, THREADS = 2 * OWN; // rows of a block, 16 a warp
constexpr int KEYS = 64;                   // that it goes through at a time

template <int WIDTH> constexpr int ROW = WIDTH + 8;

// load_strip is load_tile for PIECES of 16 bytes of each row.
template <int ROWS, int APART, int PIECES, class T>
__device__ __forceinline__ void load_strip(T *tile, const T *from, long long apart, int first, int end, int d) {
	constexpr int AT_ONCE = THREADS / PIECES;
	int row = threadIdx.x / PIECES, col = threadIdx.x % PIECES * 8;
	tile += row * APART + col, from += (first + row) * apart + col;
#pragma unroll
	for (int i = 0; i < ROWS; i += AT_ONCE)
		if (ROWS % AT_ONCE == 0 || i + row < ROWS) fetch16(tile + i * APART, from + i * apart, first + row + i < end && col < d);
}

// load_tile begins to copy rows [first, first + ROWS) of a matrix, `apart` elements apart and d wide, into a tile. Rows from end
// on, and what lies beyond d, become 0. Eight neighbouring threads take 128 bytes of a row, since a cache is asked by such lines;
// what a row has besides is done after that.
template <int ROWS, int WIDTH, class T>
__device__ __forceinline__ void load_tile(T *tile, const T *from, long long apart, int first, int end, int d) {
	load_strip<ROWS, ROW<WIDTH>, 8>(tile, from, apart, first, end, d);
	if constexpr (WIDTH > 64) load_strip<ROWS, ROW<WIDTH>, WIDTH / 8 - 8>(tile + 64, from + 64, apart, first, end, d - 64);
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

// power is 2^x; the processor's own, which takes results below 2^-126 for 0.
__device__ __forceinline__ float power(float x) {
	float y;
	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}
constexpr float LOG2E = 1.4426950408889634f;

// Span is the keys [from, to) of a query. One without keys, or with fewer than it needs, has {NONE, 0}.
struct Span {
	int from, to;
	__device__ __forceinline__ bool meets(int first, int n) const { return from < first + n && to > first; }
	__device__ __forceinline__ bool holds(int first, int n) const { return from <= first && to >= first + n; }
	__device__ __forceinline__ bool has(int key) const { return key >= from && key < to; }
};
constexpr int NONE = 0x7fffffff;

__device__ __forceinline__ Span span_of(const int *spans, int t, int tokens, int needs) {
	if (t >= tokens) return {NONE, 0};
	const int2 s = ((const int2 *)spans)[t]; // where they begin, and how many
	return s.y < needs ? Span{NONE, 0} : Span{s.x, s.x + s.y};
}

// Readers is what a lane knows of its block's queries: the spans of some.
struct Readers {
	Span span[OWN / 32];
	int end; // of the keys that any of the queries reads
	// next is the first key, from one on, that any of them reads; NONE where there is none.
	__device__ __forceinline__ int next(int from) const {
		int first = NONE;
		for (const Span &s : span)
			if (s.to > from) first = min(first, max(s.from, from));
		return __reduce_min_sync(~0u, first);
	}
};

__device__ __forceinline__ Readers readers_of(const int *spans, int first, int tokens, int needs) {
	Readers r;
	r.end = 0;
	for (int i = 0; i < OWN / 32; i++) {
		r.span[i] = span_of(spans, first + threadIdx.x % 32 + 32 * i, tokens, needs);
		r.end = max(r.end, r.span[i].to);
	}
	r.end = __reduce_max_sync(~0u, r.end);
	return r;
}

// Rows is a warp's 16 queries as the operands of products hold them, two a lane (lane/4 and 8 below): which, their keys, the keys
// between the first and the last that any of the 16 reads, and those that all of them do.
struct Rows {
	int row[2];
	Span own[2], some, all;
};

__device__ __forceinline__ Rows rows_of(const int *spans, int first, int tokens, int needs) {
	Rows w;
	for (int r = 0; r < 2; r++) {
		w.row[r] = first + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * r;
		w.own[r] = span_of(spans, w.row[r], tokens, needs);
	}
	w.some.from = __reduce_min_sync(~0u, min(w.own[0].from, w.own[1].from));
	w.some.to = __reduce_max_sync(~0u, max(w.own[0].to, w.own[1].to));
	w.all.from = __reduce_max_sync(~0u, max(w.own[0].from, w.own[1].from));
	w.all.to = __reduce_min_sync(~0u, min(w.own[0].to, w.own[1].to));
	return w;
}

// fetch_keys begins to copy the KEYS keys, and behind them the values, from one on.
template <int WIDTH, class T>
__device__ __forceinline__ void fetch_keys(T *place, const T *k, const T *v, long long apart, int from, int end, int d) {
	load_tile<KEYS, WIDTH>(place, k, apart, from, end, d);
	load_tile<KEYS, WIDTH>(place + KEYS * ROW<WIDTH>, v, apart, from, end, d);
}

// store_rows writes a warp's 16 rows, the first of which is row `first`, by way of a tile that nothing else uses any more. Of a
// lane's two rows the r-th is multiplied by share[r].
template <int WIDTH, class T>
__device__ __forceinline__ void store_rows(T *out, long long apart, const float (*sum)[4], T *tile, int first, int end, const float (&share)[2], int d) {
	int lane = threadIdx.x % 32;
	tile += threadIdx.x / 32 * 16 * ROW<WIDTH>;
	__syncwarp(); // what it held has been read
#pragma unroll
	for (int r = 0; r < 2; r++)
#pragma unroll
		for (int n = 0; n < WIDTH / 8; n++)
			*(uint32_t *)(tile + (lane / 4 + 8 * r) * ROW<WIDTH> + n * 8 + lane % 4 * 2) = two(sum[n][2 * r] * share[r], sum[n][2 * r + 1] * share[r], T());
	__syncwarp();
#pragma unroll
	for (int i = lane; i < 16 * (WIDTH / 8); i += 32) {
		int row = i / (WIDTH / 8), col = i % (WIDTH / 8) * 8;
		if (first + row < end && col < d) *(uint4 *)(out + (first + row) * apart + col) = *(const uint4 *)(tile + row * ROW<WIDTH> + col);
	}
	__syncwarp();
}

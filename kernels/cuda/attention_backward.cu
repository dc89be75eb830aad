// Attention's gradient on tensor cores. Half of the blocks go over the keys of 64 queries for dq, half over the queries of 64 keys for
// dk and dv, and each computes the softmax again from its logarithm, so that nothing is added up between blocks. A query with one
// key has no gradient through its score.
#include "attention_tiles.cuh"
#include "vector.cuh"

constexpr int STEP = 32; // columns of scores that a warp has in registers

// Gradient is the operands of all blocks.
template <class T> struct Gradient {
	T *dq, *dk, *dv;
	const T *dout, *q, *k, *v;
	const float2 *stats; // (tokens,H): as attention_before leaves them
	const Span *readers; // of each 64 keys
	const int *spans;
	int tokens, keys, H, KV, d;
	float scale;
};

template <class T, int WIDTH> __device__ __forceinline__ void over_keys(const Gradient<T> &g, int head, int first) {
	extern __shared__ __align__(16) char memory[];
	constexpr int TILE = KEYS * ROW<WIDTH>, STAGE = 2 * TILE;
	static_assert(OWN <= KEYS, "the queries fit where the second keys and values come once they are in registers");
	T *stages = (T *)memory, *queries = stages + STAGE, *grads = queries + TILE;
	const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, d = g.d;
	const long long apart_q = (long long)g.H * d, apart_k = (long long)g.KV * d;
	const T *k = g.k + head / (g.H / g.KV) * d, *v = g.v + head / (g.H / g.KV) * d;

	load_tile<OWN, WIDTH>(queries, g.q + head * d, apart_q, first, g.tokens, d);
	load_tile<OWN, WIDTH>(grads, g.dout + head * d, apart_q, first, g.tokens, d);
	const Readers block = readers_of(g.spans, first, g.tokens, 2);
	const Rows mine = rows_of(g.spans, first, g.tokens, 2);
	float2 stats[2] = {};
	for (int r = 0; r < 2; r++)
		if (mine.row[r] < g.tokens) stats[r] = g.stats[(long long)mine.row[r] * g.H + head];
	int from = block.next(0);
	if (from != NONE) fetch_keys<WIDTH>(stages, k, v, apart_k, from, block.end, d);
	fetched();
	await<0>();
	__syncthreads();
	uint32_t a[WIDTH / 16][4], b[WIDTH / 16][4];
	rows16<WIDTH>(a, queries, warp * 16);
	rows16<WIDTH>(b, grads, warp * 16);
	__syncthreads();

	float sum[WIDTH / 8][4] = {};
	const float units = g.scale * LOG2E;
	for (int i = 0; from != NONE; i++) {
		const int then = block.next(from + KEYS);
		const T *keys = stages + i % 2 * STAGE, *values = keys + TILE;
		if (then != NONE) fetch_keys<WIDTH>(stages + (i + 1) % 2 * STAGE, k, v, apart_k, then, block.end, d);
		fetched();
#pragma unroll 1
		for (int at = 0; at < KEYS; at += STEP) {
			if (!mine.some.meets(from + at, STEP)) continue;
			float p[STEP / 8][4] = {}, slope[STEP / 8][4] = {};
			against_rows<STEP, WIDTH>(p, a, keys + at * ROW<WIDTH>);
			against_rows<STEP, WIDTH>(slope, b, values + at * ROW<WIDTH>);
#pragma unroll
			for (int n = 0; n < STEP / 8; n++)
#pragma unroll
				for (int c = 0; c < 4; c++) slope[n][c] = power(p[n][c] * units - stats[c / 2].x) * (slope[n][c] * g.scale - stats[c / 2].y);
			if (!mine.all.holds(from + at, STEP))
#pragma unroll
				for (int n = 0; n < STEP / 8; n++)
#pragma unroll
					for (int c = 0; c < 4; c++)
						if (!mine.own[c / 2].has(from + at + n * 8 + lane % 4 * 2 + c % 2)) slope[n][c] = 0;
			onto_columns<STEP, WIDTH>(sum, slope, keys + at * ROW<WIDTH>);
		}
		await<0>();
		__syncthreads();
		from = then;
	}
	store_rows<WIDTH>(g.dq + head * d, apart_q, sum, stages, first + warp * 16, g.tokens, {1, 1}, d);
}

template <class T, int WIDTH> __device__ __forceinline__ void over_queries(const Gradient<T> &g, int kv, int first) {
	extern __shared__ __align__(16) char memory[];
	__shared__ __align__(16) float2 stats[2][STEP];
	__shared__ __align__(16) int spans[2][STEP][2];
	constexpr int TILE = STEP * ROW<WIDTH>;
	T *keys = (T *)memory, *values = keys + OWN * ROW<WIDTH>, *queries = values + OWN * ROW<WIDTH>, *grads = queries + 2 * TILE;
	const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, d = g.d, group = g.H / g.KV;
	const long long apart_q = (long long)g.H * d, apart_k = (long long)g.KV * d;

	load_tile<OWN, WIDTH>(keys, g.k + kv * d, apart_k, first, g.keys, d);
	load_tile<OWN, WIDTH>(values, g.v + kv * d, apart_k, first, g.keys, d);
	const Span seen = g.readers[first / OWN];
	const int tiles = (seen.to - seen.from + STEP - 1) / STEP, all = seen.to > seen.from ? tiles * group : 0;
	auto fetch = [&](int i) {
		int head = kv * group + i / tiles, from = seen.from + i % tiles * STEP;
		load_tile<STEP, WIDTH>(queries + i % 2 * TILE, g.q + head * d, apart_q, from, g.tokens, d);
		load_tile<STEP, WIDTH>(grads + i % 2 * TILE, g.dout + head * d, apart_q, from, g.tokens, d);
		int t = from + lane;
		bool there = t < g.tokens;
		t = there ? t : 0;
		if (warp == 0) fetch8(&stats[i % 2][lane], g.stats + (long long)t * g.H + head, there);
		if (warp == 1) fetch8(spans[i % 2][lane], g.spans + 2 * t, there);
	};
	if (all) fetch(0);
	fetched();
	await<0>();
	__syncthreads();
	uint32_t a[WIDTH / 16][4], b[WIDTH / 16][4];
	rows16<WIDTH>(a, keys, warp * 16);
	rows16<WIDTH>(b, values, warp * 16);

	const int own = first + warp * 16; // of the warp's keys the first
	float sum_k[WIDTH / 8][4] = {}, sum_v[WIDTH / 8][4] = {};
	const float units = g.scale * LOG2E;
	for (int i = 0; i < all; i++) {
		if (i + 1 < all) fetch(i + 1);
		fetched();
		const Span each = span_of(spans[i % 2][0], lane, STEP, 1);
		if (__any_sync(~0u, each.meets(own, 16))) {
			float p[STEP / 8][4] = {}, slope[STEP / 8][4] = {};
			against_rows<STEP, WIDTH>(p, a, queries + i % 2 * TILE);
			against_rows<STEP, WIDTH>(slope, b, grads + i % 2 * TILE);
#pragma unroll
			for (int n = 0; n < STEP / 8; n++) {
				const float4 two = *(const float4 *)&stats[i % 2][n * 8 + lane % 4 * 2];
#pragma unroll
				for (int c = 0; c < 4; c++) {
					p[n][c] = power(p[n][c] * units - (c % 2 ? two.z : two.x));
					slope[n][c] = p[n][c] * (slope[n][c] * g.scale - (c % 2 ? two.w : two.y));
				}
			}
			if (!__all_sync(~0u, each.holds(own, 16)))
#pragma unroll
				for (int n = 0; n < STEP / 8; n++)
#pragma unroll
					for (int c = 0; c < 4; c++) {
						const Span s = span_of(spans[i % 2][0], n * 8 + lane % 4 * 2 + c % 2, STEP, 1);
						if (!s.has(own + lane / 4 + c / 2 * 8)) p[n][c] = slope[n][c] = 0;
						if (s.to == s.from + 1) slope[n][c] = 0;
					}
			onto_columns<STEP, WIDTH>(sum_v, p, grads + i % 2 * TILE);
			onto_columns<STEP, WIDTH>(sum_k, slope, queries + i % 2 * TILE);
		}
		await<0>();
		__syncthreads();
	}
	store_rows<WIDTH>(g.dk + kv * d, apart_k, sum_k, keys, own, g.keys, {1, 1}, d);
	store_rows<WIDTH>(g.dv + kv * d, apart_k, sum_v, values, own, g.keys, {1, 1}, d);
}

template <class T, int WIDTH> __device__ __forceinline__ void attend_backward(const Gradient<T> &g) {
	if (blockIdx.z == 0) {
		if (blockIdx.x < g.KV && blockIdx.y * OWN < g.keys) over_queries<T, WIDTH>(g, blockIdx.x, blockIdx.y * OWN);
	} else {
		int first = (gridDim.y - 1 - blockIdx.y) * OWN;
		if (first < g.tokens) over_keys<T, WIDTH>(g, blockIdx.x, first);
	}
}

#define GRADIENT(NAME, T, WIDTH, BLOCKS) \
	extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attention_backward##NAME(T *dq, T *dk, T *dv, const T *dout, const T *q, const T *k, const T *v, \
		const float *stats, const int *readers, const int *spans, int tokens, int keys, int H, int KV, int d, float scale) { \
		attend_backward<T, WIDTH>({dq, dk, dv, dout, q, k, v, (const float2 *)stats, (const Span *)readers, spans, tokens, keys, H, KV, d, scale}); \
	}
GRADIENT(_f16_64, f16, 64, 3)
GRADIENT(_f16_80, f16, 80, 3)
GRADIENT(_f16_96, f16, 96, 2)
GRADIENT(_f16_128, f16, 128, 2)
GRADIENT(_bf16_64, bf16, 64, 3)
GRADIENT(_bf16_80, bf16, 80, 3)
GRADIENT(_bf16_96, bf16, 96, 2)
GRADIENT(_bf16_128, bf16, 128, 2)

// before makes what the gradient's blocks look up. Of each 64 keys readers (keys/64, 2) is the queries [from, to) that all lie between
// who read any of them; a block finds one. Of each query and head stats (tokens, H, 2) is the softmax's logarithm in powers of two
// and Σ dout·out, scaled as scores are; a block does a query.
template <class T>
__device__ __forceinline__ void before(float2 *stats, Span *readers, const T *dout, const T *out, const float *lse, const int *spans,
	int tokens, int tiles, int H, int d, float scale) {
	extern __shared__ __align__(16) char memory[];
	if (blockIdx.x < tiles) {
		__shared__ Span part[32];
		Span seen = {NONE, 0};
		for (int t = threadIdx.x; t < tokens; t += blockDim.x)
			if (span_of(spans, t, tokens, 1).meets(blockIdx.x * OWN, OWN)) seen.from = min(seen.from, t), seen.to = t + 1;
		seen.from = __reduce_min_sync(~0u, seen.from), seen.to = __reduce_max_sync(~0u, seen.to);
		if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = seen;
		__syncthreads();
		if (threadIdx.x > 0) return;
		for (int i = 1; i < blockDim.x / 32; i++) seen.from = min(seen.from, part[i].from), seen.to = max(seen.to, part[i].to);
		readers[blockIdx.x] = seen;
		return;
	}
	float *part = (float *)memory;
	const int pieces = d / 8;
	const long long t = blockIdx.x - tiles, at = t * H * d;
	for (int i = threadIdx.x; i < H * pieces; i += blockDim.x) {
		float x[8], y[8], sum = 0;
		load8(x, dout + at + i * 8, 8, true);
		load8(y, out + at + i * 8, 8, true);
#pragma unroll
		for (int e = 0; e < 8; e++) sum = fmaf(x[e], y[e], sum);
		part[i] = sum;
	}
	__syncthreads();
	for (int head = threadIdx.x; head < H; head += blockDim.x) {
		float sum = 0;
		for (int i = 0; i < pieces; i++) sum += part[head * pieces + i];
		stats[t * H + head] = make_float2(lse[t * H + head] * LOG2E, sum * scale);
	}
}

#define BEFORE(NAME, T) \
	extern "C" __global__ void attention_before##NAME(float *stats, int *readers, const T *dout, const T *out, const float *lse, const int *spans, \
		int tokens, int tiles, int H, int d, float scale) { \
		before((float2 *)stats, (Span *)readers, dout, out, lse, spans, tokens, tiles, H, d, scale); \
	}
BEFORE(_f16, f16)
BEFORE(_bf16, bf16)

// Attention's gradient on tensor cores: one kernel goes over the keys of 64 queries for dq, one over the queries of 64 keys for dk
// and dv, each computing the softmax again from lse, so that nothing is added up between blocks. delta is Σ dout·out of each
// query and head. A query with one key has no gradient through its score.
#include "attention_tiles.cuh"

constexpr float LOG2E = 1.4426950408889634f;

template <class T, int WIDTH>
__device__ __forceinline__ void attend_dq(T *dq, const T *dout, const T *q, const T *k, const T *v, const float *lse, const float *delta, const int *spans,
	int tokens, int H, int KV, int d, float scale) {
	extern __shared__ __align__(16) char memory[];
	constexpr int TILE = KEYS * ROW<WIDTH>;
	T *keys = (T *)memory, *values = keys + 2 * TILE; // of q and dout first
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y;
	long long apart_q = (long long)H * d, apart_k = (long long)KV * d;
	q += head * d, dq += head * d, dout += head * d, k += head / (H / KV) * d, v += head / (H / KV) * d;

	const Mine mine = mine_of(spans, tokens);
	float log_sum[2] = {}, mean[2] = {};
	for (int r = 0; r < 2; r++) {
		long long at = (long long)mine.row[r] * H + head;
		if (mine.own[r].to > mine.own[r].from) log_sum[r] = lse[at] * LOG2E, mean[r] = delta[at];
	}

	load_tile<QUERIES, WIDTH>(keys, q, apart_q, mine.first, tokens, d);
	load_tile<QUERIES, WIDTH>(values, dout, apart_q, mine.first, tokens, d);
	fetched();
	await<0>();
	__syncthreads();
	uint32_t a[WIDTH / 16][4], g[WIDTH / 16][4];
	rows16<WIDTH>(a, keys, warp * 16);
	rows16<WIDTH>(g, values, warp * 16);
	__syncthreads();

	const int tiles = mine.tiles();
	if (tiles) fetch_keys<WIDTH>(keys, values, k, v, apart_k, mine.all, 0, d);
	float sum[WIDTH / 8][4] = {};
	for (int i = 0; i < tiles; i++) {
		if (i + 1 < tiles) fetch_keys<WIDTH>(keys, values, k, v, apart_k, mine.all, i + 1, d), await<1>();
		else await<0>();
		__syncthreads();
		int from = mine.all.from + i * KEYS;
		if (mine.near.from < from + KEYS && mine.near.to > from) {
			float s[KEYS / 8][4] = {}, slope[KEYS / 8][4] = {};
			against_rows<KEYS, WIDTH>(s, a, keys + i % 2 * TILE);
			against_rows<KEYS, WIDTH>(slope, g, values + i % 2 * TILE);
#pragma unroll
			for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
				for (int c = 0; c < 4; c++) {
					int key = from + n * 8 + lane % 4 * 2 + c % 2, r = c / 2;
					bool reads = key >= mine.own[r].from && key < mine.own[r].to && mine.own[r].to > mine.own[r].from + 1;
					slope[n][c] = reads ? exp2f(s[n][c] * scale * LOG2E - log_sum[r]) * (slope[n][c] - mean[r]) * scale : 0;
				}
			onto_columns<KEYS, WIDTH>(sum, slope, keys + i % 2 * TILE);
		}
		__syncthreads();
	}
	const float share[2] = {1, 1};
	store_rows<WIDTH>(dq, apart_q, sum, mine.row, tokens, share, d);
}

constexpr int AT_ONCE = 32; // queries that a block of keys goes through at a time

template <class T, int WIDTH>
__device__ __forceinline__ void attend_dkv(T *dk, T *dv, const T *dout, const T *q, const T *k, const T *v, const float *lse, const float *delta, const int *spans,
	int tokens, int total, int H, int KV, int d, float scale) {
	extern __shared__ __align__(16) char memory[];
	__shared__ float log_sum[2][AT_ONCE], mean[2][AT_ONCE];
	__shared__ Span read[2][AT_ONCE];
	constexpr int TILE = AT_ONCE * ROW<WIDTH>;
	T *queries = (T *)memory, *grads = queries + 2 * TILE; // of k and v first
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = blockIdx.x * KEYS, kv = blockIdx.y, group = H / KV;
	long long apart_q = (long long)H * d, apart_k = (long long)KV * d;

	// The queries that read any of these keys lie within [seen.from, seen.to).
	Span seen = {0x7fffffff, 0};
	for (int t = threadIdx.x; t < tokens; t += THREADS) {
		Span s = span_of(spans, t, tokens);
		if (s.from < first + KEYS && s.to > first) seen.from = min(seen.from, t), seen.to = t + 1;
	}
	seen = block_union(seen);
	if (seen.to <= seen.from) return;

	load_tile<KEYS, WIDTH>(queries, k + kv * d, apart_k, first, total, d);
	load_tile<KEYS, WIDTH>(queries + KEYS * ROW<WIDTH>, v + kv * d, apart_k, first, total, d);
	fetched();
	await<0>();
	__syncthreads();
	uint32_t a[WIDTH / 16][4], g[WIDTH / 16][4];
	rows16<WIDTH>(a, queries, warp * 16);
	rows16<WIDTH>(g, queries + KEYS * ROW<WIDTH>, warp * 16);
	__syncthreads();

	int key[2] = {first + warp * 16 + lane / 4, first + warp * 16 + lane / 4 + 8};
	int tiles = (seen.to - seen.from + AT_ONCE - 1) / AT_ONCE, all = tiles * group;
	auto load = [&](int i) {
		int head = kv * group + i / tiles, from = seen.from + i % tiles * AT_ONCE;
		load_tile<AT_ONCE, WIDTH>(queries + i % 2 * TILE, q + head * d, apart_q, from, tokens, d);
		load_tile<AT_ONCE, WIDTH>(grads + i % 2 * TILE, dout + head * d, apart_q, from, tokens, d);
		fetched();
		if (threadIdx.x < AT_ONCE) {
			int t = from + threadIdx.x;
			Span s = span_of(spans, t, tokens);
			read[i % 2][threadIdx.x] = s;
			log_sum[i % 2][threadIdx.x] = s.to > s.from ? lse[(long long)t * H + head] * LOG2E : 0;
			mean[i % 2][threadIdx.x] = s.to > s.from ? delta[(long long)t * H + head] : 0;
		}
	};
	load(0);
	float sum_k[WIDTH / 8][4] = {}, sum_v[WIDTH / 8][4] = {};
	for (int i = 0; i < all; i++) {
		if (i + 1 < all) load(i + 1), await<1>();
		else await<0>();
		__syncthreads();
		float p[AT_ONCE / 8][4] = {}, slope[AT_ONCE / 8][4] = {};
		against_rows<AT_ONCE, WIDTH>(p, a, queries + i % 2 * TILE);
		against_rows<AT_ONCE, WIDTH>(slope, g, grads + i % 2 * TILE);
#pragma unroll
		for (int n = 0; n < AT_ONCE / 8; n++)
#pragma unroll
			for (int c = 0; c < 4; c++) {
				int at = n * 8 + lane % 4 * 2 + c % 2;
				Span s = read[i % 2][at];
				bool reads = key[c / 2] >= s.from && key[c / 2] < s.to;
				p[n][c] = reads ? exp2f(p[n][c] * scale * LOG2E - log_sum[i % 2][at]) : 0;
				slope[n][c] = s.to > s.from + 1 ? p[n][c] * (slope[n][c] - mean[i % 2][at]) * scale : 0;
			}
		onto_columns<AT_ONCE, WIDTH>(sum_v, p, grads + i % 2 * TILE);
		onto_columns<AT_ONCE, WIDTH>(sum_k, slope, queries + i % 2 * TILE);
		__syncthreads();
	}
#pragma unroll
	for (int r = 0; r < 2; r++)
#pragma unroll
		for (int n = 0; n < WIDTH / 8; n++) {
			int col = n * 8 + lane % 4 * 2;
			if (key[r] >= total || col >= d) continue;
			long long at = key[r] * apart_k + kv * d + col;
#pragma unroll
			for (int c = 0; c < 2; c++) {
				dk[at + c] = as<T>(to(dk[at + c]) + sum_k[n][2 * r + c]);
				dv[at + c] = as<T>(to(dv[at + c]) + sum_v[n][2 * r + c]);
			}
		}
}

#define GRADIENT(NAME, T, WIDTH) \
	extern "C" __global__ void __launch_bounds__(THREADS) attention_dq##NAME(T *dq, const T *dout, const T *q, const T *k, const T *v, const float *lse, \
		const float *delta, const int *spans, int tokens, int H, int KV, int d, float scale) { \
		attend_dq<T, WIDTH>(dq, dout, q, k, v, lse, delta, spans, tokens, H, KV, d, scale); \
	} \
	extern "C" __global__ void __launch_bounds__(THREADS) attention_dkv##NAME(T *dk, T *dv, const T *dout, const T *q, const T *k, const T *v, const float *lse, \
		const float *delta, const int *spans, int tokens, int keys, int H, int KV, int d, float scale) { \
		attend_dkv<T, WIDTH>(dk, dv, dout, q, k, v, lse, delta, spans, tokens, keys, H, KV, d, scale); \
	}
GRADIENT(_f16_64, f16, 64)
GRADIENT(_f16_80, f16, 80)
GRADIENT(_f16_96, f16, 96)
GRADIENT(_f16_128, f16, 128)
GRADIENT(_bf16_64, bf16, 64)
GRADIENT(_bf16_80, bf16, 80)
GRADIENT(_bf16_96, bf16, 96)
GRADIENT(_bf16_128, bf16, 128)

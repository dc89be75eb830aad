// Attention on tensor cores, forward (Dao 2023, "FlashAttention-2"): a block holds 64 queries of a head and goes through the keys
// that any of them reads, 64 at a time, with a running softmax. Scores never leave the registers.
#include "attention_tiles.cuh"

template <class T, int WIDTH>
__device__ __forceinline__ void attend(T *out, float *lse, const T *q, const T *k, const T *v, const int *spans, int tokens, int H, int KV, int d, float scale) {
	extern __shared__ __align__(16) char memory[];
	T *queries = (T *)memory, *keys = queries + QUERIES * ROW<WIDTH>, *values = keys + 2 * KEYS * ROW<WIDTH>;
	constexpr int TILE = KEYS * ROW<WIDTH>;
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y;
	long long apart_q = (long long)H * d, apart_k = (long long)KV * d;
	q += head * d, out += head * d, k += head / (H / KV) * d, v += head / (H / KV) * d;

	const Mine mine = mine_of(spans, tokens);
	const int tiles = mine.tiles();
	load_tile<QUERIES, WIDTH>(queries, q, apart_q, mine.first, tokens, d);
	fetched();
	if (tiles) fetch_keys<WIDTH>(keys, values, k, v, apart_k, mine.all, 0, d), await<1>();
	else await<0>();
	__syncthreads();
	uint32_t a[WIDTH / 16][4];
	rows16<WIDTH>(a, queries, warp * 16);

	float sum[WIDTH / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, total[2] = {};
	float units = scale * 1.4426950408889634f; // scores in powers of two
	for (int i = 0; i < tiles; i++) {
		if (i + 1 < tiles) fetch_keys<WIDTH>(keys, values, k, v, apart_k, mine.all, i + 1, d), await<1>();
		else await<0>();
		__syncthreads();
		int from = mine.all.from + i * KEYS;
		if (mine.near.from < from + KEYS && mine.near.to > from) {
			float s[KEYS / 8][4] = {};
			against_rows<KEYS, WIDTH>(s, a, keys + i % 2 * TILE);
			float higher[2] = {top[0], top[1]};
#pragma unroll
			for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
				for (int c = 0; c < 4; c++) {
					int key = from + n * 8 + lane % 4 * 2 + c % 2;
					s[n][c] = key >= mine.own[c / 2].from && key < mine.own[c / 2].to ? s[n][c] * units : -INFINITY;
					higher[c / 2] = fmaxf(higher[c / 2], s[n][c]);
				}
			float shrink[2], base[2];
#pragma unroll
			for (int r = 0; r < 2; r++) {
				higher[r] = fmaxf(higher[r], __shfl_xor_sync(~0u, higher[r], 1));
				higher[r] = fmaxf(higher[r], __shfl_xor_sync(~0u, higher[r], 2));
				base[r] = higher[r] == -INFINITY ? 0 : higher[r];
				shrink[r] = exp2f(top[r] - base[r]);
				top[r] = higher[r], total[r] *= shrink[r];
			}
#pragma unroll
			for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
				for (int c = 0; c < 4; c++) {
					s[n][c] = exp2f(s[n][c] - base[c / 2]);
					total[c / 2] += s[n][c];
				}
#pragma unroll
			for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
				for (int c = 0; c < 4; c++) sum[n][c] *= shrink[c / 2];
			onto_columns<KEYS, WIDTH>(sum, s, values + i % 2 * TILE);
		}
		__syncthreads();
	}
	float share[2];
	for (int r = 0; r < 2; r++) {
		total[r] += __shfl_xor_sync(~0u, total[r], 1);
		total[r] += __shfl_xor_sync(~0u, total[r], 2);
		share[r] = total[r] > 0 ? 1 / total[r] : 0;
		if (lse && lane % 4 == 0 && total[r] > 0) lse[(long long)mine.row[r] * H + head] = (top[r] + log2f(total[r])) * 0.6931471805599453f;
	}
	store_rows<WIDTH>(out, apart_q, sum, mine.row, tokens, share, d);
}

#define ATTENTION(NAME, T, WIDTH) \
	extern "C" __global__ void __launch_bounds__(THREADS) attention##NAME(T *out, float *lse, const T *q, const T *k, const T *v, const int *spans, \
		int tokens, int H, int KV, int d, float scale) { \
		attend<T, WIDTH>(out, lse, q, k, v, spans, tokens, H, KV, d, scale); \
	}
ATTENTION(_f16_64, f16, 64)
ATTENTION(_f16_80, f16, 80)
ATTENTION(_f16_96, f16, 96)
ATTENTION(_f16_128, f16, 128)
ATTENTION(_bf16_64, bf16, 64)
ATTENTION(_bf16_80, bf16, 80)
ATTENTION(_bf16_96, bf16, 96)
ATTENTION(_bf16_128, bf16, 128)

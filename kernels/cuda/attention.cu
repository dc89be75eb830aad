// Attention on tensor cores, forward (Dao 2023, "FlashAttention-2"): a block holds 64 queries of a head and goes through the keys
// that any of them reads, 64 at a time, with a running softmax. Scores never leave the registers.
#include "attention_tiles.cuh"

template <class T, int WIDTH>
__device__ __forceinline__ void attend(T *out, float *lse, const T *q, const T *k, const T *v, const int *spans, int tokens, int H, int KV, int d, float scale) {
	extern __shared__ __align__(16) char memory[];
	constexpr int TILE = KEYS * ROW<WIDTH>, STAGE = 2 * TILE;
	static_assert(OWN <= 2 * KEYS, "the queries fit where the second keys and values come once they are in registers");
	T *stages = (T *)memory, *queries = stages + STAGE;
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.x;
	int first = (gridDim.y - 1 - blockIdx.y) * OWN; // the last read most keys, so they begin first
	long long apart_q = (long long)H * d, apart_k = (long long)KV * d;
	q += head * d, out += head * d, k += head / (H / KV) * d, v += head / (H / KV) * d;

	load_tile<OWN, WIDTH>(queries, q, apart_q, first, tokens, d);
	const Readers block = readers_of(spans, first, tokens, 1);
	const Rows mine = rows_of(spans, first, tokens, 1);
	int from = block.next(0);
	if (from != NONE) fetch_keys<WIDTH>(stages, k, v, apart_k, from, block.end, d);
	fetched();
	await<0>();
	__syncthreads();
	uint32_t a[WIDTH / 16][4];
	rows16<WIDTH>(a, queries, warp * 16);
	__syncthreads();

	float sum[WIDTH / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, total[2] = {};
	const float units = scale * LOG2E; // scores in powers of two
	for (int i = 0; from != NONE; i++) {
		const int then = block.next(from + KEYS);
		const T *keys = stages + i % 2 * STAGE, *values = keys + TILE;
		if (then != NONE) fetch_keys<WIDTH>(stages + (i + 1) % 2 * STAGE, k, v, apart_k, then, block.end, d);
		fetched();
		if (mine.some.meets(from, KEYS)) {
			float s[KEYS / 8][4] = {};
			against_rows<KEYS, WIDTH>(s, a, keys);
			if (!mine.all.holds(from, KEYS))
#pragma unroll
				for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
					for (int c = 0; c < 4; c++)
						if (!mine.own[c / 2].has(from + n * 8 + lane % 4 * 2 + c % 2)) s[n][c] = -INFINITY;
			float shrink[2], base[2];
#pragma unroll
			for (int r = 0; r < 2; r++) {
				float higher = top[r];
#pragma unroll
				for (int n = 0; n < KEYS / 8; n++) higher = fmaxf(higher, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
				higher = fmaxf(higher, __shfl_xor_sync(~0u, higher, 1));
				higher = fmaxf(higher, __shfl_xor_sync(~0u, higher, 2));
				base[r] = higher == -INFINITY ? 0 : higher * units;
				shrink[r] = power(top[r] * units - base[r]);
				top[r] = higher, total[r] *= shrink[r];
			}
#pragma unroll
			for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
				for (int c = 0; c < 4; c++) {
					s[n][c] = power(s[n][c] * units - base[c / 2]);
					total[c / 2] += s[n][c];
				}
#pragma unroll
			for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
				for (int c = 0; c < 4; c++) sum[n][c] *= shrink[c / 2];
			onto_columns<KEYS, WIDTH>(sum, s, values);
		}
		await<0>();
		__syncthreads();
		from = then;
	}
	float share[2];
	for (int r = 0; r < 2; r++) {
		total[r] += __shfl_xor_sync(~0u, total[r], 1);
		total[r] += __shfl_xor_sync(~0u, total[r], 2);
		share[r] = total[r] > 0 ? 1 / total[r] : 0;
		if (lse && lane % 4 == 0 && total[r] > 0) lse[(long long)mine.row[r] * H + head] = top[r] * scale + logf(total[r]);
	}
	store_rows<WIDTH>(out, apart_q, sum, stages, first + warp * 16, tokens, share, d);
}

// BLOCKS is how many of them a processor can hold, by their registers.
#define ATTENTION(NAME, T, WIDTH, BLOCKS) \
	extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attention##NAME(T *out, float *lse, const T *q, const T *k, const T *v, const int *spans, \
		int tokens, int H, int KV, int d, float scale) { \
		attend<T, WIDTH>(out, lse, q, k, v, spans, tokens, H, KV, d, scale); \
	}
ATTENTION(_f16_64, f16, 64, 4)
ATTENTION(_f16_80, f16, 80, 4)
ATTENTION(_f16_96, f16, 96, 3)
ATTENTION(_f16_128, f16, 128, 2)
ATTENTION(_bf16_64, bf16, 64, 4)
ATTENTION(_bf16_80, bf16, 80, 4)
ATTENTION(_bf16_96, bf16, 96, 3)
ATTENTION(_bf16_128, bf16, 128, 2)

// Attention of few queries over many keys, as in decoding, and of any types and heads: a block goes through a part of the keys of one
// query and head, sixteen lanes to a key. Scores, softmax and sums are fp32, in an order that depends on sizes and spans alone.
#include "vector.cuh"

constexpr int THREADS = 128, TEAM = 16, TEAMS = THREADS / TEAM; // lanes that share a key, eight elements each
constexpr int MOST = TEAM * 8;                                  // elements of a head at most
constexpr int AHEAD = 4;                                        // keys that a team reads at once

__device__ __forceinline__ float team_sum(float x) {
	for (int i = TEAM / 2; i; i /= 2) x += __shfl_xor_sync(~0u, x, i);
	return x;
}

// Softmax is a softmax that has seen some of its keys: the highest score, and the sum of exp(score - most).
struct Softmax {
	float most = -INFINITY, sum = 0;
	__device__ __forceinline__ float weight(float score) const { return expf(score - (most == -INFINITY ? 0 : most)); }
	// raise makes room for higher scores, and returns what sums of values so far are to be multiplied by.
	__device__ __forceinline__ float raise(float higher) {
		float before = most;
		most = fmaxf(most, higher);
		float shrink = weight(before);
		sum *= shrink;
		return shrink;
	}
};

// gather adds up element e of n partial results, each with a softmax of its own.
template <class Of, class Value> __device__ __forceinline__ float gather(Softmax &all, int n, Of of, Value value) {
	for (int i = 0; i < n; i++) all.raise(of(i).most);
	float out = 0;
	for (int i = 0; i < n; i++) {
		float weight = all.weight(of(i).most);
		all.sum += weight * of(i).sum, out += weight * value(i);
	}
	return out;
}

// With one part the result goes out; with more, each one's values and its Softmax go to room (T·H, parts, d+2), for join. Where rows are
// WIDE, which load8 can take whole, nothing is read conditionally: keys behind the last and elements behind a head's are read again.
template <bool WIDE, class T> __device__ __forceinline__ void attend(T *out, float *lse, float *room, const T *q, const T *k, const T *v, const int *spans,
	int H, int KV, int d, int parts, float scale) {
	__shared__ Softmax of[TEAMS];
	__shared__ float values[TEAMS][MOST];
	const long long item = blockIdx.x, apart = (long long)KV * d;
	const int t = item / H, head = item % H, part = blockIdx.y, n = spans[2 * t + 1];
	const int first = (long long)n * part / parts, end = (long long)n * (part + 1) / parts;
	const int team = threadIdx.x / TEAM, at = threadIdx.x % TEAM * 8, own = d - at; // of the head's elements the first, and how many are left
	const long long start = spans[2 * t] * apart + head / (H / KV) * d + (own > 0 ? at : 0);
	k += start, v += start;

	float query[8], value[8] = {};
	load8(query, q + item * d + at, own, WIDE && own > 0);
	Softmax mine;
	for (int from = first; from < end; from += TEAMS * AHEAD) {
		float x[AHEAD][8], y[AHEAD][8], score[AHEAD], higher = -INFINITY;
#pragma unroll
		for (int i = 0; i < AHEAD; i++) {
			const int j = min(from + i * TEAMS + team, end - 1);
			load8(x[i], k + j * apart, own, WIDE);
			load8(y[i], v + j * apart, own, WIDE);
		}
#pragma unroll
		for (int i = 0; i < AHEAD; i++) {
			float dot = 0;
#pragma unroll
			for (int e = 0; e < 8; e++) dot = fmaf(query[e], x[i][e], dot);
			dot = team_sum(dot) * scale;
			score[i] = from + i * TEAMS + team < end ? dot : -INFINITY;
			higher = fmaxf(higher, score[i]);
		}
		float shrink = mine.raise(higher);
#pragma unroll
		for (int e = 0; e < 8; e++) value[e] *= shrink;
#pragma unroll
		for (int i = 0; i < AHEAD; i++) {
			float weight = mine.weight(score[i]);
			mine.sum += weight;
#pragma unroll
			for (int e = 0; e < 8; e++) value[e] = fmaf(weight, y[i][e], value[e]);
		}
	}
	if (at == 0) of[team] = mine;
#pragma unroll
	for (int e = 0; e < 8; e++) values[team][at + e] = value[e];
	__syncthreads();
	const int e = threadIdx.x;
	if (e >= d) return;
	Softmax all;
	float sum = gather(all, TEAMS, [&](int i) { return of[i]; }, [&](int i) { return values[i][e]; });
	if (parts == 1) {
		out[item * d + e] = as<T>(n > 0 ? sum / all.sum : 0);
		if (lse && e == 0 && n > 0) lse[item] = all.most + logf(all.sum);
		return;
	}
	room += (item * parts + part) * (d + 2);
	room[e] = sum;
	if (e == 0) room[d] = all.most, room[d + 1] = all.sum;
}

template <class T> __device__ __forceinline__ void join(T *out, float *lse, const float *room, int d, int parts) {
	const long long item = blockIdx.x;
	const int e = threadIdx.x;
	if (e >= d) return;
	room += item * parts * (d + 2);
	Softmax all;
	float sum = gather(all, parts, [&](int i) { return Softmax{room[i * (d + 2) + d], room[i * (d + 2) + d + 1]}; }, [&](int i) { return room[i * (d + 2) + e]; });
	out[item * d + e] = as<T>(all.sum > 0 ? sum / all.sum : 0);
	if (lse && e == 0 && all.sum > 0) lse[item] = all.most + logf(all.sum);
}

#define FEW(SUFFIX, T) \
	extern "C" __global__ void __launch_bounds__(THREADS) attention_few##SUFFIX(T *out, float *lse, float *room, const T *q, const T *k, const T *v, \
		const int *spans, int H, int KV, int d, int parts, float scale, int wide) { \
		if (wide) attend<true>(out, lse, room, q, k, v, spans, H, KV, d, parts, scale); \
		else attend<false>(out, lse, room, q, k, v, spans, H, KV, d, parts, scale); \
	} \
	extern "C" __global__ void __launch_bounds__(THREADS) attention_join##SUFFIX(T *out, float *lse, const float *room, int d, int parts) { \
		join(out, lse, room, d, parts); \
	}
EACH_FLOAT(FEW)

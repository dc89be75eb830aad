// Attention's gradient on ordinary units: any types and head sizes up to 128, a warp for each query and head, or for each key and
// key head. Scores, softmax and sums are fp32, in an order that depends on the spans alone.
#include "common.cuh"

// WIDE is how many of a head's elements a lane keeps: lane + 32·i.
constexpr int WIDE = 4;

// delta (T,H) as the mean of dout·v under the softmax: Σ dout·out before out was rounded.
template <class T> __device__ __forceinline__ void attend_mean(float *delta, const T *dout, const T *q, const T *k, const T *v, const float *lse, const int *spans,
	int T_, int H, int KV, int d, float scale) {
	int lane = threadIdx.x % 32;
	long long item = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
	if (item >= (long long)T_ * H) return;
	int t = item / H, head = item % H, start = spans[2 * t], n = spans[2 * t + 1];
	long long stride = (long long)KV * d, at = start * stride + head / (H / KV) * d;
	q += item * d, dout += item * d;
	float mean = 0;
	for (int j = lane; j < n; j += 32) {
		float s = 0, dp = 0;
		for (int i = 0; i < d; i++) {
			s += to(q[i]) * to(k[at + j * stride + i]);
			dp += to(dout[i]) * to(v[at + j * stride + i]);
		}
		mean += expf(s * scale - lse[item]) * dp;
	}
	mean = warp_sum(mean);
	if (lane == 0) delta[item] = mean;
}

template <class T> __device__ __forceinline__ void attend_dq(T *dq, const T *dout, const T *q, const T *k, const T *v, const float *lse, const float *delta,
	const int *spans, int T_, int H, int KV, int d, float scale) {
	int lane = threadIdx.x % 32;
	long long item = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
	if (item >= (long long)T_ * H) return;
	int t = item / H, head = item % H, start = spans[2 * t], n = spans[2 * t + 1];
	long long stride = (long long)KV * d, at = start * stride + head / (H / KV) * d;
	q += item * d, dout += item * d, dq += item * d;
	float sum[WIDE] = {};
	for (int j0 = 0; j0 < n; j0 += 32) {
		int j = j0 + lane;
		float slope = 0;
		if (j < n) {
			float s = 0, dp = 0;
			for (int i = 0; i < d; i++) {
				s += to(q[i]) * to(k[at + j * stride + i]);
				dp += to(dout[i]) * to(v[at + j * stride + i]);
			}
			slope = n == 1 ? 0 : expf(s * scale - lse[item]) * (dp - delta[item]) * scale; // one key has all the weight whatever its score
		}
		for (int l = 0; l < min(32, n - j0); l++) {
			float weight = __shfl_sync(~0u, slope, l);
			for (int w = 0; w < WIDE; w++)
				if (lane + 32 * w < d) sum[w] += weight * to(k[at + (j0 + l) * stride + lane + 32 * w]);
		}
	}
	for (int w = 0; w < WIDE; w++)
		if (lane + 32 * w < d) dq[lane + 32 * w] = as<T>(sum[w]);
}

// A warp does a key of a key head: it looks through all queries for those that read it.
template <class T> __device__ __forceinline__ void attend_dkv(T *dk, T *dv, const T *dout, const T *q, const T *k, const T *v, const float *lse, const float *delta,
	const int *spans, int T_, int S, int H, int KV, int d, float scale) {
	int lane = threadIdx.x % 32, group = H / KV;
	long long item = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
	if (item >= (long long)S * KV) return;
	int key = item / KV, kv = item % KV;
	k += item * d, v += item * d, dk += item * d, dv += item * d;
	float sum_k[WIDE] = {}, sum_v[WIDE] = {};
	for (int t0 = 0; t0 < T_; t0 += 32) {
		int t = t0 + lane;
		bool reads = t < T_ && key >= spans[2 * t] && key < spans[2 * t] + spans[2 * t + 1];
		unsigned who = __ballot_sync(~0u, reads);
		if (!who) continue;
		for (int head = kv * group; head < (kv + 1) * group; head++) {
			float p = 0, slope = 0;
			if (reads) {
				long long at = ((long long)t * H + head) * d;
				float s = 0, dp = 0;
				for (int i = 0; i < d; i++) {
					s += to(q[at + i]) * to(k[i]);
					dp += to(dout[at + i]) * to(v[i]);
				}
				p = expf(s * scale - lse[(long long)t * H + head]);
				slope = spans[2 * t + 1] == 1 ? 0 : p * (dp - delta[(long long)t * H + head]) * scale;
			}
			for (unsigned left = who; left; left &= left - 1) {
				int l = __ffs(left) - 1;
				float weight = __shfl_sync(~0u, p, l), along = __shfl_sync(~0u, slope, l);
				long long at = ((long long)(t0 + l) * H + head) * d;
				for (int w = 0; w < WIDE; w++)
					if (lane + 32 * w < d) {
						sum_v[w] += weight * to(dout[at + lane + 32 * w]);
						sum_k[w] += along * to(q[at + lane + 32 * w]);
					}
			}
		}
	}
	for (int w = 0; w < WIDE; w++)
		if (lane + 32 * w < d) dk[lane + 32 * w] = as<T>(sum_k[w]), dv[lane + 32 * w] = as<T>(sum_v[w]);
}

#define ATTEND(SUFFIX, T) \
	extern "C" __global__ void attention_plain_delta##SUFFIX(float *delta, const T *dout, const T *q, const T *k, const T *v, const float *lse, \
		const int *spans, int tokens, int H, int KV, int d, float scale) { \
		attend_mean(delta, dout, q, k, v, lse, spans, tokens, H, KV, d, scale); \
	} \
	extern "C" __global__ void attention_plain_dq##SUFFIX(T *dq, const T *dout, const T *q, const T *k, const T *v, const float *lse, const float *delta, \
		const int *spans, int tokens, int H, int KV, int d, float scale) { \
		attend_dq(dq, dout, q, k, v, lse, delta, spans, tokens, H, KV, d, scale); \
	} \
	extern "C" __global__ void attention_plain_dkv##SUFFIX(T *dk, T *dv, const T *dout, const T *q, const T *k, const T *v, const float *lse, const float *delta, \
		const int *spans, int tokens, int keys, int H, int KV, int d, float scale) { \
		attend_dkv(dk, dv, dout, q, k, v, lse, delta, spans, tokens, keys, H, KV, d, scale); \
	}
EACH_FLOAT(ATTEND)

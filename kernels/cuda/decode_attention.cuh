// Attention of one new token: a block does a head at a time. Its q, k and v come without adapters and rotation, which are
// applied here; k and v go into the cache. Scores, softmax and sums are fp32, in an order that depends on nothing but the position.
// What the cache has already is read before q is there.
#pragma once
#include "decode_device.cuh"
#include "decode_plan.cuh"

constexpr int TEAM = 16, TEAMS = 512 / TEAM; // lanes that share a key, eight elements each
constexpr int MOST = TEAM * 8;               // elements of a head at most
constexpr int AHEAD = 4;                     // keys that a team reads at once

struct AttentionRoom {
	float head[3][MOST]; // q, k and v of this token
	float most[TEAMS], sum[TEAMS];
	float value[TEAMS][MOST];
};

__device__ __forceinline__ void unpack8(float *v, uint4 w) {
	uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
	for (int i = 0; i < 4; i++) {
		float2 f = __half22float2(*(__half2 *)&words[i]);
		v[2 * i] = f.x, v[2 * i + 1] = f.y;
	}
}

// adapted is a row's share of the adapter u: scale·B[row]·low.
__device__ __forceinline__ float adapted(const Adapter &u, const float *low, int row) {
	float sum = 0;
	for (int r = 0; r < u.rank; r++) sum = fmaf(u.b[(long long)row * u.rank + r], low[u.slot + r], sum);
	return u.rank ? u.scale * sum : 0;
}

__device__ __forceinline__ float team_sum(float x) {
	for (int i = TEAM / 2; i; i /= 2) x += __shfl_xor_sync(~0u, x, i);
	return x;
}

// Old is some keys and values of the cache, of which a lane has eight elements each.
struct Old {
	uint4 k[AHEAD], v[AHEAD];
	__device__ void read(const f16 *keys, const f16 *values, int from, int position, int wide, bool active) {
		const int team = threadIdx.x / TEAM, at = threadIdx.x % TEAM * 8;
#pragma unroll
		for (int n = 0; n < AHEAD; n++) {
			int j = from + n * TEAMS + team;
			bool there = active && j < position;
			k[n] = there ? *(const uint4 *)(keys + (long long)j * wide + at) : make_uint4(0, 0, 0, 0);
			v[n] = there ? *(const uint4 *)(values + (long long)j * wide + at) : make_uint4(0, 0, 0, 0);
		}
	}
};

__device__ __forceinline__ void attend(const Phase &p, AttentionRoom &room, const Gate &gate, int blocks, int first, int position) {
	const int dim = p.dim, shared_by = p.heads / p.kv;
	const int team = threadIdx.x / TEAM, at = threadIdx.x % TEAM * 8, wide = p.kv * dim;
	const bool active = at < dim;
	Old old;
	for (int head = blockIdx.x; head < p.heads; head += blocks) {
		const int group = head / shared_by;
		f16 *keys = p.keys + (long long)first * wide + group * dim, *values = p.values + (long long)first * wide + group * dim;
		old.read(keys, values, 0, position, wide, active);
		if (head == blockIdx.x) gate.pass();
		else __syncthreads();
		for (int i = threadIdx.x; i < 3 * dim; i += blockDim.x) {
			int which = i / dim, row = (which ? group : head) * dim + i % dim;
			int before = which == 0 ? 0 : p.heads * dim + (which - 1) * wide;
			room.head[which][i % dim] = p.qkv[before + row] + adapted(p.up[which], p.low, row);
		}
		__syncthreads();
		if (threadIdx.x < p.rotated) {
			int half = p.rotated / 2, i = threadIdx.x % half;
			float *x = room.head[threadIdx.x / half];
			float c = p.rotary[(long long)position * p.rotated + i], s = p.rotary[(long long)position * p.rotated + half + i];
			float a = x[i], b = x[i + half];
			x[i] = a * c - b * s, x[i + half] = b * c + a * s;
		}
		__syncthreads();
		for (int i = threadIdx.x; i < 2 * dim; i += blockDim.x) {
			float *x = &room.head[1 + i / dim][i % dim];
			f16 rounded = __float2half_rn(*x);
			*x = __half2float(rounded);
			if (head % shared_by == 0) (i < dim ? keys : values)[(long long)position * wide + i % dim] = rounded;
		}
		__syncthreads();

		float q[8], sum = 0, most = -INFINITY, value[8] = {0, 0, 0, 0, 0, 0, 0, 0};
		const float scale = rsqrtf((float)dim);
#pragma unroll
		for (int i = 0; i < 8; i++) q[i] = active ? room.head[0][at + i] * scale : 0;
		for (int from = 0; from < position; from += TEAMS * AHEAD) {
			float score[AHEAD];
			if (from > 0) old.read(keys, values, from, position, wide, active);
			float highest = most;
#pragma unroll
			for (int n = 0; n < AHEAD; n++) {
				float x[8], dot = 0;
				unpack8(x, old.k[n]);
#pragma unroll
				for (int i = 0; i < 8; i++) dot = fmaf(q[i], x[i], dot);
				dot = team_sum(dot);
				score[n] = from + n * TEAMS + team < position ? dot : -INFINITY;
				highest = fmaxf(highest, score[n]);
			}
			if (highest > most) {
				float shrink = __expf(most - highest);
				sum *= shrink;
#pragma unroll
				for (int i = 0; i < 8; i++) value[i] *= shrink;
				most = highest;
			}
#pragma unroll
			for (int n = 0; n < AHEAD; n++) {
				float x[8], weight = score[n] == -INFINITY ? 0 : __expf(score[n] - most);
				unpack8(x, old.v[n]);
				sum += weight;
#pragma unroll
				for (int i = 0; i < 8; i++) value[i] = fmaf(weight, x[i], value[i]);
			}
		}
		if (team / 2 == 0) { // the new token itself, by the first team; its warp's other team takes part in the sum
			float dot = 0;
#pragma unroll
			for (int i = 0; i < 8; i++) dot = fmaf(q[i], active ? room.head[1][at + i] : 0, dot);
			dot = team_sum(dot);
			if (team == 0) {
				float highest = fmaxf(most, dot), shrink = __expf(most - highest), weight = __expf(dot - highest);
				sum = sum * shrink + weight, most = highest;
#pragma unroll
				for (int i = 0; i < 8; i++) value[i] = value[i] * shrink + weight * (active ? room.head[2][at + i] : 0);
			}
		}
		if (at == 0) room.most[team] = most, room.sum[team] = sum;
		if (active) {
#pragma unroll
			for (int i = 0; i < 8; i++) room.value[team][at + i] = value[i];
		}
		__syncthreads();
		for (int e = threadIdx.x; e < dim; e += blockDim.x) {
			float highest = -INFINITY, total = 0, out = 0;
			for (int i = 0; i < TEAMS; i++) highest = fmaxf(highest, room.most[i]);
			for (int i = 0; i < TEAMS; i++) {
				float weight = __expf(room.most[i] - highest);
				total = fmaf(weight, room.sum[i], total), out = fmaf(weight, room.value[i][e], out);
			}
			p.attended[head * dim + e] = __float2half_rn(out / total);
		}
	}
}

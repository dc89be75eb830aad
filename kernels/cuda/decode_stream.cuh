// Matrix times vector at the speed of memory. A block has some rows, in chunks of a few; a unit of work is a chunk's segment of
// 512 columns, and each warp has a run of units, for some of which it has asked memory ahead. A unit ends as eight sums a row
// (one for each quad of lanes, 64 columns of NF4) in shared memory, which are added up in a fixed order at the end.
//
// The sums come from the tensor cores, used as dot products of quads: with a row's weights in a's row g and the vector
// in b's column g, c's element (g,g) is what the quad's lanes hold of both, multiplied. Which columns those are is free, so that
// each lane keeps what it loaded. Sums are fp32, and widening costs nothing.
#pragma once
#include "decode_device.cuh"
#include "decode_plan.cuh"

constexpr int THREADS = 512, WARPS = THREADS / 32, SEGMENT = 512;

// diagonal is the element (g,g) of c's upper or lower half, in the lane that has it: t = g/2.
__device__ __forceinline__ float diagonal(const float *c, int lane, int half) { return c[2 * half + (lane / 4 & 1)]; }
__device__ __forceinline__ bool on_diagonal(int lane) { return lane % 4 == lane / 8; }

// Half is a matrix of f16: lane i has columns 256h + 8i … 256h + 8i+7 of a segment, for h = 0 and 1.
struct Half {
	static constexpr int ROWS = 2, DEPTH = 2, TABLE = 0;
	struct Unit { uint4 w[2][2]; };
	__device__ static int place(int k) { return 2 * k; } // of column k of the vector, in bytes of shared memory
	__device__ static void prepare(char *, const float *) {}
	__device__ static void load(Unit &u, const char *const *rows, int k, int columns, int lane) {
#pragma unroll
		for (int h = 0; h < 2; h++)
#pragma unroll
			for (int r = 0; r < ROWS; r++) {
				int at = k + 256 * h + 8 * lane;
				u.w[r][h] = at < columns ? stream16(rows[r] + 2ll * at) : make_uint4(0, 0, 0, 0);
			}
	}
	__device__ static const char *row(const Matrix &m, int row, int columns) { return m.weight + 2ll * row * columns; }
	__device__ static void vector(uint4 *x, const char *shared, int k, int lane) {
		x[0] = *(const uint4 *)(shared + place(k + 8 * lane));
		x[1] = *(const uint4 *)(shared + place(k + 256 + 8 * lane));
	}
	__device__ static void multiply(float *sums, const Unit &u, const uint4 *x, const char *, int lane) {
		float c[4] = {0, 0, 0, 0};
#pragma unroll
		for (int h = 0; h < 2; h++) {
			mma(c, u.w[0][h].x, u.w[1][h].x, u.w[0][h].y, u.w[1][h].y, x[h].x, x[h].y);
			mma(c, u.w[0][h].z, u.w[1][h].z, u.w[0][h].w, u.w[1][h].w, x[h].z, x[h].w);
		}
		if (on_diagonal(lane)) *(float2 *)sums = make_float2(diagonal(c, lane, 0), diagonal(c, lane, 1));
	}
};

// Brain is a matrix of bf16, multiplied in fp32: rounding the vector to bf16 would lose too much.
struct Brain : Half {
	__device__ static float dot(uint32_t w, uint32_t x, float sum) {
		float2 f = __half22float2(*(__half2 *)&x);
		return fmaf(__uint_as_float(w & 0xffff0000), f.y, fmaf(__uint_as_float(w << 16), f.x, sum));
	}
	__device__ static void multiply(float *sums, const Unit &u, const uint4 *x, const char *, int lane) {
		float s[2] = {0, 0};
#pragma unroll
		for (int r = 0; r < 2; r++) {
#pragma unroll
			for (int h = 0; h < 2; h++) {
				s[r] = dot(u.w[r][h].x, x[h].x, dot(u.w[r][h].y, x[h].y, s[r]));
				s[r] = dot(u.w[r][h].z, x[h].z, dot(u.w[r][h].w, x[h].w, s[r]));
			}
			s[r] += __shfl_xor_sync(~0u, s[r], 1);
			s[r] += __shfl_xor_sync(~0u, s[r], 2);
		}
		if (lane % 4 == 0) *(float2 *)sums = make_float2(s[0], s[1]);
	}
};

// Codes is an NF4 matrix whose blocks of scales are whole runs of 64 columns: lane i has columns 16i … 16i+15 of a segment.
// A byte is two weights, looked up together: the table gives byte b's pair to lane i at 256b + 4i, so that each lane reads from
// a bank of its own and one byte permutation makes the address. The vector lies in the gaps. Scales are applied to the sums.
struct Codes {
	static constexpr int ROWS = 4, DEPTH = 4, TABLE = 256 * 256;
	struct Unit { uint2 w[4]; };
	__device__ static int place(int k) { return k / 64 * 256 + 128 + k % 64 * 2; }
	__device__ static void prepare(char *shared, const float *values) {
		for (int i = threadIdx.x; i < 256 * 8; i += THREADS) {
			__half2 pair = __floats2half2_rn(values[i / 8 / 16], values[i / 8 % 16]); // a byte's first weight is its upper half
			uint32_t p = *(uint32_t *)&pair;
			*(uint4 *)(shared + i / 8 * 256 + i % 8 * 16) = make_uint4(p, p, p, p);
		}
	}
	__device__ static void load(Unit &u, const char *const *rows, int k, int columns, int lane) {
		int at = k + 16 * lane;
#pragma unroll
		for (int r = 0; r < ROWS; r++) u.w[r] = at < columns ? stream8(rows[r] + at / 2) : make_uint2(0, 0);
	}
	__device__ static const char *row(const Matrix &m, int row, int columns) { return m.weight + (long long)row * columns / 2; }
	__device__ static void vector(uint4 *x, const char *shared, int k, int lane) {
		const uint4 *at = (const uint4 *)(shared + place(k + 16 * lane));
		x[0] = at[0], x[1] = at[1];
	}
	__device__ static uint32_t pair(const char *shared, uint32_t codes, int byte, uint32_t lane4) {
		return *(const uint32_t *)(shared + __byte_perm(codes, lane4, 0x5504 | byte << 4));
	}
	__device__ static void multiply(float *sums, const Unit &u, const uint4 *x, const char *shared, int lane) {
		float out[4];
#pragma unroll
		for (int r = 0; r < ROWS; r += 2) {
			float c[4] = {0, 0, 0, 0};
#pragma unroll
			for (int h = 0; h < 2; h++) {
				uint32_t a = h ? u.w[r].y : u.w[r].x, b = h ? u.w[r + 1].y : u.w[r + 1].x;
				mma(c, pair(shared, a, 0, 4 * lane), pair(shared, b, 0, 4 * lane), pair(shared, a, 1, 4 * lane), pair(shared, b, 1, 4 * lane), x[h].x, x[h].y);
				mma(c, pair(shared, a, 2, 4 * lane), pair(shared, b, 2, 4 * lane), pair(shared, a, 3, 4 * lane), pair(shared, b, 3, 4 * lane), x[h].z, x[h].w);
			}
			out[r] = diagonal(c, lane, 0), out[r + 1] = diagonal(c, lane, 1);
		}
		if (on_diagonal(lane)) *(float4 *)sums = make_float4(out[0], out[1], out[2], out[3]);
	}
};

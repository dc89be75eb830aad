// LoRA's thin products on tensor cores: one side has at most 64 columns, so all three read or write the other side once and take
// the time that memory takes. The order of a product's inner index and of its columns is free, and is such that every lane reads
// 16 (or 8) bytes that lie side by side and has its part of the operands without going through shared memory.
// Each kernel can do two products at once, blockIdx.z = 0 and 1; dropout's mask belongs to the first.
#include "mma.cuh"
#include "philox.cuh"

// masked8 is eight elements of a token's row after dropout.
template <class T> __device__ __forceinline__ uint4 masked8(uint4 w, long long t, int i, const mask &m) {
	float v[8];
	unpack(v, w.x, T()), unpack(v + 2, w.y, T()), unpack(v + 4, w.z, T()), unpack(v + 6, w.w, T());
	m.apply(v, t, i);
	return make_uint4(pack(v, T()), pack(v + 2, T()), pack(v + 4, T()), pack(v + 6, T()));
}

// thin_low: out (M,r) = alpha·drop(x) (M,K)·yᵀ + beta·out, where an element of y lies at rank·yr + k·yk. r ≤ 16·RT, K is a
// multiple of 8, x is aligned to 16 bytes. A block has 8·NT tokens, and its eight warps share K.
template <int RT, int NT, class T> __device__ __forceinline__ void thin_low(T *out, const T *x, const float *y, int M, int K, int r,
	int yr, int yk, float alpha, float beta, const mask &m) {
	constexpr int WARPS = 8, ROWS = 16 * RT, TOKENS = 8 * NT;
	const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
	const long long t0 = (long long)blockIdx.x * TOKENS;
	const bool even = yk == 1 && yr % 4 == 0 && aligned(y);
	float sum[RT][NT][4] = {};
#pragma unroll 2
	for (int from = warp * 32; from < K; from += WARPS * 32) {
		const int k = from + 8 * q;
		uint4 xs[NT];
#pragma unroll
		for (int n = 0; n < NT; n++) {
			long long t = t0 + 8 * n + g;
			xs[n] = make_uint4(0, 0, 0, 0);
			if (t < M && k < K) xs[n] = *(const uint4 *)(x + t * K + k);
		}
		uint32_t ys[RT][2][4];
#pragma unroll
		for (int rt = 0; rt < RT; rt++)
#pragma unroll
			for (int h = 0; h < 2; h++) {
				int rank = 16 * rt + 8 * h + g;
				float v[8] = {};
				if (rank < r && k < K) {
					if (even) load8(v, y + (long long)rank * yr + k, 8, true);
					else
#pragma unroll
						for (int i = 0; i < 8; i++) v[i] = y[(long long)rank * yr + (long long)(k + i) * yk];
				}
#pragma unroll
				for (int i = 0; i < 4; i++) ys[rt][h][i] = pack(v + 2 * i, T());
			}
		if (m.threshold)
#pragma unroll
			for (int n = 0; n < NT; n++) {
				long long t = t0 + 8 * n + g;
				if (t < M && k < K) xs[n] = masked8<T>(xs[n], t, k, m);
			}
#pragma unroll
		for (int rt = 0; rt < RT; rt++)
#pragma unroll
			for (int n = 0; n < NT; n++) {
				mma(sum[rt][n], ys[rt][0][0], ys[rt][1][0], ys[rt][0][1], ys[rt][1][1], xs[n].x, xs[n].y, T());
				mma(sum[rt][n], ys[rt][0][2], ys[rt][1][2], ys[rt][0][3], ys[rt][1][3], xs[n].z, xs[n].w, T());
			}
	}
	__shared__ float part[WARPS][ROWS][TOKENS + 1];
#pragma unroll
	for (int rt = 0; rt < RT; rt++)
#pragma unroll
		for (int n = 0; n < NT; n++)
#pragma unroll
			for (int i = 0; i < 4; i++) part[warp][16 * rt + i / 2 * 8 + g][8 * n + 2 * q + i % 2] = sum[rt][n][i];
	__syncthreads();
	for (int i = threadIdx.x; i < TOKENS * ROWS; i += WARPS * 32) {
		int token = i / ROWS, rank = i % ROWS;
		if (t0 + token >= M || rank >= r) continue;
		float s = 0;
#pragma unroll
		for (int w = 0; w < WARPS; w++) s += part[w][rank][token];
		T *at = out + (t0 + token) * r + rank;
		*at = as<T>(alpha * s + (beta == 0 ? 0 : beta * to(*at)));
	}
}

// thin_spread: out (M,N) = alpha·drop(low (M,r)·y) + beta·out, where an element of y lies at rank·yr + n·yn. r ≤ 16·RT is even. A
// warp has 32 columns and keeps y's, for `tokens` tokens.
template <int RT, class T> __device__ __forceinline__ void thin_spread(T *out, const T *low, const float *y, int M, int N, int r,
	int yr, int yn, float alpha, float beta, int tokens, const mask &m) {
	const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
	const int n0 = (blockIdx.x * 8 + warp) * 32, n = n0 + 8 * q;
	if (n0 >= N) return;
	const bool even = aligned(out) && N % 8 == 0;
	// Column c of the four tiles is g of tile i, with c = n0 + g/2·8 + 2·i + g%2, so that a lane's sums are eight neighbours.
	uint32_t ys[RT][4][2];
#pragma unroll
	for (int rt = 0; rt < RT; rt++)
#pragma unroll
		for (int i = 0; i < 4; i++)
#pragma unroll
			for (int h = 0; h < 2; h++) {
				int column = n0 + g / 2 * 8 + 2 * i + g % 2, rank = 16 * rt + 8 * h + 2 * q;
				float v[2] = {};
				if (column < N && rank < r) {
					const float *at = y + (long long)rank * yr + (long long)column * yn;
					v[0] = at[0], v[1] = at[yr];
				}
				ys[rt][i][h] = pack(v, T());
			}
	const long long from = (long long)blockIdx.y * tokens, until = min((long long)M, from + tokens);
#pragma unroll 2
	for (long long t0 = from; t0 < until; t0 += 16) {
		float sum[4][4] = {}, before[2][8] = {};
#pragma unroll
		for (int h = 0; h < 2; h++)
			if (beta != 0 && t0 + 8 * h + g < until) load8(before[h], out + (t0 + 8 * h + g) * N + n, N - n, even && n < N);
#pragma unroll
		for (int rt = 0; rt < RT; rt++) {
			uint32_t ls[4]; // rows g and g+8, then both eight ranks on
#pragma unroll
			for (int i = 0; i < 4; i++) {
				long long t = t0 + i % 2 * 8 + g;
				int rank = 16 * rt + i / 2 * 8 + 2 * q;
				ls[i] = t < until && rank < r ? *(const uint32_t *)(low + t * r + rank) : 0;
			}
#pragma unroll
			for (int i = 0; i < 4; i++) mma(sum[i], ls[0], ls[1], ls[2], ls[3], ys[rt][i][0], ys[rt][i][1], T());
		}
#pragma unroll
		for (int h = 0; h < 2; h++) {
			long long t = t0 + 8 * h + g;
			if (t >= until || n >= N) continue;
			float v[8];
#pragma unroll
			for (int i = 0; i < 8; i++) v[i] = alpha * sum[i / 2][2 * h + i % 2];
			m.apply(v, t, n);
#pragma unroll
			for (int i = 0; i < 8; i++) v[i] += beta * before[h][i];
			store8(out + t * N + n, v, N - n, even);
		}
	}
}

// masked4 is four elements of a token's row after dropout.
template <class T> __device__ __forceinline__ uint2 masked4(uint2 w, long long t, int i, const mask &m) {
	uint4 r = philox(make_uint4(i / 4, m.tokens[2 * t + 1], m.tokens[2 * t], m.step), m.key);
	uint32_t words[4] = {r.x, r.y, r.z, r.w};
	float v[4];
	unpack(v, w.x, T()), unpack(v + 2, w.y, T());
#pragma unroll
	for (int k = 0; k < 4; k++) v[k] = words[k] >= m.threshold ? v[k] * m.scale : 0;
	return make_uint2(pack(v, T()), pack(v + 2, T()));
}

// thin_over: out (r,N) = alpha·low (M,r)ᵀ·drop(x) (M,N) + beta·out, an element of out at rank·orank + n·on. r ≤ 16·RT, N is a multiple of
// 4, x is aligned to 8 bytes. A block has 32 columns, and its sixteen warps share the tokens.
template <int RT, class T> __device__ __forceinline__ void thin_over(float *out, const T *low, const T *x, int M, int N, int r,
	int orank, int on, float alpha, float beta, const mask &m) {
	constexpr int WARPS = 16, COLUMNS = 32, UNROLL = RT == 1 ? 4 : RT == 2 ? 2 : 1;
	const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
	const int n0 = blockIdx.x * COLUMNS, n = n0 + 4 * g;
	if (n0 >= N) return; // the whole block
	float sum[RT][4][4] = {}; // column g of tile i is n0 + 4·g + i
#pragma unroll UNROLL
	for (long long t0 = warp * 16; t0 < M; t0 += WARPS * 16) {
		uint2 xs[4]; // the tokens 2q, 2q+1, 2q+8, 2q+9
		uint32_t ls[RT][4] = {};
#pragma unroll
		for (int i = 0; i < 4; i++) {
			long long t = t0 + i / 2 * 8 + 2 * q + i % 2;
			xs[i] = make_uint2(0, 0);
			if (t < M && n < N) xs[i] = *(const uint2 *)(x + t * N + n);
#pragma unroll
			for (int rt = 0; rt < RT; rt++)
#pragma unroll
				for (int h = 0; h < 2; h++) {
					int rank = 16 * rt + 8 * h + g;
					if (t < M && rank < r) ls[rt][i / 2 * 2 + h] |= (uint32_t)((const uint16_t *)low)[t * r + rank] << i % 2 * 16;
				}
		}
		if (m.threshold)
#pragma unroll
			for (int i = 0; i < 4; i++) {
				long long t = t0 + i / 2 * 8 + 2 * q + i % 2;
				if (t < M && n < N) xs[i] = masked4<T>(xs[i], t, n, m);
			}
#pragma unroll
		for (int i = 0; i < 4; i++) {
			uint32_t b[2];
#pragma unroll
			for (int h = 0; h < 2; h++) b[h] = __byte_perm(i < 2 ? xs[2 * h].x : xs[2 * h].y, i < 2 ? xs[2 * h + 1].x : xs[2 * h + 1].y, i % 2 ? 0x7632 : 0x5410);
#pragma unroll
			for (int rt = 0; rt < RT; rt++) mma(sum[rt][i], ls[rt][0], ls[rt][1], ls[rt][2], ls[rt][3], b[0], b[1], T());
		}
	}
	__shared__ float part[WARPS][16][COLUMNS + 1];
#pragma unroll
	for (int rt = 0; rt < RT; rt++) {
		__syncthreads();
#pragma unroll
		for (int i = 0; i < 4; i++)
#pragma unroll
			for (int j = 0; j < 4; j++) part[warp][j / 2 * 8 + g][4 * (2 * q + j % 2) + i] = sum[rt][i][j];
		__syncthreads();
		int rank = 16 * rt + threadIdx.x / COLUMNS, column = n0 + threadIdx.x % COLUMNS;
		float s = 0;
#pragma unroll
		for (int w = 0; w < WARPS; w++) s += part[w][threadIdx.x / COLUMNS][threadIdx.x % COLUMNS];
		float *at = out + (long long)rank * orank + (long long)column * on;
		if (rank < r && column < N) *at = alpha * s + (beta == 0 ? 0 : beta * *at);
	}
}

#define LOW_JOB(P, T) T *P##_out, const T *P##_x, const float *P##_y, int P##_K, int P##_yr, int P##_yk, float P##_alpha, float P##_beta
#define THIN_LOW(RT, NT, NAME, T) \
	extern "C" __global__ void __launch_bounds__(256) thin_low_##RT##_##NT##NAME(int M, int r, LOW_JOB(p, T), LOW_JOB(q, T), MASK(m)) { \
		bool second = blockIdx.z; \
		mask m = AS_MASK(m); \
		if (second) m.threshold = 0; \
		thin_low<RT, NT>(second ? q_out : p_out, second ? q_x : p_x, second ? q_y : p_y, M, second ? q_K : p_K, r, second ? q_yr : p_yr, \
			second ? q_yk : p_yk, second ? q_alpha : p_alpha, second ? q_beta : p_beta, m); \
	}
#define THIN_SPREAD(RT, NAME, T) \
	extern "C" __global__ void __launch_bounds__(256) thin_spread_##RT##NAME(T *out, const T *low, const float *y, int M, int N, int r, int yr, int yn, \
		float alpha, float beta, int tokens, MASK(m)) { \
		thin_spread<RT>(out, low, y, M, N, r, yr, yn, alpha, beta, tokens, AS_MASK(m)); \
	}
#define OVER_JOB(P, T) float *P##_out, const T *P##_low, const T *P##_x, int P##_N, int P##_orank, int P##_on, float P##_alpha, float P##_beta
#define THIN_OVER(RT, NAME, T) \
	extern "C" __global__ void __launch_bounds__(512) thin_over_##RT##NAME(int M, int r, OVER_JOB(p, T), OVER_JOB(q, T), MASK(m)) { \
		bool second = blockIdx.z; \
		mask m = AS_MASK(m); \
		if (second) m.threshold = 0; \
		thin_over<RT>(second ? q_out : p_out, second ? q_low : p_low, second ? q_x : p_x, M, second ? q_N : p_N, r, second ? q_orank : p_orank, \
			second ? q_on : p_on, second ? q_alpha : p_alpha, second ? q_beta : p_beta, m); \
	}
#define THIN(NAME, T) \
	THIN_LOW(1, 1, NAME, T) THIN_LOW(1, 4, NAME, T) THIN_LOW(2, 1, NAME, T) THIN_LOW(2, 4, NAME, T) THIN_LOW(4, 1, NAME, T) THIN_LOW(4, 2, NAME, T) \
	THIN_SPREAD(1, NAME, T) THIN_SPREAD(2, NAME, T) THIN_SPREAD(4, NAME, T) THIN_OVER(1, NAME, T) THIN_OVER(2, NAME, T) THIN_OVER(4, NAME, T)
THIN(_f16, f16)
THIN(_bf16, bf16)

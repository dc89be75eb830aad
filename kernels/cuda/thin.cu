// LoRA's thin products on tensor cores: one side has at most 64 columns, so all three read or write the other side once and take
// the time that memory takes. The order of a product's inner index and of its columns is free, and is such that every lane reads
// 16 (or 8) bytes that lie side by side and has its part of the operands without going through shared memory.
// Each kernel can do several products at once, blockIdx.z = 0, 1 …; dropout's masks belong to the first two.
#include "mma.cuh"
#include "philox.cuh"

template <class T> __device__ __forceinline__ void unpack8(float *v, uint4 w) {
	unpack(v, w.x, T()), unpack(v + 2, w.y, T()), unpack(v + 4, w.z, T()), unpack(v + 6, w.w, T());
}

// masked8 is eight elements of a token's row after dropout.
template <class T> __device__ __forceinline__ uint4 masked8(uint4 w, long long t, int i, const mask &m) {
	float v[8];
	unpack8<T>(v, w);
	m.apply(v, t, i);
	return make_uint4(pack(v, T()), pack(v + 2, T()), pack(v + 4, T()), pack(v + 6, T()));
}

// thin_low: out (M,r) = alpha·drop(x) (M,K)·yᵀ + beta·out, where an element of y lies at rank·yr + k·yk. r ≤ 8·H, K is a
// multiple of 8, x is aligned to 16 bytes. A block has 8·NT tokens, and its warps share K; a warp asks for MANY pieces at once.
template <int H, int NT> struct low_shape {
	static constexpr int WARPS = H <= 2 ? 16 : 8, MANY = H == 1 ? NT == 1 ? 5 : 2 : H == 2 ? NT == 1 ? 3 : 2 : 1;
};
template <int H, int NT, class T> __device__ __forceinline__ void thin_low(T *out, const T *x, const float *y, int M, int K, int r,
	int yr, int yk, float alpha, float beta, const mask &m) {
	constexpr int WARPS = low_shape<H, NT>::WARPS, MANY = low_shape<H, NT>::MANY, TILES = (H + 1) / 2, ROWS = H == 1 ? 8 : 16, TOKENS = 8 * NT;
	const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
	const long long t0 = (long long)blockIdx.x * TOKENS;
	const bool even = yk == 1 && yr % 4 == 0 && aligned(y);
	float sum[TILES][NT][4] = {};
	for (int from = warp * 32; from < K; from += WARPS * 32 * MANY) {
		uint4 xs[MANY][NT];
		float ys[MANY][H][8];
#pragma unroll
		for (int u = 0; u < MANY; u++) {
			int k = from + u * WARPS * 32 + 8 * q;
#pragma unroll
			for (int n = 0; n < NT; n++) {
				long long t = t0 + 8 * n + g;
				xs[u][n] = make_uint4(0, 0, 0, 0);
				if (t < M && k < K) xs[u][n] = *(const uint4 *)(x + t * K + k);
			}
		}
		if (even)
#pragma unroll
			for (int u = 0; u < MANY; u++)
#pragma unroll
				for (int h = 0; h < H; h++) {
					int k = from + u * WARPS * 32 + 8 * q, rank = 8 * h + g;
					float4 *to = (float4 *)ys[u][h];
					to[0] = to[1] = make_float4(0, 0, 0, 0);
					if (rank < r && k < K) load8(ys[u][h], y + (long long)rank * yr + k, 8, true);
				}
		else
#pragma unroll
			for (int u = 0; u < MANY; u++)
#pragma unroll
				for (int h = 0; h < H; h++)
#pragma unroll
					for (int i = 0; i < 8; i++) {
						int k = from + u * WARPS * 32 + 8 * q, rank = 8 * h + g;
						ys[u][h][i] = rank < r && k < K ? y[(long long)rank * yr + (long long)(k + i) * yk] : 0;
					}
		if (m.threshold)
#pragma unroll
			for (int u = 0; u < MANY; u++)
#pragma unroll
				for (int n = 0; n < NT; n++) {
					long long t = t0 + 8 * n + g;
					int k = from + u * WARPS * 32 + 8 * q;
					if (t < M && k < K) xs[u][n] = masked8<T>(xs[u][n], t, k, m);
				}
#pragma unroll
		for (int u = 0; u < MANY; u++)
#pragma unroll
			for (int tile = 0; tile < TILES; tile++) {
				uint32_t a[2][4] = {};
#pragma unroll
				for (int h = 0; h < 2 && 2 * tile + h < H; h++)
#pragma unroll
					for (int i = 0; i < 4; i++) a[h][i] = pack(ys[u][2 * tile + h] + 2 * i, T());
#pragma unroll
				for (int n = 0; n < NT; n++) {
					mma(sum[tile][n], a[0][0], a[1][0], a[0][1], a[1][1], xs[u][n].x, xs[u][n].y, T());
					mma(sum[tile][n], a[0][2], a[1][2], a[0][3], a[1][3], xs[u][n].z, xs[u][n].w, T());
				}
			}
	}
	__shared__ float part[WARPS][ROWS][TOKENS + 1];
#pragma unroll
	for (int tile = 0; tile < TILES; tile++) {
		__syncthreads();
#pragma unroll
		for (int n = 0; n < NT; n++)
#pragma unroll
			for (int i = 0; i < ROWS / 4; i++) part[warp][i / 2 * 8 + g][8 * n + 2 * q + i % 2] = sum[tile][n][i];
		__syncthreads();
		for (int i = threadIdx.x; i < TOKENS * ROWS; i += WARPS * 32) {
			int token = i / ROWS, row = i % ROWS, rank = 16 * tile + row;
			if (t0 + token >= M || rank >= r) continue;
			float s = 0;
#pragma unroll
			for (int w = 0; w < WARPS; w++) s += part[w][row][token];
			T *at = out + (t0 + token) * r + rank;
			*at = as<T>(alpha * s + (beta == 0 ? 0 : beta * to(*at)));
		}
	}
}

// A term of a spread product: alpha·drop(low (M,r)·y), where an element of y lies at rank·yr + n·yn.
template <class T> struct term {
	const T *low;
	const float *y;
	int yr, yn;
	float alpha;
	mask m;
};

// thin_spread: out (M,N) = the sum of terms + beta·out. r ≤ 16·RT is even. A warp has 32 columns and keeps y's, for `tokens` tokens.
template <int RT, int TERMS, class T> __device__ __forceinline__ void thin_spread(T *out, const term<T> (&terms)[TERMS], int M, int N, int r, float beta, int tokens) {
	const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
	const int n0 = (blockIdx.x * 8 + warp) * 32, n = n0 + 8 * q;
	if (n0 >= N) return;
	const bool even = aligned(out) && N % 8 == 0;
	// Column c of the four tiles is g of tile i, with c = n0 + g/2·8 + 2·i + g%2, so that a lane's sums are eight neighbours.
	uint32_t ys[TERMS][RT][4][2];
#pragma unroll
	for (int k = 0; k < TERMS; k++)
#pragma unroll
		for (int rt = 0; rt < RT; rt++)
#pragma unroll
			for (int i = 0; i < 4; i++)
#pragma unroll
				for (int h = 0; h < 2; h++) {
					int column = n0 + g / 2 * 8 + 2 * i + g % 2, rank = 16 * rt + 8 * h + 2 * q;
					float v[2] = {};
					if (column < N && rank < r) {
						const float *at = terms[k].y + (long long)rank * terms[k].yr + (long long)column * terms[k].yn;
						v[0] = at[0], v[1] = at[terms[k].yr];
					}
					ys[k][rt][i][h] = pack(v, T());
				}
	const long long from = (long long)blockIdx.y * tokens, until = min((long long)M, from + tokens);
	constexpr int MANY = RT == 1 ? 2 : 1; // runs of 16 tokens that are asked for at once
	for (long long first = from; first < until; first += 16 * MANY) {
		uint4 before[MANY][2];
		uint32_t ls[MANY][TERMS][RT][4]; // rows g and g+8, then both eight ranks on
#pragma unroll
		for (int u = 0; u < MANY; u++) {
			long long t0 = first + 16 * u;
#pragma unroll
			for (int h = 0; h < 2; h++)
				if (even && beta != 0 && t0 + 8 * h + g < until && n < N) before[u][h] = *(const uint4 *)(out + (t0 + 8 * h + g) * N + n);
#pragma unroll
			for (int k = 0; k < TERMS; k++)
#pragma unroll
				for (int rt = 0; rt < RT; rt++)
#pragma unroll
					for (int i = 0; i < 4; i++) {
						long long t = t0 + i % 2 * 8 + g;
						int rank = 16 * rt + i / 2 * 8 + 2 * q;
						ls[u][k][rt][i] = t < until && rank < r ? *(const uint32_t *)(terms[k].low + t * r + rank) : 0;
					}
		}
#pragma unroll
		for (int u = 0; u < MANY; u++) {
			float sum[TERMS][4][4] = {};
#pragma unroll
			for (int k = 0; k < TERMS; k++)
#pragma unroll
				for (int rt = 0; rt < RT; rt++)
#pragma unroll
					for (int i = 0; i < 4; i++)
						mma(sum[k][i], ls[u][k][rt][0], ls[u][k][rt][1], ls[u][k][rt][2], ls[u][k][rt][3], ys[k][rt][i][0], ys[k][rt][i][1], T());
#pragma unroll
			for (int h = 0; h < 2; h++) {
				long long t = first + 16 * u + 8 * h + g;
				if (t >= until || n >= N) continue;
				T *at = out + t * N + n;
				float v[8] = {}, old[8] = {};
#pragma unroll
				for (int k = 0; k < TERMS; k++) {
					float own[8];
#pragma unroll
					for (int i = 0; i < 8; i++) own[i] = terms[k].alpha * sum[k][i / 2][2 * h + i % 2];
					terms[k].m.apply(own, t, n);
#pragma unroll
					for (int i = 0; i < 8; i++) v[i] += own[i];
				}
				if (beta != 0) {
					if (even) unpack8<T>(old, before[u][h]);
					else load8(old, at, N - n, false);
#pragma unroll
					for (int i = 0; i < 8; i++) v[i] += beta * old[i];
				}
				store8(at, v, N - n, even);
			}
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

// thin_over: out (r,N) = alpha·low (M,r)ᵀ·drop(x) (M,N) + beta·out, an element of out at rank·orank + n·on. r ≤ 8·H, N is a
// multiple of 4, x is aligned to 8 bytes. A block has 32 columns, and its sixteen warps share the tokens; a warp asks for MANY runs
// of sixteen at once.
template <int H, class T> __device__ __forceinline__ void thin_over(float *out, const T *low, const T *x, int M, int N, int r,
	int orank, int on, float alpha, float beta, const mask &m) {
	constexpr int WARPS = 16, COLUMNS = 32, MANY = H == 1 ? 4 : H == 2 ? 3 : 1, TILES = (H + 1) / 2;
	const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
	const int n0 = blockIdx.x * COLUMNS, n = n0 + 4 * g;
	if (n0 >= N) return; // the whole block
	float sum[TILES][4][4] = {}; // column g of tile i is n0 + 4·g + i
	for (long long first = warp * 16; first < M; first += WARPS * 16 * MANY) {
		uint2 xs[MANY][4]; // the tokens 2q, 2q+1, 2q+8, 2q+9
		uint16_t ls[MANY][4][H];
#pragma unroll
		for (int u = 0; u < MANY; u++)
#pragma unroll
			for (int i = 0; i < 4; i++) {
				long long t = first + u * WARPS * 16 + i / 2 * 8 + 2 * q + i % 2;
				xs[u][i] = make_uint2(0, 0);
				if (t < M && n < N) xs[u][i] = *(const uint2 *)(x + t * N + n);
#pragma unroll
				for (int h = 0; h < H; h++) ls[u][i][h] = t < M && 8 * h + g < r ? ((const uint16_t *)low)[t * r + 8 * h + g] : 0;
			}
		if (m.threshold)
#pragma unroll
			for (int u = 0; u < MANY; u++)
#pragma unroll
				for (int i = 0; i < 4; i++) {
					long long t = first + u * WARPS * 16 + i / 2 * 8 + 2 * q + i % 2;
					if (t < M && n < N) xs[u][i] = masked4<T>(xs[u][i], t, n, m);
				}
#pragma unroll
		for (int u = 0; u < MANY; u++) {
			uint32_t a[H][2]; // of eight ranks: the tokens 2q, 2q+1, then 2q+8, 2q+9
#pragma unroll
			for (int h = 0; h < H; h++)
#pragma unroll
				for (int i = 0; i < 2; i++) a[h][i] = ls[u][2 * i][h] | (uint32_t)ls[u][2 * i + 1][h] << 16;
#pragma unroll
			for (int i = 0; i < 4; i++) {
				uint32_t b[2];
#pragma unroll
				for (int j = 0; j < 2; j++)
					b[j] = __byte_perm(i < 2 ? xs[u][2 * j].x : xs[u][2 * j].y, i < 2 ? xs[u][2 * j + 1].x : xs[u][2 * j + 1].y, i % 2 ? 0x7632 : 0x5410);
#pragma unroll
				for (int tile = 0; tile < TILES; tile++) {
					const int high = 2 * tile + 1;
					mma(sum[tile][i], a[2 * tile][0], high < H ? a[high % H][0] : 0, a[2 * tile][1], high < H ? a[high % H][1] : 0, b[0], b[1], T());
				}
			}
		}
	}
	__shared__ float part[WARPS][16][COLUMNS + 1];
#pragma unroll
	for (int tile = 0; tile < TILES; tile++) {
		__syncthreads();
#pragma unroll
		for (int i = 0; i < 4; i++)
#pragma unroll
			for (int j = 0; j < 4; j++) part[warp][j / 2 * 8 + g][4 * (2 * q + j % 2) + i] = sum[tile][i][j];
		__syncthreads();
		int rank = 16 * tile + threadIdx.x / COLUMNS, column = n0 + threadIdx.x % COLUMNS;
		float s = 0;
#pragma unroll
		for (int w = 0; w < WARPS; w++) s += part[w][threadIdx.x / COLUMNS][threadIdx.x % COLUMNS];
		float *at = out + (long long)rank * orank + (long long)column * on;
		if (rank < r && column < N) *at = alpha * s + (beta == 0 ? 0 : beta * *at);
	}
}

#define LOW_JOB(P, T) T *P##_out, const T *P##_x, const float *P##_y, int P##_K, int P##_yr, int P##_yk, float P##_alpha, float P##_beta
#define THIN_LOW(H, NT, THREADS, NAME, T) \
	extern "C" __global__ void __launch_bounds__(THREADS) thin_low_##H##_##NT##NAME(int M, int r, LOW_JOB(p, T), LOW_JOB(q, T), MASK(m), MASK(n)) { \
		bool second = blockIdx.z; \
		thin_low<H, NT>(second ? q_out : p_out, second ? q_x : p_x, second ? q_y : p_y, M, second ? q_K : p_K, r, second ? q_yr : p_yr, \
			second ? q_yk : p_yk, second ? q_alpha : p_alpha, second ? q_beta : p_beta, second ? AS_MASK(n) : AS_MASK(m)); \
	}
#define SPREAD_JOB(P, T) T *P##_out, const T *P##_low, const float *P##_y, int P##_N, int P##_yr, int P##_yn, float P##_alpha
#define THIN_SPREAD(RT, NAME, T) \
	extern "C" __global__ void __launch_bounds__(256, RT == 1 ? 3 : 2) thin_spread_##RT##NAME(int M, int r, int tokens, float beta, SPREAD_JOB(p, T), SPREAD_JOB(q, T), MASK(m), MASK(n)) { \
		bool second = blockIdx.z; \
		term<T> only[1] = {{second ? q_low : p_low, second ? q_y : p_y, second ? q_yr : p_yr, second ? q_yn : p_yn, second ? q_alpha : p_alpha, \
			second ? AS_MASK(n) : AS_MASK(m)}}; \
		thin_spread<RT>(second ? q_out : p_out, only, M, second ? q_N : p_N, r, beta, tokens); \
	}
#define THIN_SPREAD_SUM(NAME, T) \
	extern "C" __global__ void __launch_bounds__(256, 2) thin_spread_sum##NAME(int M, int r, int tokens, float beta, SPREAD_JOB(p, T), SPREAD_JOB(q, T), MASK(m), MASK(n)) { \
		term<T> both[2] = {{p_low, p_y, p_yr, p_yn, p_alpha, AS_MASK(m)}, {q_low, q_y, q_yr, q_yn, q_alpha, AS_MASK(n)}}; \
		thin_spread<1>(p_out, both, M, p_N, r, beta, tokens); \
	}
#define OVER_JOB(P, T) float *P##_out, const T *P##_low, const T *P##_x, int P##_N, int P##_orank, int P##_on, float P##_alpha, float P##_beta
#define PICK(F) (z == 0 ? p_##F : z == 1 ? q_##F : z == 2 ? s_##F : t_##F)
#define THIN_OVER(H, NAME, T) \
	extern "C" __global__ void __launch_bounds__(512) thin_over_##H##NAME(int M, int r, OVER_JOB(p, T), OVER_JOB(q, T), OVER_JOB(s, T), OVER_JOB(t, T), MASK(m), MASK(n)) { \
		int z = blockIdx.z; \
		mask m = z ? AS_MASK(n) : AS_MASK(m); \
		if (z > 1) m.threshold = 0; \
		thin_over<H>(PICK(out), PICK(low), PICK(x), M, PICK(N), r, PICK(orank), PICK(on), PICK(alpha), PICK(beta), m); \
	}
#define THIN(NAME, T) \
	THIN_LOW(1, 1, 512, NAME, T) THIN_LOW(1, 4, 512, NAME, T) THIN_LOW(2, 1, 512, NAME, T) THIN_LOW(2, 4, 512, NAME, T) \
	THIN_LOW(8, 1, 256, NAME, T) THIN_LOW(8, 4, 256, NAME, T) \
	THIN_SPREAD(1, NAME, T) THIN_SPREAD(4, NAME, T) THIN_SPREAD_SUM(NAME, T) THIN_OVER(1, NAME, T) THIN_OVER(2, NAME, T) THIN_OVER(8, NAME, T)
THIN(_f16, f16)
THIN(_bf16, bf16)

// NF4, bit for bit as bitsandbytes stores it: blocks scaled by their absmax and rounded to sixteen values, and with double
// quantisation the absmaxima, less their mean, scaled in blocks of their own and rounded to the signed 8-bit map. A byte holds
// two codes, the first in its upper half. What is rounded apart in the format is not fused here.
#include "table.cuh"

__constant__ float nf4_thresholds[15] = {
	-0.8480964004993439f, -0.6106329262256622f, -0.4599952697753906f, -0.33967943489551544f, -0.23460740596055984f,
	-0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f, 0.2035212516784668f,
	0.2920137718319893f, 0.3893125355243683f, 0.5016634166240692f, 0.6427869200706482f, 0.8614784178118011f,
};
__constant__ float nf4_values[16] = {
	-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,
	-0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
	0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f,
};

constexpr int RUNS = 4;
constexpr unsigned ZERO = 7; // the code of 0, which fills up the last byte

__device__ __forceinline__ unsigned nf4_code(float x) {
	unsigned code = 0;
#pragma unroll
	for (int i = 0; i < 15; i++) code += x > nf4_thresholds[i];
	return code;
}

// bits is log2 of a power of two, else -1.
__device__ __forceinline__ int bits(int size) { return size & (size - 1) ? -1 : 31 - __clz(size); }

// A warp takes 256 weights at a time, eight a lane, where blocks divide those evenly; otherwise a block at a time. n is the number
// of weights in all.
template <class T> __device__ __forceinline__ void quantize_nf4(uint8_t *codes, float *absmax, const T *x, int size, long long n) {
	const int lane = threadIdx.x % 32, lanes = size / 8;
	const long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32, warps = (long long)gridDim.x * blockDim.x / 32;
	if (bits(size) < 3 || size > 256) {
#pragma unroll 1
		for (long long block = warp; block * size < n; block += warps) {
			long long from = block * size, end = min(n, from + size);
			float top = 0;
#pragma unroll 1
			for (long long i = from + lane; i < end; i += 32) top = fmaxf(top, fabsf(to(x[i])));
			top = warp_max(top);
			if (lane == 0) absmax[block] = top;
			float scale = __frcp_rn(top);
#pragma unroll 1
			for (long long i = from + 2 * lane; i < end; i += 64) {
				unsigned high = nf4_code(__fmul_rn(to(x[i]), scale));
				unsigned low = i + 1 < end ? nf4_code(__fmul_rn(to(x[i + 1]), scale)) : ZERO;
				codes[i / 2] = high << 4 | low;
			}
		}
		return;
	}
	const bool even = aligned(x);
	for (long long part = warp; part * 256 < n; part += warps) {
		long long from = part * 256 + 8 * lane;
		int there = (int)max(0LL, min(8LL, n - from));
		float v[8], top = 0;
		load8(v, x + from, there, even && there == 8);
#pragma unroll
		for (int i = 0; i < 8; i++) top = fmaxf(top, fabsf(v[i]));
		for (int i = lanes / 2; i; i /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
		if (lane % lanes == 0 && there > 0) absmax[from / size] = top;
		float scale = __frcp_rn(top); // of a block of zeros infinite, and 0·∞ is code 0
		uint32_t word = 0;
#pragma unroll
		for (int i = 0; i < 8; i++) word |= (i < there ? nf4_code(__fmul_rn(v[i], scale)) : ZERO) << (i ^ 1) * 4;
		if (there == 8) *(uint32_t *)(codes + from / 2) = word;
		else for (int i = 0; 2 * i < there; i++) codes[from / 2 + i] = word >> 8 * i;
	}
}

#define QUANTIZE(SUFFIX, T) \
	extern "C" __global__ void quantize_nf4##SUFFIX(uint8_t *codes, float *absmax, const T *x, int size, long long n) { \
		quantize_nf4(codes, absmax, x, size, n); \
	}
EACH_FLOAT(QUANTIZE)

// mean (1) = Σ x / n by one block of 1024 threads, summed in fp64.
extern "C" __global__ void nf4_mean(float *mean, const float *x, long long n) {
	__shared__ double part[1024];
	double sum = 0;
#pragma unroll 8
	for (long long i = threadIdx.x; i < n; i += 1024) sum += x[i];
	part[threadIdx.x] = sum;
	for (int half = 512; half; half /= 2) {
		__syncthreads();
		if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
	}
	if (threadIdx.x == 0) *mean = (float)(part[0] / (double)max(n, 1ll));
}

// A block of 256 threads does one scale: those of up to size absmaxima. map is the signed 8-bit map.
extern "C" __global__ void nf4_nested(uint8_t *codes, float *scales, const float *absmax, const float *mean, const float *map, int size, long long n) {
	long long from = (long long)blockIdx.x * size, end = min(n, from + size);
	float top = 0;
	for (long long i = from + threadIdx.x; i < end; i += 256) top = fmaxf(top, fabsf(__fsub_rn(absmax[i], *mean)));
	top = block_max(top);
	if (threadIdx.x == 0) scales[blockIdx.x] = top;
	float scale = __frcp_rn(top);
	for (long long i = from + threadIdx.x; i < end; i += 256) codes[i] = nearest(map, __fmul_rn(__fsub_rn(absmax[i], *mean), scale));
}

// rounded is x rounded to a kernels.DType.
template <int ROUND> __device__ __forceinline__ float rounded(float x) {
	return ROUND == 0 ? x : ROUND == 1 ? to(as<f16>(x)) : to(as<bf16>(x));
}

// scales are an NF4 matrix's: absmax is F32, or with nested_size > 0 U8 codes of map.
struct scales {
	const void *absmax;
	const float *nested, *map;
	float offset;
	int nested_size;

	__device__ __forceinline__ float of(long long block) const {
		if (!nested_size) return ((const float *)absmax)[block];
		int shift = bits(nested_size);
		long long group = shift < 0 ? block / nested_size : block >> shift;
		return __fadd_rn(__fmul_rn(map[((const uint8_t *)absmax)[block]], nested[group]), offset);
	}
};

// A thread does RUNS runs of 8 weights, a block of threads apart. values is the codebook.
template <int ROUND, class T> __device__ __forceinline__ void dequantize_runs(T *out, const uint8_t *codes, const scales &s, const float *values, int size, long long n) {
	const int shift = bits(size), step = blockDim.x * 8;
	const long long from = (long long)blockIdx.x * step * RUNS + threadIdx.x * 8;
	if (shift < 3 || from + (RUNS - 1) * (long long)step + 8 > n) {
#pragma unroll 1
		for (int r = 0; r < RUNS; r++)
#pragma unroll 1
			for (long long i = from + (long long)r * step; i < min(n, from + (long long)r * step + 8); i++)
				out[i] = as<T>(rounded<ROUND>(__fmul_rn(values[codes[i / 2] >> (~i & 1) * 4 & 15], s.of(i / size))));
		return;
	}
	const bool even = aligned(out);
	uint32_t word[RUNS];
	float scale[RUNS];
#pragma unroll
	for (int r = 0; r < RUNS; r++) word[r] = *(const uint32_t *)(codes + (from + r * step) / 2);
#pragma unroll
	for (int r = 0; r < RUNS; r++) scale[r] = s.of(from + r * step >> shift);
#pragma unroll
	for (int r = 0; r < RUNS; r++) {
		float v[8];
#pragma unroll
		for (int i = 0; i < 8; i++) v[i] = rounded<ROUND>(__fmul_rn(values[word[r] >> (i ^ 1) * 4 & 15], scale[r]));
		store8(out + from + r * step, v, 8, even);
	}
}

// round is the kernels.DType that weights are rounded to before they become T.
template <class T> __device__ __forceinline__ void dequantize_nf4(T *out, const uint8_t *codes, const scales &s, int size, int round, long long n) {
	__shared__ float values[16];
	if (threadIdx.x < 16) values[threadIdx.x] = nf4_values[threadIdx.x];
	__syncthreads();
	if (round == 1) dequantize_runs<1>(out, codes, s, values, size, n);
	else if (round == 2) dequantize_runs<2>(out, codes, s, values, size, n);
	else dequantize_runs<0>(out, codes, s, values, size, n);
}

#define DEQUANTIZE(SUFFIX, T) \
	extern "C" __global__ void dequantize_nf4##SUFFIX(T *out, const uint8_t *codes, const void *absmax, const float *nested, const float *map, \
		float offset, int size, int nested_size, int round, long long n) { \
		dequantize_nf4(out, codes, scales{absmax, nested, map, offset, nested_size}, size, round, n); \
	}
EACH_FLOAT(DEQUANTIZE)

// apart adds to moved and whole the squares of w - x and of w, of the 8·RUNS weights that dequantize_runs gives a thread.
template <int ROUND, class T> __device__ __forceinline__ void apart(float &moved, float &whole, const uint8_t *codes, const scales &s, const T *w, const float *values, int size, long long n) {
	const int shift = bits(size), step = blockDim.x * 8;
	const long long first = (long long)blockIdx.x * step * RUNS + threadIdx.x * 8;
	auto add = [&](float own, unsigned code, float scale) {
		float d = own - rounded<ROUND>(__fmul_rn(values[code], scale));
		moved += d * d, whole += own * own;
	};
#pragma unroll 1
	for (int r = 0; r < RUNS; r++) {
		const long long from = first + r * step;
		if (shift < 3 || from + 8 > n) {
#pragma unroll 1
			for (long long i = from; i < min(n, from + 8); i++) add(to(w[i]), codes[i / 2] >> (~i & 1) * 4 & 15, s.of(i / size));
			continue;
		}
		float own[8], scale = s.of(from >> shift);
		load8(own, w + from, 8, aligned(w));
		uint32_t word = *(const uint32_t *)(codes + from / 2);
#pragma unroll
		for (int i = 0; i < 8; i++) add(own[i], word >> (i ^ 1) * 4 & 15, scale);
	}
}

__device__ __forceinline__ double block_sum(double x) {
	__shared__ double part[256];
	__syncthreads();
	part[threadIdx.x] = x;
	for (int half = 128; half; half /= 2) {
		__syncthreads();
		if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
	}
	__syncthreads();
	return part[0];
}

// error_nf4: part (blocks,2) holds the sums of a block of 256 threads.
template <class T> __device__ __forceinline__ void error_nf4(double *part, const uint8_t *codes, const scales &s, const T *w, int size, int round, long long n) {
	__shared__ float values[16];
	if (threadIdx.x < 16) values[threadIdx.x] = nf4_values[threadIdx.x];
	__syncthreads();
	float moved = 0, whole = 0;
	if (round == 1) apart<1>(moved, whole, codes, s, w, values, size, n);
	else if (round == 2) apart<2>(moved, whole, codes, s, w, values, size, n);
	else apart<0>(moved, whole, codes, s, w, values, size, n);
	double sums[2] = {block_sum((double)moved), block_sum((double)whole)};
	if (threadIdx.x < 2) part[2 * blockIdx.x + threadIdx.x] = sums[threadIdx.x];
}

#define ERROR_NF4(SUFFIX, T) \
	extern "C" __global__ void error_nf4##SUFFIX(double *part, const uint8_t *codes, const void *absmax, const float *nested, const float *map, \
		const T *w, float offset, int size, int nested_size, int round, long long n) { \
		error_nf4(part, codes, scales{absmax, nested, map, offset, nested_size}, w, size, round, n); \
	}
EACH_FLOAT(ERROR_NF4)

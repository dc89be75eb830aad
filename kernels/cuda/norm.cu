// LayerNorm and its gradient: one block a row of D elements, statistics in fp32 about the mean. A row is read once from memory
// and then from the cache. LayerNorm overwrites out and stats; LayerNormBackward adds to dx.
#include "vector.cuh"

// Each thread does the runs of eight that begin at its number·8, blockDim·8 apart.
#define EACH_RUN(i) for (int i = threadIdx.x * 8; i < D; i += blockDim.x * 8)

template <class T, class W>
__device__ __forceinline__ void layer_norm(T *out, float *stats, const T *x, const W *weight, const W *bias, int D, float eps) {
	long long row = blockIdx.x;
	x += row * D, out += row * D;
	bool wide = aligned(x) && aligned(out) && aligned(weight) && aligned(bias);
	float v[8], sum = 0, squares = 0;
	EACH_RUN(i) {
		load8(v, x + i, D - i, wide && i + 8 <= D);
#pragma unroll
		for (int k = 0; k < 8; k++) sum += v[k];
	}
	float mean = block_sum(sum) / D;
	EACH_RUN(i) {
		load8(v, x + i, D - i, wide && i + 8 <= D);
#pragma unroll
		for (int k = 0; k < 8; k++)
			if (i + k < D) squares += (v[k] - mean) * (v[k] - mean);
	}
	float scale = 1 / sqrtf(block_sum(squares) / D + eps);
	EACH_RUN(i) {
		float w[8], b[8];
		load8(v, x + i, D - i, wide && i + 8 <= D);
		load8(w, weight + i, D - i, wide && i + 8 <= D);
		load8(b, bias + i, D - i, wide && i + 8 <= D);
#pragma unroll
		for (int k = 0; k < 8; k++) v[k] = (v[k] - mean) * scale * w[k] + b[k];
		store8(out + i, v, D - i, wide && i + 8 <= D);
	}
	if (stats && threadIdx.x == 0) stats[2 * row] = mean, stats[2 * row + 1] = scale;
}

// With x̂ the normalised row and g = dout·weight, dx += (g - mean(g) - x̂·mean(g·x̂))·scale.
template <class T, class W>
__device__ __forceinline__ void layer_norm_backward(T *dx, const T *dout, const T *x, const W *weight, const float *stats, int D) {
	long long row = blockIdx.x;
	dx += row * D, dout += row * D, x += row * D;
	bool wide = aligned(dx) && aligned(dout) && aligned(x) && aligned(weight);
	float mean = stats[2 * row], scale = stats[2 * row + 1];
	float d[8], v[8], w[8], sum = 0, along = 0;
	EACH_RUN(i) {
		load8(d, dout + i, D - i, wide && i + 8 <= D);
		load8(v, x + i, D - i, wide && i + 8 <= D);
		load8(w, weight + i, D - i, wide && i + 8 <= D);
#pragma unroll
		for (int k = 0; k < 8; k++) {
			float g = d[k] * w[k];
			sum += g, along += g * (v[k] - mean) * scale;
		}
	}
	sum = block_sum(sum) / D, along = block_sum(along) / D;
	EACH_RUN(i) {
		float before[8];
		load8(d, dout + i, D - i, wide && i + 8 <= D);
		load8(v, x + i, D - i, wide && i + 8 <= D);
		load8(w, weight + i, D - i, wide && i + 8 <= D);
		load8(before, dx + i, D - i, wide && i + 8 <= D);
#pragma unroll
		for (int k = 0; k < 8; k++) before[k] += (d[k] * w[k] - sum - (v[k] - mean) * scale * along) * scale;
		store8(dx + i, before, D - i, wide && i + 8 <= D);
	}
}

#define NORM(NAME, T, W) \
	extern "C" __global__ void layer_norm##NAME(T *out, float *stats, const T *x, const W *weight, const W *bias, int D, float eps) { \
		layer_norm(out, stats, x, weight, bias, D, eps); \
	} \
	extern "C" __global__ void layer_norm_backward##NAME(T *dx, const T *dout, const T *x, const W *weight, const float *stats, int D) { \
		layer_norm_backward(dx, dout, x, weight, stats, D); \
	}
NORM(_f32_f32, float, float)
NORM(_f32_f16, float, f16)
NORM(_f32_bf16, float, bf16)
NORM(_f16_f32, f16, float)
NORM(_f16_f16, f16, f16)
NORM(_f16_bf16, f16, bf16)
NORM(_bf16_f32, bf16, float)
NORM(_bf16_f16, bf16, f16)
NORM(_bf16_bf16, bf16, bf16)

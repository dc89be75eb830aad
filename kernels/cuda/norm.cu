// LayerNorm and its gradient: one block a row of D elements, statistics in fp32 about the mean. LayerNorm overwrites out and
// stats; LayerNormBackward adds to dx; AddNorm overwrites out, norm and stats.
//
// A thread's runs of eight elements begin at its number·8, blockDim·8 apart. It keeps the first in registers, which is all
// where D is at most 4096, and reads later ones again.
#include "philox.cuh"

struct runs {
	int D, first, stride;
	__device__ runs(int D) : D(D), first(threadIdx.x * 8), stride(blockDim.x * 8) {}

	// each calls f(values, column) for every run of x.
	template <class T, class F> __device__ __forceinline__ void each(float *held, const T *x, bool even, F f) const {
		f(held, first);
		for (int i = first + stride; i < D; i += stride) {
			float v[8];
			load8(v, x + i, D - i, even && i + 8 <= D);
			f(v, i);
		}
	}
	template <class T> __device__ __forceinline__ void load(float *v, const T *x, int i, bool even) const { load8(v, x + i, D - i, even && i + 8 <= D); }
	template <class T> __device__ __forceinline__ void store(T *x, const float *v, int i, bool even) const { store8(x + i, v, D - i, even && i + 8 <= D); }
};

// normalise writes the LayerNorm of a row x, whose first run is held. Its roundings are spelt out: LayerNorm and AddNorm must
// agree to the bit, since a pass may do one forward and the other when it computes activations again.
template <class T, class W>
__device__ __forceinline__ void normalise(T *out, float *stats, float *held, const T *x, const W *weight, const W *bias, runs r, float eps, bool even) {
	float sum = 0, squares = 0;
	r.each(held, x, even, [&](float *v, int i) {
#pragma unroll
		for (int k = 0; k < 8; k++) sum += v[k];
	});
	float mean = block_sum(sum) / r.D;
	r.each(held, x, even, [&](float *v, int i) {
#pragma unroll
		for (int k = 0; k < 8; k++)
			if (i + k < r.D) squares = fmaf(v[k] - mean, v[k] - mean, squares);
	});
	float scale = 1 / sqrtf(block_sum(squares) / r.D + eps);
	r.each(held, x, even, [&](float *v, int i) {
		float w[8], b[8];
		r.load(w, weight, i, even), r.load(b, bias, i, even);
#pragma unroll
		for (int k = 0; k < 8; k++) w[k] = fmaf((v[k] - mean) * scale, w[k], b[k]);
		r.store(out, w, i, even);
	});
	if (stats && threadIdx.x == 0) stats[0] = mean, stats[1] = scale;
}

template <class T, class W>
__device__ __forceinline__ void layer_norm(T *out, float *stats, const T *x, const W *weight, const W *bias, int D, float eps) {
	long long row = blockIdx.x;
	x += row * D, out += row * D;
	bool even = aligned(x) && aligned(out) && aligned(weight) && aligned(bias);
	runs r(D);
	float v[8];
	r.load(v, x, r.first, even);
	normalise(out, stats ? stats + 2 * row : 0, v, x, weight, bias, r, eps, even);
}

// add_norm is out = x + drop(a) + drop(b), rounded, and the LayerNorm of that. norm may be a or b, and out x.
template <class T, class W>
__device__ __forceinline__ void add_norm(T *out, T *norm, float *stats, const T *x, const T *a, const T *b, const W *weight, const W *bias, int D, float eps, mask drop_a, mask drop_b) {
	long long row = blockIdx.x;
	out += row * D, norm += row * D, x += row * D, a += row * D, b += row * D;
	bool even = aligned(out) && aligned(norm) && aligned(x) && aligned(a) && aligned(b) && aligned(weight) && aligned(bias);
	runs r(D);
	auto add = [&](float *v, int i) {
		float y[8], z[8];
		r.load(v, x, i, even), r.load(y, a, i, even), r.load(z, b, i, even);
		drop_a.apply(y, row, i), drop_b.apply(z, row, i);
#pragma unroll
		for (int k = 0; k < 8; k++) v[k] = to(as<T>(v[k] + y[k] + z[k]));
		r.store(out, v, i, even);
	};
	float held[8];
	add(held, r.first);
	for (int i = r.first + r.stride; i < D; i += r.stride) {
		float v[8];
		add(v, i);
	}
	normalise(norm, stats ? stats + 2 * row : 0, held, out, weight, bias, r, eps, even);
}

// With x̂ the normalised row and g = dout·weight, dx += (g - mean(g) - x̂·mean(g·x̂))·scale.
template <class T, class W>
__device__ __forceinline__ void layer_norm_backward(T *dx, const T *dout, const T *x, const W *weight, const float *stats, int D) {
	long long row = blockIdx.x;
	dx += row * D, dout += row * D, x += row * D;
	bool even = aligned(dx) && aligned(dout) && aligned(x) && aligned(weight);
	float mean = stats[2 * row], scale = stats[2 * row + 1], sum = 0, along = 0;
	runs r(D);
	// gradient leaves g and x̂ of a run. g is a rounded product, so that a row of one element has a gradient of exactly 0.
	auto gradient = [&](float *g, float *v, int i) {
		float w[8];
		r.load(g, dout, i, even), r.load(w, weight, i, even), r.load(v, x, i, even);
#pragma unroll
		for (int k = 0; k < 8; k++) g[k] = __fmul_rn(g[k], w[k]), v[k] = (v[k] - mean) * scale;
	};
	auto add = [&](const float *g, const float *v, float *before, int i) {
#pragma unroll
		for (int k = 0; k < 8; k++) before[k] += (g[k] - sum - v[k] * along) * scale;
		r.store(dx, before, i, even);
	};
	auto count = [&](const float *g, const float *v) {
#pragma unroll
		for (int k = 0; k < 8; k++) sum += g[k], along += g[k] * v[k];
	};
	float g[8], v[8], before[8], later_g[8], later_v[8], later[8];
	gradient(g, v, r.first);
	r.load(before, dx, r.first, even);
	count(g, v);
	for (int i = r.first + r.stride; i < D; i += r.stride) gradient(later_g, later_v, i), count(later_g, later_v);
	sum = block_sum(sum) / D, along = block_sum(along) / D;
	add(g, v, before, r.first);
	for (int i = r.first + r.stride; i < D; i += r.stride) {
		gradient(later_g, later_v, i);
		r.load(later, dx, i, even);
		add(later_g, later_v, later, i);
	}
}

#define NORM(NAME, T, W) \
	extern "C" __global__ void __launch_bounds__(512, 3) layer_norm##NAME(T *out, float *stats, const T *x, const W *weight, const W *bias, int D, float eps) { \
		layer_norm(out, stats, x, weight, bias, D, eps); \
	} \
	extern "C" __global__ void __launch_bounds__(512, 2) add_norm##NAME(T *out, T *norm, float *stats, const T *x, const T *a, const T *b, const W *weight, const W *bias, int D, float eps, MASK(a), MASK(b)) { \
		add_norm(out, norm, stats, x, a, b, weight, bias, D, eps, AS_MASK(a), AS_MASK(b)); \
	} \
	extern "C" __global__ void __launch_bounds__(512, 2) layer_norm_backward##NAME(T *dx, const T *dout, const T *x, const W *weight, const float *stats, int D) { \
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

// LayerNorm and its gradient: one block a row of D elements, statistics in fp32 about the mean. LayerNorm overwrites out and
// stats; LayerNormBackward adds to dx; AddNorm overwrites out, norm and stats.
//
// A thread's runs of eight elements begin at its number·8, blockDim·8 apart. It asks for the first HELD at once and keeps them in
// registers as they were stored, so that a processor has many rows under way; later ones, where D is above 20480, it reads again.
#include "philox.cuh"

constexpr int HELD = 5; // heldRuns in norm.go

// A run is eight elements as they lie in memory; those past the end are 0.
template <class T> struct run {
	uint4 w;
	__device__ __forceinline__ void load(const T *p, int n, bool wide) {
		if (wide) {
			w = *(const uint4 *)p;
			return;
		}
		float v[8];
		load8(v, p, n, false);
		set(v);
	}
	__device__ __forceinline__ void set(const float *v) { w = make_uint4(pack(v, T()), pack(v + 2, T()), pack(v + 4, T()), pack(v + 6, T())); }
	__device__ __forceinline__ void get(float *v) const { unpack(v, w.x, T()), unpack(v + 2, w.y, T()), unpack(v + 4, w.z, T()), unpack(v + 6, w.w, T()); }
};
template <> struct run<float> {
	float v[8];
	__device__ __forceinline__ void load(const float *p, int n, bool wide) { load8(v, p, n, wide); }
	__device__ __forceinline__ void set(const float *x) {
#pragma unroll
		for (int k = 0; k < 8; k++) v[k] = x[k];
	}
	__device__ __forceinline__ void get(float *x) const {
#pragma unroll
		for (int k = 0; k < 8; k++) x[k] = v[k];
	}
};

// A place is where a thread is in its row.
struct place {
	int D, first, stride;
	bool even;
	__device__ place(int D, bool even) : D(D), first(threadIdx.x * 8), stride(blockDim.x * 8), even(even) {}
	__device__ __forceinline__ bool wide(int i) const { return even && i + 8 <= D; }

	// held calls f(number, column) for every run that is kept, later f(column) for the others.
	template <class F> __device__ __forceinline__ void held(F f) const {
#pragma unroll
		for (int k = 0; k < HELD; k++)
			if (first + k * stride < D) f(k, first + k * stride);
	}
	template <class F> __device__ __forceinline__ void later(F f) const {
		for (int i = first + HELD * stride; i < D; i += stride) f(i);
	}
	// each calls f(values, column) for every run of x, whose first are held.
	template <class T, class F> __device__ __forceinline__ void each(const run<T> (&kept)[HELD], const T *x, F f) const {
		held([&](int k, int i) {
			float v[8];
			kept[k].get(v);
			f(v, i);
		});
		later([&](int i) {
			float v[8];
			load8(v, x + i, D - i, wide(i));
			f(v, i);
		});
	}
	template <class T> __device__ __forceinline__ void load(float *v, const T *x, int i) const { load8(v, x + i, D - i, wide(i)); }
	template <class T> __device__ __forceinline__ void store(T *x, const float *v, int i) const { store8(x + i, v, D - i, wide(i)); }
};

// normalise writes the LayerNorm of a row x. Each warp finds the mean of its elements and the squares about it, and then the warps'
// are joined (Chan et al. 1979), which takes one barrier. Its roundings are spelt out: LayerNorm and AddNorm must agree to the bit,
// since a pass may do one forward and the other when it computes activations again.
template <class T, class W>
__device__ __forceinline__ void normalise(T *out, float *stats, const run<T> (&kept)[HELD], const T *x, const W *weight, const W *bias, place p, float eps) {
	float count = 0, sum = 0, squares = 0;
	p.each(kept, x, [&](float *v, int i) {
		count += min(8, p.D - i);
#pragma unroll
		for (int k = 0; k < 8; k++) sum += v[k];
	});
	count = warp_sum(count), sum = warp_sum(sum);
	float own = count > 0 ? sum / count : 0;
	p.each(kept, x, [&](float *v, int i) {
#pragma unroll
		for (int k = 0; k < 8; k++)
			if (i + k < p.D) squares = fmaf(v[k] - own, v[k] - own, squares);
	});
	squares = warp_sum(squares);

	__shared__ float3 part[32];
	int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	if (lane == 0) part[warp] = make_float3(count, sum, squares);
	__syncthreads();
	float3 of = lane < blockDim.x / 32 ? part[lane] : make_float3(0, 0, 0);
	float mean = warp_sum(of.y) / p.D, off = of.x > 0 ? of.y / of.x - mean : 0;
	float scale = 1 / sqrtf(warp_sum(fmaf(__fmul_rn(of.x, off), off, of.z)) / p.D + eps);

	p.each(kept, x, [&](float *v, int i) {
		float w[8], b[8];
		p.load(w, weight, i), p.load(b, bias, i);
#pragma unroll
		for (int k = 0; k < 8; k++) w[k] = fmaf((v[k] - mean) * scale, w[k], b[k]);
		p.store(out, w, i);
	});
	if (stats && threadIdx.x == 0) stats[0] = mean, stats[1] = scale;
}

template <class T, class W>
__device__ __forceinline__ void layer_norm(T *out, float *stats, const T *x, const W *weight, const W *bias, int D, float eps) {
	long long row = blockIdx.x;
	x += row * D, out += row * D;
	place p(D, aligned(x) && aligned(out) && aligned(weight) && aligned(bias));
	run<T> kept[HELD];
	p.held([&](int k, int i) { kept[k].load(x + i, D - i, p.wide(i)); });
	normalise(out, stats ? stats + 2 * row : 0, kept, x, weight, bias, p, eps);
}

// add_norm is out = x + drop(a) + drop(b), rounded, and the LayerNorm of that. norm may be a or b, and out x.
template <class T, class W>
__device__ __forceinline__ void add_norm(T *out, T *norm, float *stats, const T *x, const T *a, const T *b, const W *weight, const W *bias, int D, float eps, mask drop_a, mask drop_b) {
	long long row = blockIdx.x;
	out += row * D, norm += row * D, x += row * D, a += row * D, b += row * D;
	place p(D, aligned(out) && aligned(norm) && aligned(x) && aligned(a) && aligned(b) && aligned(weight) && aligned(bias));
	auto add = [&](float *v, const run<T> &x, const run<T> &a, const run<T> &b, int i) {
		float y[8], z[8];
		x.get(v), a.get(y), b.get(z);
		drop_a.apply(y, row, i), drop_b.apply(z, row, i);
#pragma unroll
		for (int k = 0; k < 8; k++) v[k] = to(as<T>(v[k] + y[k] + z[k]));
		p.store(out, v, i);
	};
	run<T> xs[HELD], as[HELD], bs[HELD];
	p.held([&](int k, int i) { xs[k].load(x + i, D - i, p.wide(i)), as[k].load(a + i, D - i, p.wide(i)), bs[k].load(b + i, D - i, p.wide(i)); });
	p.held([&](int k, int i) {
		float v[8];
		add(v, xs[k], as[k], bs[k], i);
		xs[k].set(v);
	});
	p.later([&](int i) {
		float v[8];
		run<T> r, s, t;
		r.load(x + i, D - i, p.wide(i)), s.load(a + i, D - i, p.wide(i)), t.load(b + i, D - i, p.wide(i));
		add(v, r, s, t, i);
	});
	normalise(norm, stats ? stats + 2 * row : 0, xs, out, weight, bias, p, eps);
}

// With x̂ the normalised row and g = dout·weight, dx += (g - mean(g) - x̂·mean(g·x̂))·scale.
template <class T, class W>
__device__ __forceinline__ void layer_norm_backward(T *dx, const T *dout, const T *x, const W *weight, const float *stats, int D) {
	long long row = blockIdx.x;
	dx += row * D, dout += row * D, x += row * D;
	place p(D, aligned(dx) && aligned(dout) && aligned(x) && aligned(weight));
	float mean = stats[2 * row], scale = stats[2 * row + 1], sum = 0, along = 0;
	run<T> gs[HELD], xs[HELD], before[HELD];
	p.held([&](int k, int i) { gs[k].load(dout + i, D - i, p.wide(i)), xs[k].load(x + i, D - i, p.wide(i)), before[k].load(dx + i, D - i, p.wide(i)); });
	// gradient turns dout and x into g and x̂. g is a rounded product, so that a row of one element has a gradient of exactly 0.
	auto gradient = [&](float *g, float *v, int i) {
		float w[8];
		p.load(w, weight, i);
#pragma unroll
		for (int k = 0; k < 8; k++) g[k] = __fmul_rn(g[k], w[k]), v[k] = (v[k] - mean) * scale;
	};
	auto count = [&](float *g, float *v, int i) {
		gradient(g, v, i);
#pragma unroll
		for (int k = 0; k < 8; k++) sum += g[k], along += g[k] * v[k];
	};
	auto add = [&](float *g, float *v, float *d, int i) {
		gradient(g, v, i);
#pragma unroll
		for (int k = 0; k < 8; k++) d[k] += (g[k] - sum - v[k] * along) * scale;
		p.store(dx, d, i);
	};
	float g[8], v[8], d[8];
	p.held([&](int k, int i) { gs[k].get(g), xs[k].get(v), count(g, v, i); });
	p.later([&](int i) { p.load(g, dout, i), p.load(v, x, i), count(g, v, i); });
	sum = warp_sum(sum), along = warp_sum(along);
	__shared__ float2 part[32];
	int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	if (lane == 0) part[warp] = make_float2(sum, along);
	__syncthreads();
	float2 of = lane < blockDim.x / 32 ? part[lane] : make_float2(0, 0);
	sum = warp_sum(of.x) / D, along = warp_sum(of.y) / D;
	p.held([&](int k, int i) { gs[k].get(g), xs[k].get(v), before[k].get(d), add(g, v, d, i); });
	p.later([&](int i) { p.load(g, dout, i), p.load(v, x, i), p.load(d, dx, i), add(g, v, d, i); });
}

#define NORM(NAME, T, W) \
	extern "C" __global__ void __launch_bounds__(512, 2) layer_norm##NAME(T *out, float *stats, const T *x, const W *weight, const W *bias, int D, float eps) { \
		layer_norm(out, stats, x, weight, bias, D, eps); \
	} \
	extern "C" __global__ void __launch_bounds__(512) add_norm##NAME(T *out, T *norm, float *stats, const T *x, const T *a, const T *b, const W *weight, const W *bias, int D, float eps, MASK(a), MASK(b)) { \
		add_norm(out, norm, stats, x, a, b, weight, bias, D, eps, AS_MASK(a), AS_MASK(b)); \
	} \
	extern "C" __global__ void __launch_bounds__(512) layer_norm_backward##NAME(T *dx, const T *dout, const T *x, const W *weight, const float *stats, int D) { \
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

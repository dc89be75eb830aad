// Elementwise operations: eight elements a thread, computed in fp32 and rounded once. Outputs are overwritten and may be an
// input, since each thread reads its elements before it writes them.
#include "vector.cuh"

// span is a thread's part of n elements.
struct span {
	long long at;
	int n; // 0 to 8
	__device__ span(long long total) {
		at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 8;
		n = at < total ? (int)min(total - at, 8LL) : 0;
	}
};

template <class O, class X> __device__ __forceinline__ void convert(O *out, const X *x, long long n) {
	span s(n);
	bool wide = s.n == 8 && aligned(out) && aligned(x);
	float v[8];
	load8(v, x + s.at, s.n, wide);
	store8(out + s.at, v, s.n, wide);
}

template <class T> __device__ __forceinline__ void add(T *out, const T *x, const T *y, long long n) {
	span s(n);
	bool wide = s.n == 8 && aligned(out) && aligned(x) && aligned(y);
	float a[8], b[8];
	load8(a, x + s.at, s.n, wide);
	load8(b, y + s.at, s.n, wide);
#pragma unroll
	for (int i = 0; i < 8; i++) a[i] += b[i];
	store8(out + s.at, a, s.n, wide);
}

template <class T> __device__ __forceinline__ void scale(T *x, float by, long long n) {
	span s(n);
	bool wide = s.n == 8 && aligned(x);
	float v[8];
	load8(v, x + s.at, s.n, wide);
#pragma unroll
	for (int i = 0; i < 8; i++) v[i] *= by;
	store8(x + s.at, v, s.n, wide);
}

// With u = sqrt(2/π)(x + 0.044715x³), gelu_new is x·σ(2u): half of 1 + tanh(u) is the logistic function of 2u.
const float twice_root = 1.5957691216057308f; // 2·sqrt(2/π)

// decay is exp(-2u), bounded so that it times σ(2u) is 1-σ(2u) everywhere. logistic is σ(2u) of it. What is rounded to 16
// bits has both from faster instructions.
template <class T> __device__ __forceinline__ float decay(float x) {
	float exponent = fminf(-twice_root * x * (1 + 0.044715f * x * x), 80);
	return sizeof(T) == 4 ? expf(exponent) : __expf(exponent);
}
template <class T> __device__ __forceinline__ float logistic(float decay) { return sizeof(T) == 4 ? 1 / (1 + decay) : __fdividef(1, 1 + decay); }

template <class T> __device__ __forceinline__ void gelu(T *out, const T *x, long long n) {
	span s(n);
	bool wide = s.n == 8 && aligned(out) && aligned(x);
	float v[8];
	load8(v, x + s.at, s.n, wide);
#pragma unroll
	for (int i = 0; i < 8; i++) v[i] *= logistic<T>(decay<T>(v[i]));
	store8(out + s.at, v, s.n, wide);
}

// gelu_new' is σ + x·σ(1-σ)·2u'.
template <class T> __device__ __forceinline__ void gelu_backward(T *dx, const T *dout, const T *x, long long n) {
	span s(n);
	bool wide = s.n == 8 && aligned(dx) && aligned(dout) && aligned(x);
	float d[8], v[8];
	load8(d, dout + s.at, s.n, wide);
	load8(v, x + s.at, s.n, wide);
#pragma unroll
	for (int i = 0; i < 8; i++) {
		float e = decay<T>(v[i]), p = logistic<T>(e);
		d[i] *= p + v[i] * p * (p * e) * twice_root * (1 + 3 * 0.044715f * v[i] * v[i]);
	}
	store8(dx + s.at, d, s.n, wide);
}

#define COPY(NAME, O, X) \
	extern "C" __global__ void copy##NAME(O *out, const X *x, long long n) { convert(out, x, n); }
COPY(_f16_f32, f16, float)
COPY(_bf16_f32, bf16, float)
COPY(_f32_f16, float, f16)
COPY(_bf16_f16, bf16, f16)
COPY(_f32_bf16, float, bf16)
COPY(_f16_bf16, f16, bf16)

// copy_bytes copies n bytes, sixteen a thread.
extern "C" __global__ void copy_bytes(uint8_t *out, const uint8_t *x, long long n) {
	long long at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 16;
	if (at + 16 <= n && aligned(out) && aligned(x)) {
		*(uint4 *)(out + at) = *(const uint4 *)(x + at);
		return;
	}
	for (long long i = at; i < min(n, at + 16); i++) out[i] = x[i];
}

#define ELEMENTWISE(NAME, T) \
	extern "C" __global__ void add##NAME(T *out, const T *x, const T *y, long long n) { add(out, x, y, n); } \
	extern "C" __global__ void scale##NAME(T *x, float s, long long n) { scale(x, s, n); } \
	extern "C" __global__ void gelu##NAME(T *out, const T *x, long long n) { gelu(out, x, n); } \
	extern "C" __global__ void gelu_backward##NAME(T *dx, const T *dout, const T *x, long long n) { gelu_backward(dx, dout, x, n); }
EACH_FLOAT(ELEMENTWISE)

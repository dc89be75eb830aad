// Dropout: out = x·mask/(1-p), a block a token. out may be x.
#include "philox.cuh"

template <class T> __device__ __forceinline__ void dropout(T *out, const T *x, int D, mask m) {
	long long t = blockIdx.x;
	out += t * D, x += t * D;
	bool even = aligned(out) && aligned(x);
	for (int i = threadIdx.x * 8; i < D; i += blockDim.x * 8) {
		bool wide = even && i + 8 <= D;
		float v[8];
		load8(v, x + i, D - i, wide);
		m.apply(v, t, i);
		store8(out + i, v, D - i, wide);
	}
}

#define DROPOUT(NAME, T) \
	extern "C" __global__ void dropout##NAME(T *out, const T *x, int D, MASK(m)) { dropout(out, x, D, AS_MASK(m)); }
EACH_FLOAT(DROPOUT)

// AdamW (Loshchilov and Hutter 2019), with fp32 moments or with bitsandbytes' block-wise 8-bit ones (Dettmers et al. 2022).
#include "table.cuh"

struct Element { float p, m, v; };

__device__ __forceinline__ Element update(Element e, float g, float beta1, float rest1, float beta2, float rest2, float scale, float step, float eps, float decay) {
	g = __fmul_rn(g, scale);
	e.m = __fadd_rn(__fmul_rn(beta1, e.m), __fmul_rn(rest1, g));
	e.v = __fadd_rn(__fmul_rn(beta2, e.v), __fmul_rn(rest2, __fmul_rn(g, g)));
	e.p = __fsub_rn(e.p, __fmul_rn(step, __fdiv_rn(e.m, __fadd_rn(__fsqrt_rn(e.v), eps))));
	e.p = __fmul_rn(e.p, decay);
	return e;
}

extern "C" __global__ void adamw(float *p, const float *g, float *m, float *v, float beta1, float rest1, float beta2, float rest2, float scale,
	float step, float eps, float decay, long long n) {
	long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n) return;
	Element e = update({p[i], m[i], v[i]}, g[i], beta1, rest1, beta2, rest2, scale, step, eps, decay);
	p[i] = e.p, m[i] = e.m, v[i] = e.v;
}

// A block of 256 threads does a block of 256 elements. maps is the signed map, then the unsigned one.
extern "C" __global__ void adamw_8bit(float *p, const float *g, uint8_t *state1, float *absmax1, uint8_t *state2, float *absmax2, const float *maps,
	float beta1, float rest1, float beta2, float rest2, float scale, float step, float eps, float decay, long long n) {
	__shared__ float map[512];
	for (int i = threadIdx.x; i < 512; i += 256) map[i] = maps[i];
	__syncthreads();
	long long i = (long long)blockIdx.x * 256 + threadIdx.x;
	bool there = i < n;
	Element e = {0, 0, 0};
	if (there && isfinite(g[i])) {
		e = update({p[i], __fmul_rn(map[state1[i]], absmax1[blockIdx.x]), __fmul_rn(map[256 + state2[i]], absmax2[blockIdx.x])}, g[i],
			beta1, rest1, beta2, rest2, scale, step, eps, decay);
		p[i] = e.p;
	}
	float top1 = block_max(fabsf(e.m)), top2 = block_max(e.v);
	if (threadIdx.x == 0) absmax1[blockIdx.x] = top1, absmax2[blockIdx.x] = top2;
	if (!there) return;
	int code = nearest(map, top1 == 0 ? 0 : __fdiv_rn(e.m, top1));
	if ((map[code] < 0) != (e.m < 0)) code += e.m > 0 ? 1 : -1; // the other sign (0 counts as positive): the next code
	state1[i] = code;
	state2[i] = nearest(map + 256, top2 == 0 ? 0 : __fdiv_rn(e.v, top2));
}

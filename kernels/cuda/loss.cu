// CrossEntropy: a block a row of V logits. The first pass over the row finds its maximum and the sum of exponentials together
// (a thread rescales its sum when its maximum grows), the second writes the gradient, which may overwrite the logits.
#include <cfloat>
#include "vector.cuh"

#define EACH_RUN(i) for (int i = threadIdx.x * 8; i < V; i += blockDim.x * 8)

template <class T>
__device__ __forceinline__ void cross_entropy(float *losses, T *dlogits, const T *logits, const int *labels, int V, float scale) {
	long long row = blockIdx.x;
	int label = labels[row];
	logits += row * V;
	if (dlogits) dlogits += row * V;
	bool even = aligned(logits) && aligned(dlogits);
	float v[8];
	if (label == -100) {
		if (threadIdx.x == 0) losses[row] = 0;
		if (!dlogits) return;
#pragma unroll
		for (int k = 0; k < 8; k++) v[k] = 0;
		EACH_RUN(i) store8(dlogits + i, v, V - i, even && i + 8 <= V);
		return;
	}
	float top = -FLT_MAX, sum = 0;
	EACH_RUN(i) {
		load8(v, logits + i, V - i, even && i + 8 <= V);
		float most = top;
#pragma unroll
		for (int k = 0; k < 8; k++) {
			if (i + k >= V) v[k] = -INFINITY;
			most = fmaxf(most, v[k]);
		}
		if (most > top) sum *= __expf(top - most), top = most;
#pragma unroll
		for (int k = 0; k < 8; k++) sum += __expf(v[k] - top);
	}
	float highest = block_max(top);
	sum = block_sum(sum * __expf(top - highest));
	if (threadIdx.x == 0) losses[row] = logf(sum) - (to(logits[label]) - highest);
	if (!dlogits) return;
	__syncthreads(); // the label's logit is read before it is overwritten
	float share = scale / sum;
	EACH_RUN(i) {
		load8(v, logits + i, V - i, even && i + 8 <= V);
#pragma unroll
		for (int k = 0; k < 8; k++) {
			v[k] = __expf(v[k] - highest) * share;
			if (i + k == label) v[k] -= scale;
		}
		store8(dlogits + i, v, V - i, even && i + 8 <= V);
	}
}

#define LOSS(NAME, T) \
	extern "C" __global__ void cross_entropy##NAME(float *losses, T *dlogits, const T *logits, const int *labels, int V, float scale) { \
		cross_entropy(losses, dlogits, logits, labels, V, scale); \
	}
EACH_FLOAT(LOSS)

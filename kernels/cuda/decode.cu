// One token of one sequence: three kernels a layer, and no more memory traffic than the weights.
//
//	decode_begin   the token's embedding becomes the stream, in fp32
//	decode_rows    q, k, v = LayerNorm(stream); then attention in some blocks and gelu(fc1) in the others; then
//	               [dense fc2]·[attention; gelu] onto the stream; after the last layer the logits and each block's best token
//	decode_pick    the best of these becomes the next token
//
// A kernel begins while the one before it runs: it asks memory for its first weights, then waits for its input. Memory is never idle.
#include "decode_attention.cuh"
#include "decode_stream.cuh"

// arrange brings the kernel's input into shared memory as halves, each part padded with zeros to whole segments.
template <class M>
__device__ __forceinline__ void arrange(const Phase &p, char *shared, int segments) {
	constexpr int EACH = 8; // elements of the stream a thread holds at most
	const int columns = p.columns;
	if (p.input == NORMED) {
		float x[EACH], sum = 0, squares = 0;
#pragma unroll
		for (int n = 0; n < EACH; n++) {
			int i = threadIdx.x + n * THREADS;
			x[n] = i < columns ? p.stream[i] : 0;
			sum += x[n];
		}
		float mean = block_sum(sum) / columns;
#pragma unroll
		for (int n = 0; n < EACH; n++)
			if (threadIdx.x + n * THREADS < columns) squares += (x[n] - mean) * (x[n] - mean);
		float scale = rsqrtf(block_sum(squares) / columns + p.eps);
#pragma unroll
		for (int n = 0; n < EACH; n++) {
			int i = threadIdx.x + n * THREADS;
			if (i < segments * SEGMENT) *(f16 *)(shared + M::place(i)) = __float2half_rn(i < columns ? (x[n] - mean) * scale * p.norm_weight[i] + p.norm_bias[i] : 0);
		}
	} else {
		const int padded = (columns + SEGMENT - 1) / SEGMENT * SEGMENT;
		for (int i = 4 * threadIdx.x; i < segments * SEGMENT; i += 4 * THREADS) {
			uint2 x = make_uint2(0, 0);
			if (i < columns) x = *(const uint2 *)(p.attended + i);
			else if (i >= padded && i - padded < p.beside_columns) x = *(const uint2 *)(p.inner + i - padded);
			*(uint2 *)(shared + M::place(i)) = x;
		}
	}
	__syncthreads();
}

// project computes A·input for four rows of the phase's adapters, four warps a row.
template <class M>
__device__ __forceinline__ void project(const Phase &p, const char *shared, float *part) {
	const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, padded = (p.columns + SEGMENT - 1) / SEGMENT * SEGMENT;
	int row = (blockIdx.x - p.attention_blocks - p.row_blocks) * 4 + warp / 4, which = 0;
	while (which < 4 && row >= p.down[which].rank) row -= p.down[which++].rank;
	float sum = 0;
	if (which < 4) {
		bool second = p.beside_columns && which == 1;
		int columns = second ? p.beside_columns : p.columns, before = second ? padded : 0;
		const float *a = p.down[which].a + (long long)row * columns;
		for (int k = 4 * (warp % 4 * 32 + lane); k < columns; k += 512) {
			float4 w = *(const float4 *)(a + k);
			uint2 x = *(const uint2 *)(shared + M::place(before + k));
			float2 x0 = __half22float2(*(__half2 *)&x.x), x1 = __half22float2(*(__half2 *)&x.y);
			sum = fmaf(w.x, x0.x, fmaf(w.y, x0.y, fmaf(w.z, x1.x, fmaf(w.w, x1.y, sum))));
		}
	}
	sum = warp_sum(sum);
	if (lane == 0) part[warp] = sum;
	__syncthreads();
	if (which < 4 && warp % 4 == 0 && lane == 0) p.low[p.down[which].slot + row] = (part[warp] + part[warp + 1]) + (part[warp + 2] + part[warp + 3]);
}

__device__ __forceinline__ float gelu_new(float x) { return 0.5f * x * (1 + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x))); }

// absmax is the scale of the NF4 block that column k of a row lies in.
__device__ __forceinline__ float scale_of(const Phase &p, const Matrix &m, int row, int k, int columns) {
	long long block = ((long long)row * columns + k) / p.block;
	if (!m.nested) return ((const float *)m.absmax)[block];
	return p.tables[16 + ((const uint8_t *)m.absmax)[block]] * m.nested[block / p.nested_block] + m.offset;
}

// rows computes a block's rows.
template <class M>
__device__ __forceinline__ void rows(const Phase &p, char *shared) {
	const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, block = blockIdx.x - p.attention_blocks;
	const int segments0 = (p.columns + SEGMENT - 1) / SEGMENT, segments = segments0 + (p.beside_columns + SEGMENT - 1) / SEGMENT;
	int ends[3], all = 0; // in chunks, of the parts
#pragma unroll
	for (int i = 0; i < 3; i++) ends[i] = all += (p.part[i].rows + M::ROWS - 1) / M::ROWS;
	const int first = (long long)all * block / p.row_blocks, chunks = (long long)all * (block + 1) / p.row_blocks - first;
	const int units = segments * chunks, from = units * warp / WARPS, to = units * (warp + 1) / WARPS;
	const int width = 8 * segments; // sums a row

	float *sums = (float *)(shared + (M::TABLE ? M::TABLE : segments * SEGMENT * 2)), *scales = sums + chunks * width * M::ROWS;
	// part_of finds a chunk's matrix and the first of its rows.
	auto part_of = [&](int chunk, int &row) {
		int i = chunk < ends[0] ? 0 : chunk < ends[1] ? 1 : 2;
		row = (chunk - (i ? ends[i - 1] : 0)) * M::ROWS;
		return i;
	};
	int next = from, next_segment = chunks ? from / chunks : 0, next_chunk = from - next_segment * chunks;
	auto load = [&](typename M::Unit &u) {
		if (next >= to) return;
		bool right = next_segment >= segments0;
		int row0, i = part_of(first + next_chunk, row0), columns = right ? p.beside_columns : p.columns;
		const Matrix &m = right ? p.beside : p.part[i];
		const char *at[M::ROWS];
#pragma unroll
		for (int r = 0; r < M::ROWS; r++) at[r] = M::row(m, min(row0 + r, m.rows - 1), columns);
		M::load(u, at, (next_segment - (right ? segments0 : 0)) * SEGMENT, columns, lane);
		next++;
		if (++next_chunk == chunks) next_chunk = 0, next_segment++;
	};

	typename M::Unit units_ahead[M::DEPTH];
#pragma unroll
	for (int d = 0; d < M::DEPTH; d++) load(units_ahead[d]);
	M::prepare(shared, p.tables);
	if (M::TABLE) {
		for (int i = threadIdx.x; i < chunks * M::ROWS * width; i += THREADS) {
			int b = i % width, r = i / width % M::ROWS, c = i / width / M::ROWS, row, k = 64 * b;
			bool right = b >= 8 * segments0;
			int columns = right ? p.beside_columns : p.columns, at = part_of(first + c, row);
			const Matrix &m = right ? p.beside : p.part[at];
			if (right) k -= segments0 * SEGMENT;
			scales[(c * width + b) * M::ROWS + r] = k < columns && row + r < m.rows ? scale_of(p, m, row + r, k, columns) : 0;
		}
	}
	await_previous();
	arrange<M>(p, shared, segments);

	uint4 x[2];
	int segment = -1, chunk = 0;
	for (int u = from; u < to; u += M::DEPTH) {
#pragma unroll
		for (int d = 0; d < M::DEPTH; d++) {
			if (u + d >= to) break;
			if (segment < 0 || chunk == chunks) {
				if (segment < 0) segment = from / chunks, chunk = from - segment * chunks;
				else segment++, chunk = 0;
				M::vector(x, shared, segment * SEGMENT, lane);
			}
			M::multiply(sums + (chunk * width + 8 * segment + lane / 4) * M::ROWS, units_ahead[d], x, shared, lane);
			chunk++;
			load(units_ahead[d]);
		}
	}
	__syncthreads();

	const State &state = *p.state;
	float best = -INFINITY;
	int best_id = 0x7fffffff;
	for (int i = threadIdx.x; i / 8 < (chunks * M::ROWS + 3) / 4 * 4; i += THREADS) { // whole warps
		int c = i / 8 / M::ROWS, r = i / 8 % M::ROWS, row, before = 0;
		float sum = 0;
		if (c < chunks)
			for (int b = i % 8; b < width; b += 8) {
				int at = (c * width + b) * M::ROWS + r;
				sum = M::TABLE ? fmaf(sums[at], scales[at], sum) : sum + sums[at];
			}
		sum += __shfl_xor_sync(~0u, sum, 1);
		sum += __shfl_xor_sync(~0u, sum, 2);
		sum += __shfl_xor_sync(~0u, sum, 4);
		if (i % 8 || c >= chunks) continue;
		int part = part_of(first + c, row);
		row += r;
		if (row >= p.part[part].rows) continue;
		for (int n = 0; n < part; n++) before += p.part[n].rows;
		row += before;
		sum += p.bias[row];
		if (p.output == PLAIN) { // attention adds the adapters
			p.qkv[row] = sum;
			continue;
		}
		sum += adapted(p.up[3], p.low, row);
		if (p.output == GELU) p.inner[row] = __float2half_rn(gelu_new(sum));
		if (p.output == ADDED) p.stream[row] += sum + adapted(p.up[2], p.low, row);
		if (p.output == SCORED) {
			p.logits[row] = sum;
			if (state.seen && state.seen[row / 32] >> row % 32 & 1) sum = sum < 0 ? sum * state.penalty : sum / state.penalty;
			if ((!state.allowed || state.allowed[row / 32] >> row % 32 & 1) && (sum > best || sum == best && row < best_id)) best = sum, best_id = row;
		}
	}
	if (p.output != SCORED) return;
	float highest = block_max(best);
	__shared__ int lowest;
	if (threadIdx.x == 0) lowest = 0x7fffffff;
	__syncthreads();
	if (best == highest) atomicMin(&lowest, best_id);
	__syncthreads();
	if (threadIdx.x == 0) p.best[block] = highest, p.best_id[block] = lowest;
}

template <class M>
__device__ __forceinline__ void decode_rows(const Phase *phase) {
	extern __shared__ __align__(1024) char shared[];
	__shared__ Phase p;
	let_next();
	for (int i = threadIdx.x; i < (int)sizeof p / 4; i += THREADS) ((uint32_t *)&p)[i] = ((const uint32_t *)phase)[i];
	__syncthreads();
	if (blockIdx.x < p.attention_blocks) {
		attend(p, *(AttentionRoom *)shared);
	} else if (blockIdx.x < p.attention_blocks + p.row_blocks) {
		rows<M>(p, shared);
	} else {
		int segments = (p.columns + SEGMENT - 1) / SEGMENT + (p.beside_columns + SEGMENT - 1) / SEGMENT;
		await_previous();
		arrange<M>(p, shared, segments);
		project<M>(p, shared, (float *)(shared + (M::TABLE ? M::TABLE : segments * SEGMENT * 2)));
	}
}

#define ROWS(SUFFIX, M) \
	extern "C" __global__ void __launch_bounds__(THREADS, 2) decode_rows##SUFFIX(const Phase *phase) { decode_rows<M>(phase); }
ROWS(_f16, Half)
ROWS(_bf16, Brain)
ROWS(_nf4, Codes)

// The stream becomes the token's row of the table (V,D).
#define BEGIN(SUFFIX, T) \
	extern "C" __global__ void decode_begin##SUFFIX(float *stream, const T *table, const State *state, int D) { \
		let_next(); \
		await_previous(); \
		for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < D; i += gridDim.x * blockDim.x) stream[i] = to(table[(long long)state->token * D + i]); \
	}
EACH_FLOAT(BEGIN)

// The best of the blocks' tokens, of equal ones the lowest, is chosen; with none allowed it is token 0.
extern "C" __global__ void decode_pick(State *state, const float *best, const int *best_id, int blocks) {
	await_previous();
	float highest = -INFINITY;
	int id = 0x7fffffff;
	for (int i = threadIdx.x; i < blocks; i += blockDim.x)
		if (best[i] > highest || best[i] == highest && best_id[i] < id) highest = best[i], id = best_id[i];
	float most = block_max(highest);
	__shared__ int lowest;
	if (threadIdx.x == 0) lowest = 0x7fffffff;
	__syncthreads();
	if (highest == most) atomicMin(&lowest, id);
	__syncthreads();
	if (threadIdx.x == 0) {
		int chosen = lowest == 0x7fffffff ? 0 : lowest;
		state->chosen[state->step++] = state->token = chosen;
		state->position++;
		if (state->seen) state->seen[chosen / 32] |= 1u << chosen % 32;
	}
}

// Tokens of one sequence in one kernel, and no more memory traffic than the weights. The blocks of the grid, one a processor, go
// through the phases of a token together and meet after each:
//
//	the token's embedding becomes the stream, in fp32
//	in each layer q, k, v = LayerNorm(stream); then attention in some blocks and gelu(fc1) in the others; then
//	[dense fc2]·[attention; gelu] onto the stream
//	the logits and each block's best token, of which the best becomes the next token
//
// Weights need no input: they are read phases ahead, so that memory is busy while blocks meet.
#include "decode_attention.cuh"
#include "decode_stream.cuh"

// half_sum is the sum of sixteen lanes, in all of them.
__device__ __forceinline__ float half_sum(float x) {
#pragma unroll
	for (int i = 8; i; i /= 2) x += __shfl_xor_sync(~0u, x, i);
	return x;
}

// normalise makes the LayerNorm of the stream, padded with zeros to `padded` halves.
template <bool CODED> __device__ __forceinline__ void normalise(const Phase &p, char *shared, int columns, int padded) {
	constexpr int EACH = 8; // elements of the stream a thread has at most
	float x[EACH], weight[EACH], bias[EACH], sum = 0, squares = 0;
#pragma unroll
	for (int n = 0; n < EACH; n++) {
		int i = threadIdx.x + n * THREADS;
		x[n] = weight[n] = bias[n] = 0;
		if (i < columns) x[n] = p.stream[i], weight[n] = p.norm_weight[i], bias[n] = p.norm_bias[i];
		sum += x[n];
	}
	// Each warp's own mean makes its squares, so that one meeting of the warps is enough.
	__shared__ float3 warps[WARPS];
	const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rest = columns % THREADS - 32 * warp;
	const float elements = 32 * (columns / THREADS) + min(max(rest, 0), 32);
	sum = warp_sum(sum);
	float mean = elements > 0 ? sum / elements : 0;
#pragma unroll
	for (int n = 0; n < EACH; n++)
		if (threadIdx.x + n * THREADS < columns) squares += (x[n] - mean) * (x[n] - mean);
	squares = warp_sum(squares);
	if (lane == 0) warps[warp] = make_float3(sum, squares, elements);
	__syncthreads();
	const float3 w = warps[lane % WARPS];
	mean = half_sum(w.x) / columns;
	const float apart = w.z > 0 ? w.x / w.z - mean : 0;
	const float scale = rsqrtf(half_sum(w.y + w.z * apart * apart) / columns + p.eps);
#pragma unroll
	for (int n = 0; n < EACH; n++) {
		int i = threadIdx.x + n * THREADS;
		if (i < padded) *(f16 *)(shared + Vector<CODED>::place(i)) = __float2half_rn((x[n] - mean) * scale * weight[n] + bias[n]);
	}
	__syncthreads();
}

// gather brings the attention's and the MLP's output into shared memory, each padded with zeros to whole segments.
template <bool CODED>
__device__ __forceinline__ void gather(const Phase &p, const Stream &s, char *shared) {
	constexpr int EACH = 4; // vectors of eight halves that a thread reads at once
	const int before = s.segments * SEGMENT, all = s.wide * SEGMENT;
	for (int from = 8 * threadIdx.x; from < all; from += 8 * EACH * THREADS) {
		uint4 x[EACH];
#pragma unroll
		for (int n = 0; n < EACH; n++) {
			int i = from + 8 * n * THREADS;
			x[n] = make_uint4(0, 0, 0, 0);
			if (i < s.columns) x[n] = *(const uint4 *)(p.attended + i);
			else if (i >= before && i - before < s.beside_columns) x[n] = *(const uint4 *)(p.inner + i - before);
		}
#pragma unroll
		for (int n = 0; n < EACH; n++)
			if (from + 8 * n * THREADS < all) *(uint4 *)(shared + Vector<CODED>::place(from + 8 * n * THREADS)) = x[n];
	}
	__syncthreads();
}

// project computes A·input for the phase's adapters, a block a row.
template <bool CODED>
__device__ __forceinline__ void project(const Phase &p, const Stream &s, const char *shared) {
	for (int row = gridDim.x - 1 - blockIdx.x; row < p.low_rows; row += gridDim.x) {
		int r = row, which = 0;
		while (r >= p.down[which].rank) r -= p.down[which++].rank;
		bool second = s.beside_columns && which == 1;
		int columns = second ? s.beside_columns : s.columns, before = second ? s.segments * SEGMENT : 0;
		const float *a = p.down[which].a + (long long)r * columns;
		float sum = 0;
		for (int k = 4 * threadIdx.x; k < columns; k += 4 * THREADS) {
			float4 w = *(const float4 *)(a + k);
			uint2 x = *(const uint2 *)(shared + Vector<CODED>::place(before + k));
			float2 x0 = __half22float2(*(__half2 *)&x.x), x1 = __half22float2(*(__half2 *)&x.y);
			sum = fmaf(w.x, x0.x, fmaf(w.y, x0.y, fmaf(w.z, x1.x, fmaf(w.w, x1.y, sum))));
		}
		sum = block_sum(sum);
		if (threadIdx.x == 0) p.low[p.down[which].slot + r] = sum;
	}
}

// multiply goes through a warp's units. The sums of a chunk's rows that it has go into parts, behind those of the warps before.
template <bool CODED, class M, int SLOTS>
__device__ __forceinline__ void multiply(const Stream &s, Ring<SLOTS> &ring, const char *shared, float *parts, const float *scales) {
	const unsigned lane = lane_id(), warp = threadIdx.x / 32;
	Walk walk;
	walk.enter(s);
	const float4 *scale = (const float4 *)scales + ((walk.chunk - s.first) * walk.wide + walk.segment) * Codes::STRIDE;
	const char *input = shared + Vector<CODED>::place(M::COLUMNS * lane) + walk.segment * Vector<CODED>::STEP;
	float *part = parts + (walk.chunk - s.first + warp) * M::ROWS;
	M m;
	m.clear();
	if (walk.left == 0 && lane < M::ROWS) part[lane] = 0;
	typename M::Unit unit, ahead;
	if (M::AHEAD && walk.left > 0) M::read(unit, ring.await() + M::BYTES * lane);
	while (walk.left > 0) {
		if (!M::AHEAD) {
			const char *slot = ring.await();
			__syncwarp(); // others have copied some of it
			M::read(unit, slot + M::BYTES * lane);
		}
		if (M::AHEAD && walk.left > 1) M::read(ahead, ring.await_next() + M::BYTES * lane);
		m.template multiply<CODED>(unit, shared, input, scale, lane);
		ring.refill();
		if (M::AHEAD) unit = ahead;
		scale += Codes::STRIDE, input += Vector<CODED>::STEP;
		walk.next();
		if (walk.segment > 0 && walk.left > 0) continue;
		input -= walk.wide * Vector<CODED>::STEP;
		const float sum = m.sum(lane);
		if (lane % 8 == 0 && lane / 8 < M::ROWS) part[lane / 8] = sum;
		part += M::ROWS;
		m.clear();
	}
}

__device__ __forceinline__ float gelu_new(float x) { return 0.5f * x * (1 + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x))); }

// Row is one of the block's rows, and what is added to its product.
struct Row {
	int row, warps; // of all rows, -1 for none; the first warp that has a part of it, and 16 times the last one
	float more;     // what is added to the product
	// find finds the i-th of the block's rows.
	template <int ROWS> __device__ void find(const Phase &p, const Stream &s, unsigned i) {
		row = -1;
		if (i >= s.chunks * ROWS) return;
		const unsigned c = i / ROWS;
		const int chunk = s.first + c, part = part_of(s, chunk);
		warps = divide((c * s.wide + 1) * WARPS - 1, s.units_inverse) + WARPS * min(divide((c + 1) * s.wide * WARPS - 1, s.units_inverse), WARPS - 1);
		row = row_of(s, part, chunk, ROWS) + i % ROWS + (part > 0 ? s.part[0].rows : 0) + (part > 1 ? s.part[1].rows : 0), more = p.bias[row];
	}
	__device__ void follow(const Phase &p) { more += row >= 0 && p.output == ADDED ? p.stream[row] : 0; }
};

// finish adds up the parts of the block's rows and hands them on.
template <int ROWS>
__device__ __forceinline__ void finish(const Phase &p, const Stream &s, const State &state, const float *parts, Row mine) {
	float best = -INFINITY;
	int best_id = 0x7fffffff;
	for (unsigned i = threadIdx.x; i < s.chunks * ROWS; i += THREADS) {
		if (i >= THREADS) mine.find<ROWS>(p, s, i), mine.follow(p);
		const unsigned c = i / ROWS, row = mine.row;
		float sum = mine.more;
		for (int w = mine.warps % WARPS; w <= mine.warps / WARPS; w++) sum += parts[(c + w) * ROWS + i % ROWS];
		if (p.output == PLAIN) { // attention adds the adapters
			p.qkv[row] = sum;
			continue;
		}
		sum += adapted(p.up[3], p.low, row);
		if (p.output == GELU) p.inner[row] = __float2half_rn(gelu_new(sum));
		if (p.output == ADDED) p.stream[row] = sum + adapted(p.up[2], p.low, row);
		if (p.output == SCORED) {
			p.logits[row] = sum;
			if (state.seen && state.seen[row / 32] >> row % 32 & 1) sum = sum < 0 ? sum * state.penalty : sum / state.penalty;
			if ((!state.allowed || state.allowed[row / 32] >> row % 32 & 1) && (sum > best || sum == best && (int)row < best_id)) best = sum, best_id = row;
		}
	}
	if (p.output != SCORED) return;
	float highest = block_max(best);
	__shared__ int lowest;
	if (threadIdx.x == 0) lowest = 0x7fffffff;
	__syncthreads();
	if (best == highest) atomicMin(&lowest, best_id);
	__syncthreads();
	if (threadIdx.x == 0) p.best[blockIdx.x] = highest, p.best_id[blockIdx.x] = lowest;
}

// pick is the best of the blocks' tokens, of equal ones the lowest; with none allowed it is token 0.
__device__ __forceinline__ int pick(const float *best, const int *best_id, int blocks) {
	float highest = -INFINITY;
	int id = 0x7fffffff;
	for (int i = threadIdx.x; i < blocks; i += THREADS)
		if (best[i] > highest || best[i] == highest && best_id[i] < id) highest = best[i], id = best_id[i];
	float most = block_max(highest);
	__shared__ int lowest;
	if (threadIdx.x == 0) lowest = 0x7fffffff;
	__syncthreads();
	if (highest == most) atomicMin(&lowest, id);
	__syncthreads();
	return lowest == 0x7fffffff ? 0 : lowest;
}

// element is one of the embedding, a table of some type.
__device__ __forceinline__ float element(const void *table, int kind, long long i) {
	if (kind == HALF) return to(((const f16 *)table)[i]);
	if (kind == BRAIN) return to(((const bf16 *)table)[i]);
	return ((const float *)table)[i];
}

template <bool CODED, int SLOTS>
__device__ __forceinline__ void decode(const Phase *phases, const Stream *streams_there, int count, int tokens, State *state_there, const float *tables,
	const void *embed, int embed_kind, int D, unsigned *gates, int room_at, int parts_at, int codes_at, int streams_at, int ring_at) {
	extern __shared__ __align__(1024) char shared[];
	__shared__ Phase now[2];
	__shared__ State state;
	__shared__ float map[256];
	Stream *streams = (Stream *)(shared + streams_at);
	float *parts = (float *)(shared + parts_at), *scales = (float *)(shared + room_at); // attention's room too
	// Where the next phase keeps its input only attention waits, so that its gate is another one.
	Gate gate{gates, gates[1]}, inner{gates + 64, gates[65]};

	for (int i = threadIdx.x; i < count * (int)sizeof(Stream) / 4; i += THREADS) ((uint32_t *)streams)[i] = ((const uint32_t *)streams_there)[i];
	for (int i = threadIdx.x; i < (int)sizeof(Phase) / 4; i += THREADS) ((uint32_t *)now)[i] = ((const uint32_t *)phases)[i];
	for (int i = threadIdx.x; i < 256; i += THREADS) map[i] = tables[16 + i];
	if (threadIdx.x == 0) state = *state_there;
	__syncthreads();
	for (int n = threadIdx.x; n < count; n += THREADS) {
		Stream &s = streams[n];
		const unsigned block = blockIdx.x, all = s.shares, before = share_before(s, block), behind = share_before(s, block + 1);
		if (behind > all) continue;
		s.first = s.ends[2] * before / all, s.chunks = s.ends[2] * behind / all - s.first;
		s.wide_inverse = inverse(s.wide), s.units_inverse = s.chunks ? inverse(s.chunks * s.wide) : 0;
	}
	__syncthreads();
	Ring<SLOTS> ring{streams, shared + ring_at + threadIdx.x / 32 * Ring<SLOTS>::BYTES, count, 0, tokens};
	ring.begin();
	if (CODED) Codes::prepare(shared, tables);

	auto kept = [&](int n) { return n < count && streams[n].kept; };
	Scales own{(uint2 *)(shared + codes_at)};
	if (CODED) own.ask(streams, kept(1));
	int token = state.token, position = state.position, turn = 0;
	for (int step = 0; step < tokens; step++, position++) {
		for (int i = blockIdx.x * THREADS + threadIdx.x; i < D; i += gridDim.x * THREADS) now[turn].stream[i] = element(embed, embed_kind, (long long)token * D + i);
		gate.arrive();
		for (int n = 0; n < count; n++) {
			const Phase &p = now[turn];
			const Stream &s = streams[n];
			const int after = n + 1 == count ? 0 : n + 1;
			const uint32_t *next = (const uint32_t *)&phases[after];
			const bool coded = CODED && s.kind == CODES;
			Row mine;
			if (p.input == NORMED && !s.kept && 32 * threadIdx.x < s.columns) warm(p.norm_weight + 32 * threadIdx.x), warm(p.norm_bias + 32 * threadIdx.x);
			static_assert(sizeof(Phase) / 4 <= THREADS, "a thread brings one word of the next phase");
			const uint32_t word = threadIdx.x < sizeof(Phase) / 4 ? next[threadIdx.x] : 0;
			if (coded) mine.find<Codes::ROWS>(p, s, threadIdx.x);
			else mine.find<Half::ROWS>(p, s, threadIdx.x);
			if (!s.kept) {
				if (CODED) own.put(&s, kept(n + 1), scales, map);
				gate.pass();
				mine.follow(p);
				if (p.input == NORMED) normalise<CODED>(p, shared, s.columns, s.wide * SEGMENT);
				else gather<CODED>(p, s, shared);
				project<CODED>(p, s, shared);
			}
			if (threadIdx.x < sizeof(Phase) / 4) ((uint32_t *)&now[turn ^ 1])[threadIdx.x] = word;
			if (s.chunks > 0) {
				const float *own_scales = scales + (s.kept ? Scales::count(streams[n - 1]) * Codes::STRIDE : 0);
				if (coded) multiply<CODED, Codes>(s, ring, shared, parts, own_scales);
				else if (s.kind == HALF) multiply<CODED, Half>(s, ring, shared, parts, own_scales);
				else multiply<CODED, Brain>(s, ring, shared, parts, own_scales);
			}
			if (CODED && !streams[after].kept) own.ask(&streams[after], kept(after + 1));
			__syncthreads();
			if (s.chunks > 0) {
				if (coded) finish<Codes::ROWS>(p, s, state, parts, mine);
				else finish<Half::ROWS>(p, s, state, parts, mine);
			}
			if ((int)blockIdx.x < s.attention_blocks)
				attend(p, *(AttentionRoom *)(shared + room_at), Gate{s.kept ? inner.count : gate.count, s.kept ? inner.target : gate.target}, s.attention_blocks, state.first, position);
			turn ^= 1;
			if (kept(n + 1)) inner.arrive();
			else gate.arrive();
		}
		gate.pass();
		const Phase &last = now[turn ^ 1];
		token = pick(last.best, last.best_id, streams[count - 1].shares / WHOLE);
		if (blockIdx.x == 0 && threadIdx.x == 0) {
			state_there->chosen[state.step + step] = token;
			if (state.seen) state.seen[token / 32] |= 1u << token % 32;
		}
	}
	await_copies();
	if (blockIdx.x == 0 && threadIdx.x == 0) gates[1] = gate.target, gates[65] = inner.target;
}

// A kernel for each number of slots that processors have room for.
#define DECODE(SUFFIX, CODED, SLOTS) \
	extern "C" __global__ void __launch_bounds__(THREADS, 1) decode##SUFFIX(const Phase *phases, const Stream *streams, int count, int tokens, State *state, \
		const float *tables, const void *embed, int embed_kind, int D, unsigned *gates, int room, int parts, int codes, int ring_streams, int ring) { \
		decode<CODED, SLOTS>(phases, streams, count, tokens, state, tables, embed, embed_kind, D, gates, room, parts, codes, ring_streams, ring); \
	}
DECODE(_float_10, false, 10)
DECODE(_float_5, false, 5)
DECODE(_float_2, false, 2)
DECODE(_nf4_6, true, 6)
DECODE(_nf4_3, true, 3)
DECODE(_nf4_2, true, 2)

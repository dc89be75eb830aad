// Matrix times vector at the speed of memory. Each warp has a run of units in each phase, and a ring of slots in shared memory
// through which their weights flow in order, phase after phase: while it multiplies, or waits for a phase's input, the copies of
// its next units are under way.
//
// The sums come from the tensor cores, used as dot products of quads: with a row's weights in a's row g and the vector
// in b's column g, c's element (g,g) is what the quad's lanes hold of both, multiplied. Which columns those are is free, so that
// each lane keeps what it copied. Sums are fp32, and widening costs nothing.
#pragma once
#include "decode_device.cuh"
#include "decode_plan.cuh"

constexpr int THREADS = 512, WARPS = THREADS / 32, SEGMENT = 512, SLOT = 1024; // columns, bytes of a unit
constexpr int WHOLE = 8; // shares of the rows that a block has where it has no attention; one where it has

// diagonal is the element (g,g) of c's upper or lower half, in the lane that has it: t = g/2.
__device__ __forceinline__ float diagonal(const float *c, unsigned lane, int half) { return lane & 4 ? c[2 * half + 1] : c[2 * half]; }
__device__ __forceinline__ unsigned on_diagonal(unsigned quad) { return 4 * quad + quad / 2; }

// divide is n/d of a small n, by the inverse of d.
__device__ __forceinline__ unsigned inverse(unsigned d) { return (0x80000000u + d - 1) / d; }
__device__ __forceinline__ int divide(unsigned n, unsigned inverse) { return __umulhi(2 * n, inverse); }

// eight is the sum of eight lanes, in all of them.
__device__ __forceinline__ float eight(float x) {
#pragma unroll
	for (int i = 4; i; i /= 2) x += __shfl_xor_sync(~0u, x, i);
	return x;
}

// Walk is a warp's way through its units of a phase, along the rows of a chunk and on to the next chunk.
struct Walk {
	int left, segment, chunk, wide; // units to go, where the next one is, and the segments of a chunk
	__device__ void enter(const Stream &s) {
		wide = s.wide;
		unsigned units = s.chunks * wide, warp = threadIdx.x / 32, from = units * warp / WARPS, before = divide(from, s.wide_inverse);
		left = units * (warp + 1) / WARPS - from, segment = from - before * wide, chunk = s.first + before;
	}
	// next goes on by a unit.
	__device__ void next() {
		left--;
		if (++segment == wide) segment = 0, chunk++;
	}
};

// share_before is the shares of the rows that the blocks before one have.
__device__ __forceinline__ unsigned share_before(const Stream &s, unsigned block) {
	return block < s.attention_blocks ? block : s.attention_blocks + WHOLE * (block - s.attention_blocks);
}

// part_of is the part that a chunk is of, and row_of the first of the chunk's rows there.
__device__ __forceinline__ int part_of(const Stream &s, int chunk) { return chunk < s.ends[0] ? 0 : chunk < s.ends[1] ? 1 : 2; }
__device__ __forceinline__ int row_of(const Stream &s, int part, int chunk, int rows) { return (chunk - (part ? s.ends[part - 1] : 0)) * rows; }

// Vector is the phase's input as halves in shared memory, of which each segment takes STEP bytes. Where there is a
// table of pairs the input lies in its gaps, ordered so that lanes with eight or sixteen halves each read from different banks.
template <bool CODED> struct Vector {
	static constexpr int STEP = CODED ? 2048 : 1024;
	__device__ static unsigned place(unsigned k) {
		if (!CODED) return 2 * k;
		unsigned block = k / 64, eight = k / 8 % 8;
		return block * 256 + 128 + ((eight ^ block) & 1) * 64 + eight / 2 * 16 + k % 8 * 2;
	}
};

// Half is a matrix of f16: a unit is 512 columns of a row, of which a lane has eight of each half.
struct Half {
	static constexpr int ROWS = 1, COLUMNS = 8, BYTES = 16; // a lane's, together
	static constexpr bool AHEAD = true; // the next unit is read while one is multiplied
	struct Unit { uint4 w[2]; };
	float c[2][4];
	__device__ void clear() {
#pragma unroll
		for (int h = 0; h < 2; h++) c[h][0] = c[h][1] = c[h][2] = c[h][3] = 0;
	}
	__device__ static void read(Unit &u, const char *slot) { u.w[0] = *(const uint4 *)slot, u.w[1] = *(const uint4 *)(slot + 512); }
	template <bool CODED> __device__ void multiply(const Unit &u, const char *, const char *input, const float4 *, unsigned) {
#pragma unroll
		for (int h = 0; h < 2; h++) {
			uint4 x = *(const uint4 *)(input + h * (Vector<CODED>::STEP / 2));
			mma(c[h], u.w[h].x, 0, u.w[h].y, 0, x.x, x.y);
			mma(c[h], u.w[h].z, 0, u.w[h].w, 0, x.z, x.w);
		}
	}
	// sum is the sum of the row that lane/8 names.
	__device__ float sum(unsigned lane) const { return eight(__shfl_sync(~0u, diagonal(c[0], lane, 0) + diagonal(c[1], lane, 0), on_diagonal(lane % 8))); }
};

// Brain is a matrix of bf16, multiplied in fp32: rounding the vector to bf16 would lose too much.
struct Brain {
	static constexpr int ROWS = 1, COLUMNS = 8, BYTES = 16;
	static constexpr bool AHEAD = true;
	using Unit = Half::Unit;
	float s;
	__device__ void clear() { s = 0; }
	__device__ static void read(Unit &u, const char *slot) { Half::read(u, slot); }
	__device__ static float dot(uint32_t w, uint32_t x, float sum) {
		float2 f = __half22float2(*(__half2 *)&x);
		return fmaf(__uint_as_float(w & 0xffff0000), f.y, fmaf(__uint_as_float(w << 16), f.x, sum));
	}
	template <bool CODED> __device__ void multiply(const Unit &u, const char *, const char *input, const float4 *, unsigned) {
#pragma unroll
		for (int h = 0; h < 2; h++) {
			uint4 x = *(const uint4 *)(input + h * (Vector<CODED>::STEP / 2)), w = u.w[h];
			s = dot(w.x, x.x, dot(w.y, x.y, dot(w.z, x.z, dot(w.w, x.w, s))));
		}
	}
	__device__ float sum(unsigned) const { return warp_sum(s); }
};

// Codes is an NF4 matrix whose blocks of scales are whole runs of 64 columns: a unit is four rows of 512 columns, sixteen a lane.
// A byte is two weights, looked up together: the table gives byte b's pair to lane i at 256b + 4i, so that each lane reads
// from a bank of its own and one byte permutation makes the address. Scales are applied to the sums of a quad, which are of 64 columns.
struct Codes {
	static constexpr int ROWS = 4, COLUMNS = 16, BYTES = 8, TABLE = 256 * 256, STRIDE = 9; // of a unit's scales, in fours, so that they lie in different banks
	static constexpr bool AHEAD = false; // there are no registers for it
	struct Unit { uint2 w[ROWS]; };
	float sums[ROWS];
	__device__ void clear() { sums[0] = sums[1] = sums[2] = sums[3] = 0; }
	__device__ static void prepare(char *shared, const float *values) {
		for (int i = threadIdx.x; i < 256 * 8; i += THREADS) {
			__half2 pair = __floats2half2_rn(values[i / 8 / 16], values[i / 8 % 16]); // a byte's first weight is its upper half
			uint32_t p = *(uint32_t *)&pair;
			*(uint4 *)(shared + i / 8 * 256 + i % 8 * 16) = make_uint4(p, p, p, p);
		}
	}
	__device__ static uint32_t pair(const char *shared, uint32_t codes, int byte, uint32_t lane4) {
		return *(const uint32_t *)(shared + __byte_perm(codes, lane4, 0x5504 | byte << 4));
	}
	__device__ static void read(Unit &u, const char *slot) {
#pragma unroll
		for (int r = 0; r < ROWS; r++) u.w[r] = *(const uint2 *)(slot + 256 * r);
	}
	// multiply adds a unit's products. table and input are pointers into the table, and so is the other half of the input: its bit 6 is the other one.
	template <bool> __device__ void multiply(const Unit &u, const char *t, const char *input, const float4 *scales, unsigned lane) {
		const uint4 x0 = *(const uint4 *)input, x1 = *(const uint4 *)(t + ((unsigned)(input - t) ^ 64));
		const float4 four = scales[lane / 4];
		const float scale[ROWS] = {four.x, four.y, four.z, four.w};
#pragma unroll
		for (int r = 0; r < ROWS; r += 2) {
			const uint2 a = u.w[r], b = u.w[r + 1];
			float c[4] = {0, 0, 0, 0};
			mma(c, pair(t, a.x, 0, 4 * lane), pair(t, b.x, 0, 4 * lane), pair(t, a.x, 1, 4 * lane), pair(t, b.x, 1, 4 * lane), x0.x, x0.y);
			mma(c, pair(t, a.x, 2, 4 * lane), pair(t, b.x, 2, 4 * lane), pair(t, a.x, 3, 4 * lane), pair(t, b.x, 3, 4 * lane), x0.z, x0.w);
			mma(c, pair(t, a.y, 0, 4 * lane), pair(t, b.y, 0, 4 * lane), pair(t, a.y, 1, 4 * lane), pair(t, b.y, 1, 4 * lane), x1.x, x1.y);
			mma(c, pair(t, a.y, 2, 4 * lane), pair(t, b.y, 2, 4 * lane), pair(t, a.y, 3, 4 * lane), pair(t, b.y, 3, 4 * lane), x1.z, x1.w);
#pragma unroll
			for (int h = 0; h < 2; h++) sums[r + h] = fmaf(diagonal(c, lane, h), scale[r + h], sums[r + h]);
		}
	}
	__device__ float sum(unsigned lane) const {
		float mine = 0;
#pragma unroll
		for (int r = 0; r < ROWS; r++) {
			float x = __shfl_sync(~0u, sums[r], on_diagonal(lane % 8));
			if (lane / 8 == r) mine = x;
		}
		return eight(mine);
	}
};

// Scales are those of the block's units of a phase, and of the next one if that keeps its input, in shared memory: for each
// quad of lanes those of its four rows. What they are made of is asked for a phase ahead: with double quantisation, where eight lie
// together, a thread has those of TASKS rows of units.
struct Scales {
	static constexpr int TASKS = 2;
	uint2 *codes; // in shared memory, of each thread its own
	float nested[TASKS];
	// count is the rows of units of a phase.
	__device__ static int count(const Stream &s) { return s.kind == CODES ? s.chunks * s.wide * Codes::ROWS : 0; }
	// Task is a row of a unit: its matrix, its blocks of scales from `at` to `end`.
	struct Task {
		const Stream *s; // 0 for none
		const Matrix *m;
		int at, end, slot;
		__device__ Task(const Stream *phase, bool kept, int task) {
			slot = task / 4 * 4 * Codes::STRIDE + task % 4;
			const int all = count(*phase);
			if (task >= all) {
				task -= all, phase++;
				s = 0;
				if (!kept || task >= count(*phase)) return;
			}
			s = phase;
			const int unit = task / 4, chunk = divide(unit, s->wide_inverse), segment = unit - chunk * s->wide, part = part_of(*s, s->first + chunk);
			const bool right = segment >= s->segments;
			m = right ? &s->beside : &s->part[part];
			const int blocks = (right ? s->beside_columns : s->columns) / 64, row = row_of(*s, part, s->first + chunk, Codes::ROWS) + task % 4;
			at = row * blocks + 8 * (right ? segment - s->segments : segment), end = row * blocks + blocks;
		}
		__device__ bool together() const { return m->nested && s->block_shift == 0 && s->nested_shift >= 3 && at % 8 == 0 && at + 8 <= end; }
	};
	__device__ void ask(const Stream *phase, bool kept) {
#pragma unroll
		for (int n = 0; n < TASKS; n++) {
			const Task t(phase, kept, threadIdx.x + n * THREADS);
			if (!t.s || !t.together()) continue;
			copy<8>(codes + n * THREADS + threadIdx.x, (const char *)t.m->absmax + t.at, true);
			nested[n] = t.m->nested[t.at >> t.s->nested_shift];
		}
	}
	__device__ void put(const Stream *phase, bool kept, float *scales, const float *map) const {
		await_copies();
#pragma unroll
		for (int n = 0; n < TASKS; n++) {
			const Task t(phase, kept, threadIdx.x + n * THREADS);
			if (!t.s) return;
			if (!t.together()) {
				apart(t, scales, map);
				continue;
			}
			const uint2 eight = codes[n * THREADS + threadIdx.x];
			const float offset = t.m->offset;
#pragma unroll
			for (int i = 0; i < 8; i++) scales[t.slot + 4 * i] = fmaf(map[(i < 4 ? eight.x >> 8 * i : eight.y >> 8 * (i - 4)) & 255], nested[n], offset);
		}
		for (int task = threadIdx.x + TASKS * THREADS;; task += THREADS) {
			const Task t(phase, kept, task);
			if (!t.s) return;
			apart(t, scales, map);
		}
	}
	__device__ static void apart(const Task &t, float *scales, const float *map) {
		for (int i = 0; i < 8; i++) {
			const int block = (t.at + i) >> t.s->block_shift;
			float scale = 0;
			if (t.at + i < t.end && t.m->nested) scale = fmaf(map[((const uint8_t *)t.m->absmax)[block]], t.m->nested[block >> t.s->nested_shift], t.m->offset);
			else if (t.at + i < t.end) scale = ((const float *)t.m->absmax)[block];
			scales[t.slot + 4 * i] = scale;
		}
	}
};

// Ring is a warp's slots and the units that come into them, of SLOTS groups of copies the oldest first. A unit is two pieces of
// 512 bytes: a row's halves, or rows 0 and 1 and then rows 2 and 3 of a chunk of codes.
template <int SLOTS> struct Ring {
	static constexpr unsigned BYTES = SLOTS * SLOT;
	const Stream *streams;
	char *slots;
	int phases, phase, tokens; // how many a token has; the one that is read; tokens to go
	unsigned slot, lane16;     // where that lies whose turn it is, and in it the lane's part
	Walk walk;
	const char *from;         // the lane's part of the unit's first piece
	int second, step, across; // where the second piece lies, the next unit, and the next chunk from behind the last unit, in bytes
	int left, gap;            // columns to the right of the lane's first, and how many further the second piece begins
	int turn, end;            // the segment at which another matrix or chunk begins; the part's end, if `across` leads to its chunks

	__device__ void begin() {
		lane16 = 16 * lane_id();
		walk.enter(streams[phase = 0]);
		seek();
		for (slot = 0; slot < BYTES; slot += SLOT) load();
		slot = 0;
	}
	// seek finds the next unit, which may be phases ahead.
	__device__ void seek() {
		while (walk.left == 0) {
			if (phase + 1 == phases && --tokens == 0) return;
			phase = phase + 1 == phases ? 0 : phase + 1;
			walk.enter(streams[phase]);
		}
		const Stream &s = streams[phase];
		const bool coded = s.kind == CODES, right = walk.segment >= s.segments;
		const int lane = threadIdx.x % 32, part = part_of(s, walk.chunk), rows = coded ? Codes::ROWS : Half::ROWS;
		const int row = row_of(s, part, walk.chunk, rows) + (coded ? lane / 16 : 0), segment = right ? walk.segment - s.segments : walk.segment;
		const int columns = right ? s.beside_columns : s.columns, at = segment * SEGMENT + (coded ? lane % 16 * 32 : 8 * lane);
		const int stride = coded ? columns / 2 : 2 * columns;
		from = (right ? s.beside : s.part[part]).weight + (long long)row * stride + (coded ? at / 2 : 2 * at), left = columns - at;
		second = coded ? 2 * stride : 512, gap = coded ? 0 : 256, step = coded ? SEGMENT / 2 : 2 * SEGMENT;
		turn = right ? s.wide : s.segments, end = s.wide == s.segments ? s.ends[part] : 0, across = rows * stride - turn * step;
	}
	// load asks for the next unit, into the slot whose turn it is.
	__device__ void load() {
		if (walk.left > 0) {
			char *to = slots + slot + lane16;
			copy<16>(to, from, left > 0);
			copy<16>(to + 512, from + second, left > gap);
			from += step, left -= SEGMENT, walk.left--;
			if (++walk.segment == turn || walk.left == 0) {
				if (walk.segment == walk.wide) walk.segment = 0, walk.chunk++;
				if (walk.left > 0 && walk.segment == 0 && walk.chunk < end) from += across, left += turn * SEGMENT;
				else seek();
			}
		}
		close_group();
	}
	// await waits for the lane's part of the unit whose turn it is, await_next for that of the one after it.
	__device__ const char *await() const {
		await_groups<SLOTS - 1>();
		return slots + slot;
	}
	__device__ const char *await_next() const {
		await_groups<SLOTS - 2>();
		return slots + (slot + SLOT == BYTES ? 0 : slot + SLOT);
	}
	// refill uses the slot again, whose unit has been read.
	__device__ void refill() {
		load();
		slot = slot + SLOT == BYTES ? 0 : slot + SLOT;
	}
};

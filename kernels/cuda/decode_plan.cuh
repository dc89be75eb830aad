// What the phases of a decoding step do. decode_plan.go writes these structures: the same fields in the same order.
#pragma once
#include "common.cuh"

// Matrix is weights (rows, columns): 16-bit floats, or NF4 codes with their scales.
struct Matrix {
	const char *weight;
	const void *absmax;    // F32, or with double quantisation U8 codes
	const float *nested;   // the scales of absmax, 0 without double quantisation
	float offset;          // added to them
	int rows;
};

enum Kind { HALF, BRAIN, CODES }; // F16, BF16, NF4

// Stream is a phase's weights, which can be read before its input is there. They are shared among blocks in chunks of a few
// rows, and a block's among its warps in units: a chunk's segment of columns.
struct Stream {
	Matrix part[3];                // one above the other
	Matrix beside;                 // to the right of part[0]: its columns belong to the second half of a GIVEN input
	int ends[3];                   // chunks up to the end of each part
	int columns, beside_columns;
	int segments, wide;            // of part, and with those of beside
	int kind;
	int block_shift, nested_shift; // log2 of the 64 columns in a block of scales, and of such blocks in a nested one
	int attention_blocks, shares;  // of the rows, among all blocks
	int kept, spare;               // the input is that of the phase before: whoever has no attention here need not wait for it
	// What follows is each block's own.
	int first, chunks;             // its chunks
	unsigned wide_inverse, units_inverse; // for divide
};

// Adapter is a LoRA module: its A (rank, columns) and B (rows, rank).
struct Adapter {
	const float *a, *b;
	float scale;
	int rank; // 0 for none
	int slot; // where A·x lies among the low products
	int spare;
};

enum Input { NORMED, GIVEN };              // LayerNorm of the stream; the attention's and the MLP's output
enum Output { PLAIN, GELU, ADDED, SCORED }; // q, k and v; the MLP's inner activations; onto the stream; logits

// Phase is what is done between two meetings of all blocks: out = matrix·input, with attention in the first blocks and the
// adapters' A in the last ones.
struct Phase {
	Adapter down[4]; // A·input for these is wanted
	Adapter up[4];   // attention: q, k, v; then those of the rows
	const float *bias, *norm_weight, *norm_bias, *rotary;
	float *stream, *qkv, *low, *logits, *best;
	f16 *attended, *inner, *keys, *values;
	int *best_id;
	int input, output;
	int heads, kv, dim, rotated;
	float eps;
	int low_rows; // of all down
};

// State is what changes from token to token.
struct State {
	int token, position, first, step;
	float penalty;
	int spare[3];
	unsigned *allowed, *seen; // bits a token
	int *chosen;
};

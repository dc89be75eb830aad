// What one kernel of a decoding step does. decode_plan.go writes these structures: the same fields in the same order.
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

// Phase is one kernel's work: out = matrix·input, rows shared among blocks, with attention in the first blocks and the
// adapters' A in the last ones.
struct Phase {
	Matrix part[3];  // one above the other
	Matrix beside;   // to the right of part[0]: its columns belong to the second half of a GIVEN input
	Adapter down[4]; // A·input for these is wanted
	Adapter up[4];   // attention: q, k, v; then those of the rows
	const float *bias, *norm_weight, *norm_bias, *tables, *rotary;
	float *stream, *qkv, *low, *logits, *best;
	f16 *attended, *inner, *keys, *values;
	int *best_id;
	struct State *state;
	int input, output, columns, beside_columns, block, nested_block;
	int heads, kv, dim, rotated; // heads 0: no attention here
	int attention_blocks, row_blocks;
	float eps;
	int spare;
};

// State is what changes from token to token.
struct State {
	int token, position, first, step;
	float penalty;
	int spare[3];
	unsigned *allowed, *seen; // bits a token
	int *chosen;
};

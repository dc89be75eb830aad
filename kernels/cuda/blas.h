// A thin binding of cuBLASLt, which is found when the program runs: its declarations that matter here are repeated (they are
// the same in CUDA 11, 12 and 13), so that neither its headers nor its library are needed to build.
#pragma once
#include "calls.h"

// quartet_blas_open opens the library at a path, or by a name that the loader knows; 0 means done.
int quartet_blas_open(const char *path, quartet_queue q, void **blas);
void quartet_blas_close(quartet_queue q, void *blas);

// quartet_product is out (m,n) = alpha·op(x)·op(y) + beta·out + bias, row-major, of one type: 0 fp32, 1 fp16, 2 bf16.
typedef struct {
	int type, m, n, k, trans_x, trans_y;
	int ld_out, ld_x, ld_y; // elements from row to row
	uint64_t out, x, y, bias; // bias 0 for none
	float alpha, beta;
} quartet_product;

// quartet_multiply queues a product. It returns 0; a negative cublasStatus_t where the library cannot do this one.
int quartet_multiply(quartet_queue q, void *blas, const quartet_product *p);

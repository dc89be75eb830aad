//go:build cuda

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include "blas.h"

// From cublasLt.h, cublas_api.h and library_types.h.
enum { COMPUTE_32F = 68, R_32F = 0, R_16F = 2, R_16BF = 14, OP_T = 1 };
enum { DESC_TRANSA = 3, DESC_TRANSB = 4, DESC_EPILOGUE = 7, DESC_BIAS_POINTER = 8, EPILOGUE_BIAS = 4, PREF_MAX_WORKSPACE = 1, PREF_ALIGN_A = 5, PREF_ALIGN_D = 8 };
typedef struct { uint64_t data[8]; } algo;
typedef struct { algo algo; size_t workspace; int state; float waves; int reserved[4]; } heuristic;

typedef int (*create_t)(void **);
typedef int (*destroy_t)(void *);
typedef int (*desc_create_t)(void **, int compute, int scale);
typedef int (*layout_create_t)(void **, int type, uint64_t rows, uint64_t cols, int64_t ld);
typedef int (*set_t)(void *, int attribute, const void *, size_t);
typedef int (*heuristic_t)(void *, void *desc, void *a, void *b, void *c, void *d, void *preference, int wanted, heuristic *, int *found);
typedef int (*matmul_t)(void *, void *desc, const void *alpha, const void *a, void *la, const void *b, void *lb, const void *beta, const void *c, void *lc, void *d, void *ld,
	const algo *, void *workspace, size_t bytes, CUstream);

// A plan is what a shape needs: descriptors and the chosen algorithm. It is made once.
typedef struct {
	int type, m, n, k, trans_x, trans_y, ld_out, ld_x, ld_y, bias, aligned;
	void *desc, *a, *b, *d;
	heuristic chosen;
	int failed;
} plan;

enum { WORKSPACE = 32 << 20 };

typedef struct {
	void *library, *handle;
	destroy_t destroy;
	desc_create_t desc_create;
	destroy_t desc_destroy, layout_destroy, preference_destroy;
	layout_create_t layout_create;
	create_t preference_create;
	set_t desc_set, preference_set;
	heuristic_t heuristic;
	matmul_t matmul;
	CUdeviceptr workspace;
	plan *plans;
	int count, room;
} blas;

int quartet_blas_open(const char *path, quartet_queue q, void **out) {
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library) return -1;
	blas *b = calloc(1, sizeof *b);
	b->library = library;
	create_t create = (create_t)dlsym(library, "cublasLtCreate");
	b->destroy = (destroy_t)dlsym(library, "cublasLtDestroy");
	b->desc_create = (desc_create_t)dlsym(library, "cublasLtMatmulDescCreate");
	b->desc_destroy = (destroy_t)dlsym(library, "cublasLtMatmulDescDestroy");
	b->desc_set = (set_t)dlsym(library, "cublasLtMatmulDescSetAttribute");
	b->layout_create = (layout_create_t)dlsym(library, "cublasLtMatrixLayoutCreate");
	b->layout_destroy = (destroy_t)dlsym(library, "cublasLtMatrixLayoutDestroy");
	b->preference_create = (create_t)dlsym(library, "cublasLtMatmulPreferenceCreate");
	b->preference_destroy = (destroy_t)dlsym(library, "cublasLtMatmulPreferenceDestroy");
	b->preference_set = (set_t)dlsym(library, "cublasLtMatmulPreferenceSetAttribute");
	b->heuristic = (heuristic_t)dlsym(library, "cublasLtMatmulAlgoGetHeuristic");
	b->matmul = (matmul_t)dlsym(library, "cublasLtMatmul");
	int complete = create && b->destroy && b->desc_create && b->desc_destroy && b->desc_set && b->layout_create && b->layout_destroy &&
		b->preference_create && b->preference_destroy && b->preference_set && b->heuristic && b->matmul;
	if (!complete || cuCtxSetCurrent(q.context) || create(&b->handle) || cuMemAlloc(&b->workspace, WORKSPACE)) {
		if (b->handle) b->destroy(b->handle);
		dlclose(library);
		free(b);
		return -1;
	}
	*out = b;
	return 0;
}

static void drop(blas *b, plan *p) {
	if (p->a) b->layout_destroy(p->a);
	if (p->b) b->layout_destroy(p->b);
	if (p->d) b->layout_destroy(p->d);
	if (p->desc) b->desc_destroy(p->desc);
}

void quartet_blas_close(quartet_queue q, void *handle) {
	blas *b = handle;
	if (!b || cuCtxSetCurrent(q.context)) return;
	for (int i = 0; i < b->count; i++) drop(b, &b->plans[i]);
	free(b->plans);
	b->destroy(b->handle);
	cuMemFree(b->workspace);
	free(b); // the library stays loaded: unloading it is not safe
}

static int alignment(const quartet_product *p) {
	uint64_t all = p->out | p->x | p->y | p->bias;
	return all & 15 ? (all & 7 ? (all & 3 ? 2 : 4) : 8) : 16;
}

// prepare fills a plan. A row-major matrix is its own transpose in column-major order: outᵀ = op(y)ᵀ·op(x)ᵀ, so y comes first.
static int prepare(blas *b, plan *l) {
	int type = l->type == 0 ? R_32F : l->type == 1 ? R_16F : R_16BF, t = OP_T, failed;
	if ((failed = b->desc_create(&l->desc, COMPUTE_32F, R_32F))) return failed;
	if (l->trans_y && (failed = b->desc_set(l->desc, DESC_TRANSA, &t, sizeof t))) return failed;
	if (l->trans_x && (failed = b->desc_set(l->desc, DESC_TRANSB, &t, sizeof t))) return failed;
	uint32_t epilogue = EPILOGUE_BIAS;
	if (l->bias && (failed = b->desc_set(l->desc, DESC_EPILOGUE, &epilogue, sizeof epilogue))) return failed;
	if ((failed = l->trans_y ? b->layout_create(&l->a, type, l->k, l->n, l->ld_y) : b->layout_create(&l->a, type, l->n, l->k, l->ld_y))) return failed;
	if ((failed = l->trans_x ? b->layout_create(&l->b, type, l->m, l->k, l->ld_x) : b->layout_create(&l->b, type, l->k, l->m, l->ld_x))) return failed;
	if ((failed = b->layout_create(&l->d, type, l->n, l->m, l->ld_out))) return failed;
	void *preference = 0;
	if ((failed = b->preference_create(&preference))) return failed;
	uint64_t limit = WORKSPACE;
	uint32_t align = l->aligned;
	b->preference_set(preference, PREF_MAX_WORKSPACE, &limit, sizeof limit);
	for (int i = PREF_ALIGN_A; i <= PREF_ALIGN_D; i++) b->preference_set(preference, i, &align, sizeof align);
	int found = 0;
	failed = b->heuristic(b->handle, l->desc, l->a, l->b, l->d, l->d, preference, 1, &l->chosen, &found);
	b->preference_destroy(preference);
	if (!failed && (!found || l->chosen.state)) failed = 15; // CUBLAS_STATUS_NOT_SUPPORTED
	return failed;
}

int quartet_multiply(quartet_queue q, void *handle, const quartet_product *p) {
	blas *b = handle;
	if (cuCtxSetCurrent(q.context)) return -1;
	plan want = {p->type, p->m, p->n, p->k, p->trans_x, p->trans_y, p->ld_out, p->ld_x, p->ld_y, p->bias != 0, alignment(p)}, *l = 0;
	for (int i = 0; i < b->count && !l; i++)
		if (!memcmp(&b->plans[i], &want, offsetof(plan, aligned) + sizeof(int))) l = &b->plans[i];
	if (!l) {
		if (b->count == 512) { // shapes of a workload without end: begin anew
			for (int i = 0; i < b->count; i++) drop(b, &b->plans[i]);
			b->count = 0;
		}
		if (b->count == b->room) {
			b->room = b->room ? 2 * b->room : 64;
			b->plans = realloc(b->plans, b->room * sizeof(plan));
		}
		l = &b->plans[b->count++];
		*l = want;
		l->failed = prepare(b, l);
	}
	if (l->failed) return -l->failed;
	if (p->bias) {
		void *bias = (void *)p->bias;
		b->desc_set(l->desc, DESC_BIAS_POINTER, &bias, sizeof bias);
	}
	return -b->matmul(b->handle, l->desc, &p->alpha, (void *)p->y, l->a, (void *)p->x, l->b, &p->beta, (void *)p->out, l->d, (void *)p->out, l->d,
		&l->chosen.algo, (void *)b->workspace, WORKSPACE, q.stream);
}

//go:build cuda

#include "calls.h"

#define TRY(call) do { CUresult failed = (call); if (failed) return failed; } while (0)
#define ENTER(q) TRY(cuCtxSetCurrent((q).context))

int quartet_open(int device, uint64_t keep, quartet_queue *out) {
	CUdevice d;
	TRY(cuDeviceGet(&d, device));
	TRY(cuDevicePrimaryCtxRetain(&out->context, d));
	ENTER(*out);
	CUmemoryPool pool;
	TRY(cuDeviceGetDefaultMemPool(&pool, d));
	TRY(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep));
	return cuStreamCreate(&out->stream, CU_STREAM_NON_BLOCKING);
}

void quartet_close(int device, quartet_queue q) {
	CUdevice d;
	CUmemoryPool pool;
	if (cuCtxSetCurrent(q.context)) return;
	cuStreamSynchronize(q.stream);
	cuStreamDestroy(q.stream);
	if (cuDeviceGet(&d, device)) return;
	if (!cuDeviceGetDefaultMemPool(&pool, d)) cuMemPoolTrimTo(pool, 0);
	cuCtxSetCurrent(0);
	cuDevicePrimaryCtxRelease(d);
}

int quartet_enter(quartet_queue q) { return cuCtxSetCurrent(q.context); }

int quartet_allocate(quartet_queue q, size_t bytes, uint64_t *address) {
	ENTER(q);
	CUdeviceptr p = 0;
	CUresult failed = cuMemAllocAsync(&p, bytes, q.stream);
	*address = p;
	return failed;
}

int quartet_release(quartet_queue q, uint64_t address) {
	ENTER(q);
	return cuMemFreeAsync(address, q.stream);
}

int quartet_clear(quartet_queue q, uint64_t address, size_t bytes) {
	ENTER(q);
	return cuMemsetD8Async(address, 0, bytes, q.stream);
}

int quartet_to_device(quartet_queue q, uint64_t address, const void *data, size_t bytes) {
	ENTER(q);
	return cuMemcpyHtoDAsync(address, data, bytes, q.stream);
}

int quartet_to_host(quartet_queue q, void *data, uint64_t address, size_t bytes) {
	ENTER(q);
	TRY(cuMemcpyDtoHAsync(data, address, bytes, q.stream));
	return cuStreamSynchronize(q.stream);
}

int quartet_wait(quartet_queue q) {
	ENTER(q);
	return cuStreamSynchronize(q.stream);
}

int quartet_memory(quartet_queue q, size_t *available, size_t *total) {
	ENTER(q);
	return cuMemGetInfo(available, total);
}

int quartet_pin(quartet_queue q, size_t bytes, void **data) {
	ENTER(q);
	return cuMemHostAlloc(data, bytes, 0);
}

int quartet_unpin(quartet_queue q, void *data) {
	ENTER(q);
	return cuMemFreeHost(data);
}

int quartet_mark(quartet_queue q, CUevent *event) {
	ENTER(q);
	if (!*event) TRY(cuEventCreate(event, CU_EVENT_DISABLE_TIMING));
	return cuEventRecord(*event, q.stream);
}

int quartet_wait_for(quartet_queue q, CUevent event) {
	ENTER(q);
	return event ? cuEventSynchronize(event) : 0;
}

int quartet_shared(quartet_queue q, CUfunction f, int bytes) {
	ENTER(q);
	return cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes);
}

int quartet_launch(quartet_queue q, CUfunction f, const unsigned grid[3], unsigned block, unsigned shared, int together, const uint64_t *args, int n) {
	void *holders[64];
	if (n > 64) return CUDA_ERROR_INVALID_VALUE;
	for (int i = 0; i < n; i++) holders[i] = (void *)&args[i];
	ENTER(q);
	CUlaunchAttribute all = {.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value.cooperative = 1};
	CUlaunchConfig c = {grid[0], grid[1], grid[2], block, 1, 1, shared, q.stream, &all, together != 0};
	return cuLaunchKernelEx(&c, f, holders, 0);
}

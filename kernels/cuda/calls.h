// The driver's calls that gorgonia.org/cu lacks, and those that must not depend on the calling thread's current context. Each
// makes the context current first, so that Go may call it on any thread. They return the driver's CUresult.
#pragma once
#include <cuda.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
	CUcontext context;
	CUstream stream;
} quartet_queue;

// quartet_open takes the device's primary context, makes a stream, and lets the memory pool keep up to `keep` freed bytes.
int quartet_open(int device, uint64_t keep, quartet_queue *out);
void quartet_close(int device, quartet_queue q);
int quartet_enter(quartet_queue q);

int quartet_allocate(quartet_queue q, size_t bytes, uint64_t *address);
int quartet_release(quartet_queue q, uint64_t address);
int quartet_clear(quartet_queue q, uint64_t address, size_t bytes);
int quartet_to_device(quartet_queue q, uint64_t address, const void *data, size_t bytes);
int quartet_to_host(quartet_queue q, void *data, uint64_t address, size_t bytes); // waits
int quartet_wait(quartet_queue q);
int quartet_memory(quartet_queue q, size_t *available, size_t *total);

int quartet_pin(quartet_queue q, size_t bytes, void **data);
int quartet_unpin(quartet_queue q, void *data);
int quartet_mark(quartet_queue q, CUevent *event); // makes the event where it is 0
int quartet_wait_for(quartet_queue q, CUevent event);

int quartet_shared(quartet_queue q, CUfunction f, int bytes);
// quartet_launch queues a kernel; args are n holders of eight bytes. together requires that all its blocks run at a time.
int quartet_launch(quartet_queue q, CUfunction f, const unsigned grid[3], unsigned block, unsigned shared, int together, const uint64_t *args, int n);

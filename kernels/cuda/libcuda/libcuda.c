// A stand-in for the driver's library that a program can be linked with where there is no driver. Each function jumps to the
// real one once quartet_libcuda_open has found it; before that it returns an error, except cuInit, which gorgonia.org/cu calls
// when the program starts and which must not fail there.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include "libcuda.h"

enum { NOT_INITIALIZED = 3, NOT_FOUND = 500 };

__attribute__((used)) static int not_open(void) { return NOT_INITIALIZED; }
static int not_there(void) { return NOT_FOUND; }
static int start(void) { return 0; }

#define X(name) __attribute__((visibility("hidden"))) void *quartet_slot_##name = (void *)not_open;
#include "names.inc"
#undef X

#if defined(__x86_64__)
#define JUMP(name) "movq quartet_slot_" #name "(%rip), %r11\n jmp *%r11\n"
#elif defined(__aarch64__)
#define JUMP(name) "adrp x16, quartet_slot_" #name "\n ldr x16, [x16, :lo12:quartet_slot_" #name "]\n br x16\n"
#else
#error "a GPU build needs x86-64 or arm64"
#endif

#define X(name) __asm__(".text\n.globl " #name "\n.type " #name ", %function\n" #name ":\n" JUMP(name) ".size " #name ", . - " #name "\n");
#include "names.inc"
#undef X

__attribute__((constructor)) static void connect_start(void) { quartet_slot_cuInit = (void *)start; }

const char *quartet_libcuda_open(void) {
	static char problem[512];
	void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
	if (!library) {
		snprintf(problem, sizeof problem, "%s", dlerror());
		return problem;
	}
	void *found;
#define X(name) quartet_slot_##name = (found = dlsym(library, #name)) ? found : (void *)not_there;
#include "names.inc"
#undef X
	int (*init)(unsigned) = (int (*)(unsigned))quartet_slot_cuInit;
	int failed = init(0);
	if (!failed) return 0;
	int (*describe)(int, const char **) = (int (*)(int, const char **))quartet_slot_cuGetErrorString;
	const char *text = "unknown error";
	if (quartet_slot_cuGetErrorString != (void *)not_there) describe(failed, &text);
	snprintf(problem, sizeof problem, "the NVIDIA driver does not start: %s (%d)", text, failed);
	return problem;
}

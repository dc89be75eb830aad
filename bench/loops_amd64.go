package bench

import "golang.org/x/sys/cpu"

// readStep is what the length of read's buffer is a multiple of.
const readStep = 256

// read loads all of a buffer and drops it.
func read(buffer []byte) {
	if len(buffer) == 0 {
		return
	}
	if cpu.X86.HasAVX2 {
		readAVX2(&buffer[0], len(buffer)/readStep)
		return
	}
	readSSE2(&buffer[0], len(buffer)/readStep)
}

// registerLoop is the processor's fastest loop of products on registers that the kernels of a path use, its operations a
// turn, and what they are made of.
func registerLoop(path string) (loop func(n int), flops float64, from string) {
	switch {
	case path == "amx":
		return multiplyTiles, 20 * 16 * 16 * 32 * 2 / 5, "tiles"
	case cpu.X86.HasAVX512F:
		return multiplyAddAVX512, 12 * 16 * 2, "registers"
	case cpu.X86.HasAVX2 && cpu.X86.HasFMA:
		return multiplyAddAVX2, 12 * 8 * 2, "registers"
	}
	return nil, 0, ""
}

// readAVX2 and readSSE2 load n times 256 bytes.
//
//go:noescape
func readAVX2(from *byte, n int)

//go:noescape
func readSSE2(from *byte, n int)

// multiplyAddAVX2 and multiplyAddAVX512 add products to twelve registers, n times over: enough to hide the latency on
// two units.
func multiplyAddAVX2(n int)

func multiplyAddAVX512(n int)

// multiplyTiles adds twenty products of tiles of bfloat16, n times over, to four tiles. Five make one of float32. The
// system's leave to use tiles must have been got.
func multiplyTiles(n int)

// features are the processor's extensions that matter to the kernels.
func features() []string {
	var has []string
	for _, f := range []struct {
		name string
		has  bool
	}{
		{"avx2", cpu.X86.HasAVX2}, {"fma", cpu.X86.HasFMA}, {"f16c", cpu.X86.HasF16C}, {"avx512f", cpu.X86.HasAVX512F},
		{"avx512vnni", cpu.X86.HasAVX512VNNI}, {"avx512bf16", cpu.X86.HasAVX512BF16},
		{"amx", cpu.X86.HasAMXTile && cpu.X86.HasAMXBF16},
	} {
		if f.has {
			has = append(has, f.name)
		}
	}
	return has
}

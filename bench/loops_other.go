//go:build !amd64

package bench

import (
	"encoding/binary"
	"runtime"
)

// readStep is what the length of read's buffer is a multiple of.
const readStep = 64

// read loads all of a buffer.
func read(buffer []byte) {
	var sum [4]uint64
	for ; len(buffer) >= readStep; buffer = buffer[readStep:] {
		for i := range 8 {
			sum[i%4] ^= binary.NativeEndian.Uint64(buffer[8*i:])
		}
	}
	runtime.KeepAlive(sum)
}

// registerLoop is none: the roof is then the backend's own product.
func registerLoop(string) (loop func(n int), flops float64, from string) { return nil, 0, "" }

// features are not told apart here.
func features() []string { return nil }

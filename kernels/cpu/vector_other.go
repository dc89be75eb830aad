//go:build !amd64

package cpu

import "runtime"

func loopsOf(p Path) *loops {
	if p == Plain {
		return &plainLoops
	}
	return nil
}

func pause() { runtime.Gosched() }

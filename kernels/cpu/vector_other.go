//go:build !amd64

package cpu

import "runtime"

func bestLoops() *loops { return &plainLoops }

func pause() { runtime.Gosched() }

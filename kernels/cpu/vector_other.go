//go:build !amd64

package cpu

import "runtime"

func bestLoops() *loops { return &plainLoops }

func wideLoops() *loops { return nil }

func pause() { runtime.Gosched() }

//go:build !amd64

package cpu

func bestLoops() *loops { return &plainLoops }

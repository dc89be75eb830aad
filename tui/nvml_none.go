//go:build !linux || !cgo

package tui

// nvidia is nil where NVIDIA's library cannot be called.
func nvidia() Meter { return nil }

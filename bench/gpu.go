package bench

import (
	"quartet/kernels"
)

// gpu is a backend that tells of its own memory.
type gpu interface {
	kernels.Backend
	GPU() string
	Memory() (now, peak int64)
	ResetPeak()
}

// gpuRoofs measures a GPU's roofs: the bandwidth of copying within its memory, read and written, and the rate of a large
// product in the type of its activations.
func gpuRoofs(b gpu, m *Machine, l limits) error {
	bandwidth, err := timed(b, l, float64(2*l.buffer), [][2]int{{1, l.buffer / 2}, {1, l.buffer / 2}}, func(t []kernels.Tensor) { b.Copy(t[0], t[1]) })
	if err != nil {
		return err
	}
	const tokens, in, out = 4096, 2560, 10240
	flops, err := timed(b, l, 2*tokens*in*out, [][2]int{{tokens, out}, {tokens, in}, {out, in}}, func(t []kernels.Tensor) { b.Linear(t[0], t[1], t[2], kernels.Tensor{}) })
	m.ReadBytesPerSecond, m.ProductFlops, m.FlopsFrom = max(m.ReadBytesPerSecond, bandwidth), max(m.ProductFlops, flops), "product"
	return err
}

// timed is the best amount a second of work on tensors of activations of some shapes, filled with noise: a product of
// zeros takes less power and runs faster.
func timed(b kernels.Backend, l limits, amount float64, shapes [][2]int, work func([]kernels.Tensor)) (float64, error) {
	var made []kernels.Tensor
	defer func() {
		for _, t := range made {
			b.Free(t)
		}
	}()
	for _, s := range shapes {
		t, err := b.Alloc(b.Activations(), s[0], s[1])
		if err != nil {
			return 0, err
		}
		made = append(made, t)
		b.Upload(t, noise(b.Activations(), t.Len()))
	}
	var failed error
	best := rate(amount, l.bursts, func(times int) {
		for range times {
			work(made)
		}
		if err := b.Sync(); err != nil {
			failed = err
		}
	})
	return best, failed
}

// noise is n values of a float type around 0, the same every time.
func noise(d kernels.DType, n int) []byte {
	data := make([]byte, d.Bytes(n))
	state := uint32(1)
	for i := 0; i < len(data); i++ {
		state = state*1664525 + 1013904223
		data[i] = byte(state >> 24)
		if i%d.Bytes(1) == d.Bytes(1)-1 {
			data[i] = data[i]&0x80 | 0x38 // the exponent's bits: values of about 1
		}
	}
	return data
}

// watchMemory returns what tells the peak of a GPU's memory since now; 0 on the CPU.
func watchMemory(b kernels.Backend) func() int64 {
	g, ok := b.(gpu)
	if !ok {
		return func() int64 { return 0 }
	}
	g.ResetPeak()
	return func() int64 {
		_, peak := g.Memory()
		return peak
	}
}

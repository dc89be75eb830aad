//go:build cuda

package cuda

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"quartet/kernels"
)

// TestTransfers sends and fetches sizes around the pinned pieces.
func TestTransfers(t *testing.T) {
	b := openTest(t, kernels.F16)
	for _, n := range []int{1, 1<<20 - 1, 1 << 20, stageBytes - 1, stageBytes + 1, 3*stageBytes + 5} {
		data, back := make([]byte, n), make([]byte, n)
		noise := rand.NewChaCha8([32]byte{1})
		noise.Read(data)
		at, err := b.Import(kernels.HostTensor(kernels.U8, 1, n, data))
		if err != nil {
			t.Fatal(err)
		}
		b.Download(back, at)
		if err := b.Sync(); err != nil || !bytes.Equal(data, back) {
			t.Errorf("%d bytes: equal %t, %v", n, bytes.Equal(data, back), err)
		}
		b.Free(at)
	}
}

// TestOutOfMemory asks for more than there is: an error that says so, and a backend that goes on.
func TestOutOfMemory(t *testing.T) {
	b := openTest(t, kernels.F16)
	rows := int(b.Info().MemoryTotal/(1<<20)) + 1
	if _, err := b.Alloc(kernels.U8, rows, 1<<20); err == nil {
		t.Fatal("more memory than there is was reserved")
	} else {
		t.Log(err)
	}
	x, err := b.Alloc(kernels.F32, 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	got := []float32{1, 1, 1}
	b.Download(kernels.AsBytes(got), x)
	if err := b.Sync(); err != nil || got[0] != 0 || got[2] != 0 {
		t.Errorf("after it: %v, %v", got, err)
	}
	if now, peak := b.Memory(); now != 12 || peak != 12 {
		t.Errorf("%d bytes are counted, %d at the peak", now, peak)
	}
}

func BenchmarkUpload(b *testing.B) {
	dev := openTest(b, kernels.F16)
	data := make([]byte, 1<<30)
	t, err := dev.Import(kernels.HostTensor(kernels.U8, 1, len(data), data))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		dev.Upload(t, data)
		if err := dev.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCopy is the roof of what only moves memory: bytes read and written.
func BenchmarkCopy(b *testing.B) {
	dev := openTest(b, kernels.F16)
	const n = 512 << 20
	x, _ := dev.Alloc(kernels.F16, 1, n)
	y, err := dev.Alloc(kernels.F16, 1, n)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4 * n)
	for b.Loop() {
		dev.Copy(y, x)
		if err := dev.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLinear is phi-2's products, forward, in TFLOP/s.
func BenchmarkLinear(b *testing.B) {
	dev := openTest(b, kernels.F16)
	for _, s := range []struct {
		name    string
		t, k, n int
	}{{"1024x2560x2560", 1024, 2560, 2560}, {"1024x2560x10240", 1024, 2560, 10240}, {"1024x10240x2560", 1024, 10240, 2560}, {"4096x2560x10240", 4096, 2560, 10240}, {"655x2560x51200", 655, 2560, 51200}} {
		b.Run(s.name, func(b *testing.B) {
			x, _ := dev.Alloc(kernels.F16, s.t, s.k)
			w, _ := dev.Alloc(kernels.F16, s.n, s.k)
			bias, _ := dev.Alloc(kernels.F16, 1, s.n)
			out, err := dev.Alloc(kernels.F16, s.t, s.n)
			if err != nil {
				b.Fatal(err)
			}
			for _, t := range []kernels.Tensor{x, w, bias, out} {
				defer dev.Free(t)
			}
			random := make([]uint16, max(x.Len(), w.Len()))
			noise := rand.New(rand.NewPCG(1, 2))
			for i := range random {
				random[i] = kernels.F32ToF16(float32(noise.NormFloat64()))
			}
			dev.Upload(x, kernels.AsBytes(random[:x.Len()]))
			dev.Upload(w, kernels.AsBytes(random[:w.Len()]))
			const times = 20
			for b.Loop() {
				for range times {
					dev.Linear(out, x, w, bias)
				}
				if err := dev.Sync(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(2*times*float64(s.t)*float64(s.k)*float64(s.n)*float64(b.N)/b.Elapsed().Seconds()/1e12, "TFLOP/s")
		})
	}
}

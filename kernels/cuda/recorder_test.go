package cuda

import (
	"fmt"
	"math"
	"testing"

	"quartet/kernels"
)

// recorder is a device that computes nothing: it checks what is asked of it against the kernels' sources and its memory.
type recorder struct {
	t       testing.TB
	about   Info
	blas    bool // it does matrix products
	kernels map[string]kernel
	next    uint64
	live    map[uint64]int // bytes at an address
	queued  []launch       // since the last reset
	work    int            // launches, products, clears and copies since the last reset
}

func newRecorder(t testing.TB, about Info, blas bool) *recorder {
	return &recorder{t: t, about: about, blas: blas, kernels: sources(t), next: 1 << 40, live: map[uint64]int{}}
}

// The GPUs that launches are checked for: shared memory and processors differ.
var gpus = []Info{
	{Name: "H200", Major: 9, Processors: 132, SharedMemory: 227 << 10, L2: 60 << 20, MemoryTotal: 141 << 30, MemoryFree: 140 << 30},
	{Name: "A100", Major: 8, Processors: 108, SharedMemory: 163 << 10, L2: 40 << 20, MemoryTotal: 80 << 30, MemoryFree: 79 << 30},
	{Name: "RTX 4060", Major: 8, Minor: 9, Processors: 24, SharedMemory: 99 << 10, L2: 24 << 20, MemoryTotal: 8 << 30, MemoryFree: 7 << 30},
}

func (r *recorder) info() Info { return r.about }

// alloc leaves unused memory between reservations, so that an address behind one is in none.
func (r *recorder) alloc(bytes int) (uint64, error) {
	addr := r.next
	r.next += uint64(bytes+511) / 256 * 256
	r.live[addr] = bytes
	return addr, nil
}

func (r *recorder) free(addr uint64) {
	if _, ok := r.live[addr]; !ok {
		r.t.Errorf("%#x is freed, but nothing was reserved there", addr)
	}
	delete(r.live, addr)
}

func (r *recorder) zero(addr uint64, bytes int) error {
	r.work++
	r.inside("zero", addr, bytes)
	return nil
}

func (r *recorder) upload(addr uint64, data []byte) error {
	r.inside("upload", addr, len(data))
	return nil
}

func (r *recorder) download(data []byte, addr uint64) error {
	r.inside("download", addr, len(data))
	return nil
}

// inside requires bytes at an address to be of one reservation.
func (r *recorder) inside(what string, addr uint64, bytes int) {
	r.t.Helper()
	for base, size := range r.live {
		if addr >= base && addr+uint64(bytes) <= base+uint64(size) {
			return
		}
	}
	r.t.Errorf("%s: %d bytes at %#x are not reserved memory", what, bytes, addr)
}

func (r *recorder) launch(l launch) error {
	r.t.Helper()
	r.work++
	r.queued = append(r.queued, l)
	k, ok := r.kernels[l.kernel]
	if !ok {
		r.t.Errorf("no .cu file has a kernel %s", l.kernel)
		return nil
	}
	for i, limit := range [3]int{math.MaxInt32, 65535, 65535} {
		if l.grid[i] < 1 || l.grid[i] > limit {
			r.t.Errorf("%s: a grid of %v", l.kernel, l.grid)
		}
	}
	if l.block < 1 || l.block > 1024 {
		r.t.Errorf("%s: %d threads a block", l.kernel, l.block)
	}
	if l.shared < 0 || l.shared > r.about.SharedMemory {
		r.t.Errorf("%s on %s: %d bytes of shared memory, more than %d", l.kernel, r.about.Name, l.shared, r.about.SharedMemory)
	}
	if len(l.args) != len(k.parameters) {
		r.t.Errorf("%s: %d arguments for %d parameters %v", l.kernel, len(l.args), len(k.parameters), k.parameters)
		return nil
	}
	for i, p := range k.parameters {
		r.argument(fmt.Sprintf("%s: parameter %s", l.kernel, p), p, l.args[i])
	}
	return nil
}

// argument requires a pointer to be none or into reserved memory, and a number to fit its parameter.
func (r *recorder) argument(what string, p parameter, value uint64) {
	r.t.Helper()
	fits := true
	switch {
	case p.pointer():
		if value != 0 {
			r.inside(what, value, 1)
		}
	case p.kind == "int":
		fits = int64(value) == int64(int32(value))
	case p.kind == "unsigned", p.kind == "float":
		fits = value == uint64(uint32(value))
	case p.kind != "long long":
		r.t.Errorf("%s has a type that launches don't pass", what)
	}
	if !fits {
		r.t.Errorf("%s: %d does not fit", what, int64(value))
	}
}

func (r *recorder) product(p product) (bool, error) {
	r.t.Helper()
	if !r.blas {
		return false, nil
	}
	r.work++
	extent := func(rows, cols, ld int, trans bool) int {
		if trans {
			rows, cols = cols, rows
		}
		if ld < cols {
			r.t.Errorf("product %+v: rows of %d elements lie %d apart", p, cols, ld)
		}
		return p.dtype.Bytes((rows-1)*ld + cols)
	}
	r.inside("product's out", p.out, extent(p.m, p.n, p.ldOut, false))
	r.inside("product's x", p.x, extent(p.m, p.k, p.ldX, p.transX))
	r.inside("product's y", p.y, extent(p.k, p.n, p.ldY, p.transY))
	if p.bias != 0 {
		r.inside("product's bias", p.bias, p.dtype.Bytes(p.n))
	}
	return true, nil
}

func (r *recorder) sync() error  { return nil }
func (r *recorder) close() error { return nil }

// TestRecorder requires the recorder to see what a GPU would not forgive.
func TestRecorder(t *testing.T) {
	for name, ask := range map[string]func(b *Backend, x kernels.Tensor){
		"no kernel":      func(b *Backend, x kernels.Tensor) { b.run("nothing", [3]int{1, 1, 1}, 32, 0) },
		"too few":        func(b *Backend, x kernels.Tensor) { b.run("gelu_f32", [3]int{1, 1, 1}, 32, 0, x.Addr, x.Addr) },
		"no blocks":      func(b *Backend, x kernels.Tensor) { b.run("gelu_f32", [3]int{0, 1, 1}, 32, 0, x.Addr, x.Addr, 1) },
		"many threads":   func(b *Backend, x kernels.Tensor) { b.run("gelu_f32", [3]int{1, 1, 1}, 1056, 0, x.Addr, x.Addr, 1) },
		"shared memory":  func(b *Backend, x kernels.Tensor) { b.run("gelu_f32", [3]int{1, 1, 1}, 32, 1<<20, x.Addr, x.Addr, 1) },
		"foreign memory": func(b *Backend, x kernels.Tensor) { b.run("gelu_f32", [3]int{1, 1, 1}, 32, 0, x.Addr, x.Addr+256, 1) },
		"a long int":     func(b *Backend, x kernels.Tensor) { b.run("sum_parts", [3]int{1, 1, 1}, 32, 0, x.Addr, x.Addr, 1<<31) },
		"freed memory":   func(b *Backend, x kernels.Tensor) { b.Free(x); b.Gelu(x, x) },
		"behind the end": func(b *Backend, x kernels.Tensor) { x.Cols = 99; b.Zero(x) },
	} {
		seen := &complaints{TB: t}
		b := newBackend(newRecorder(seen, gpus[0], true), kernels.F32)
		x, err := b.Alloc(kernels.F32, 1, 16)
		if err != nil {
			t.Fatal(err)
		}
		b.Gelu(x, x)
		if seen.n > 0 {
			t.Fatal("a sound launch is refused")
		}
		if ask(b, x); seen.n == 0 {
			t.Errorf("%s: the recorder sees nothing", name)
		}
	}
}

// complaints counts errors instead of failing.
type complaints struct {
	testing.TB
	n int
}

func (c *complaints) Errorf(string, ...any) { c.n++ }

package cpu

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quartet/kernels"
	"quartet/safetensors"
)

// golden opens a file of the reference data: the project's own copy, or that of $QUARTET_GOLDEN.
func golden(t *testing.T, path string) *safetensors.File {
	t.Helper()
	dir := os.Getenv("QUARTET_GOLDEN")
	foreign := dir != ""
	if !foreign {
		dir = "../../testdata/golden"
	}
	f, err := safetensors.Open(filepath.Join(dir, path))
	if os.IsNotExist(err) && foreign {
		t.Skipf("the reference data has no %s", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func paths(t *testing.T, run func(t *testing.T, b *Backend)) {
	for _, p := range Paths() {
		t.Run(string(p), func(t *testing.T) { run(t, New(On(p))) })
	}
}

// TestGoldenNF4 quantises the inputs that bitsandbytes did, and dequantises its bytes.
func TestGoldenNF4(t *testing.T) {
	f := golden(t, "phi/nf4_vectors.safetensors")
	types := map[safetensors.DType]kernels.DType{"F16": kernels.F16, "BF16": kernels.BF16, "F32": kernels.F32}
	paths(t, func(t *testing.T, b *Backend) {
		cases := 0
		for _, in := range f.Tensors() {
			name, ok := strings.CutSuffix(in.Name, ".in")
			if !ok {
				continue
			}
			cases++
			var blockSize int
			parts := strings.Split(name, ".")
			if _, err := fmt.Sscanf(parts[2], "bs%d", &blockSize); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			get := func(suffix string) []byte { tensor, _ := f.Get(name + suffix); return bytes.Clone(tensor.Data) }
			d, rows, cols := types[in.DType], in.Shape[0], in.Shape[1]
			alloc := func(d kernels.DType, rows, cols int) kernels.Tensor {
				tensor, err := b.Alloc(d, rows, cols)
				if err != nil {
					t.Fatal(err)
				}
				return tensor
			}
			twice := parts[3] == "dq"
			x := alloc(d, rows, cols)
			copy(x.Host, in.Data)
			packed, out := alloc(kernels.NF4, rows, cols), alloc(d, rows, cols)
			q := kernels.NewQuant(rows*cols, blockSize, d, twice)
			packed.Quant = q
			q.Absmax = alloc(q.Absmax.DType, 1, q.Absmax.Cols)
			if twice {
				q.NestedAbsmax = alloc(kernels.F32, 1, q.NestedAbsmax.Cols)
			}
			b.QuantizeNF4(packed, x)
			wide := make([]float32, x.Len())
			b.load(wide, x, 0)
			for i, want := range get(".packed") {
				from := 2 * i / blockSize * blockSize
				if got := packed.Host[i]; got != want && plainLargest(wide[from:min(len(wide), from+blockSize)]) != 0 {
					t.Errorf("%s: byte %d is %02x, want %02x", name, i, got, want)
					break
				}
			}
			if !bytes.Equal(q.Absmax.Host, get(".absmax")) {
				t.Errorf("%s: the absmaxima differ", name)
			}
			if twice {
				offset := kernels.HostTensor(kernels.F32, 1, 1, get(".nested_offset")).F32s()[0]
				if math.Abs(float64(q.NestedOffset-offset)) > 2e-7*math.Abs(float64(offset)) {
					t.Errorf("%s: offset %v, want %v", name, q.NestedOffset, offset)
				}
				for i, want := range kernels.HostTensor(kernels.F32, 1, q.NestedAbsmax.Cols, get(".nested_absmax")).F32s() {
					if got := q.NestedAbsmax.F32s()[i]; math.Abs(float64(got-want)) > 3e-7*max(math.Abs(float64(want)), math.Abs(float64(offset))) {
						t.Errorf("%s: nested absmax %d is %v, want %v", name, i, got, want)
					}
				}
				q.NestedOffset = offset
				copy(q.NestedAbsmax.Host, get(".nested_absmax"))
			}
			copy(packed.Host, get(".packed"))
			copy(q.Absmax.Host, get(".absmax"))
			b.DequantizeNF4(out, packed)
			if !bytes.Equal(out.Host, get(".dequant")) {
				t.Errorf("%s: dequantised weights differ", name)
			}
		}
		if cases < 50 {
			t.Errorf("only %d cases", cases)
		}
	})
}

// TestGoldenAdamW8bit replays bitsandbytes' six steps.
func TestGoldenAdamW8bit(t *testing.T) {
	f := golden(t, "phi/adamw8bit.safetensors")
	get := func(name string, step int) []byte {
		tensor, ok := f.Get(fmt.Sprint(name, step))
		if !ok {
			t.Fatalf("no %s%d", name, step)
		}
		return bytes.Clone(tensor.Data)
	}
	floats := func(name string, step int) []float32 {
		data := get(name, step)
		return kernels.HostTensor(kernels.F32, 1, len(data)/4, data).F32s()
	}
	for i, v := range floats("qmap1_", 1) {
		if v != kernels.SignedMap[i] {
			t.Errorf("signed map: entry %d is %v, want %v", i, kernels.SignedMap[i], v)
		}
	}
	for i, v := range floats("qmap2_", 1) {
		if v != kernels.UnsignedMap[i] {
			t.Errorf("unsigned map: entry %d is %v, want %v", i, kernels.UnsignedMap[i], v)
		}
	}
	paths(t, func(t *testing.T, b *Backend) {
		p := floats("p", 0)
		n := len(p)
		blocks := (n + kernels.AdamBlock - 1) / kernels.AdamBlock
		tensor := func(x []float32) kernels.Tensor {
			return kernels.HostTensor(kernels.F32, 1, len(x), kernels.AsBytes(x))
		}
		state1 := kernels.HostTensor(kernels.U8, 1, n, make([]byte, n))
		state2 := kernels.HostTensor(kernels.U8, 1, n, make([]byte, n))
		absmax1, absmax2 := make([]float32, blocks), make([]float32, blocks)
		for step := 1; step <= 6; step++ {
			before := floats("p", step-1)
			s := kernels.AdamStep{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01, GradScale: 1, T: step}
			b.AdamW8bit(tensor(p), tensor(floats("g", step-1)), state1, tensor(absmax1), state2, tensor(absmax2), s)
			var worst, update float64
			for i, want := range floats("p", step) {
				worst = max(worst, math.Abs(float64(p[i]-want)))
				update = max(update, math.Abs(float64(want-before[i])))
			}
			if worst > 1e-3*update {
				t.Errorf("step %d: parameters off by %.3g of the largest update", step, worst/update)
			}
			for _, state := range []struct {
				codes, want []byte
				got, tops   []float32
			}{{state1.Host, get("state1_", step), absmax1, floats("absmax1_", step)}, {state2.Host, get("state2_", step), absmax2, floats("absmax2_", step)}} {
				wrong := 0
				for i, want := range state.want {
					if state.codes[i] != want {
						wrong++
					}
				}
				if wrong > n/10000 {
					t.Errorf("step %d: %d of %d codes differ", step, wrong, n)
				}
				for i, want := range state.tops {
					if math.Abs(float64(state.got[i]-want)) > 1e-6*float64(want) {
						t.Errorf("step %d: absmax %d is %v, want %v", step, i, state.got[i], want)
					}
				}
			}
		}
	})
}

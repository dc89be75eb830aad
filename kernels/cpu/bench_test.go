package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"quartet/kernels"
)

// operand is a tensor of small random values.
func operand(tb testing.TB, b *Backend, d kernels.DType, rows, cols int) kernels.Tensor {
	tb.Helper()
	wide, err := b.Alloc(kernels.F32, rows, cols)
	if err != nil {
		tb.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	values := wide.F32s()
	for i := range values {
		values[i] = random.Float32() - 0.5
	}
	if d == kernels.F32 {
		return wide
	}
	t, err := b.Alloc(d, rows, cols)
	if err != nil {
		tb.Fatal(err)
	}
	if d == kernels.NF4 {
		t.Quant = kernels.NewQuant(rows*cols, 64, kernels.F16, true)
		if t.Quant.Absmax, err = b.Alloc(kernels.U8, 1, t.Quant.Absmax.Cols); err != nil {
			tb.Fatal(err)
		}
		if t.Quant.NestedAbsmax, err = b.Alloc(kernels.F32, 1, t.Quant.NestedAbsmax.Cols); err != nil {
			tb.Fatal(err)
		}
		b.QuantizeNF4(t, wide)
	} else {
		b.Copy(t, wide)
	}
	b.Free(wide)
	return t
}

var benchWeights = []kernels.DType{kernels.F16, kernels.NF4}

// benchShapes are (inputs, outputs) of the demo's and of phi-2's linears.
var benchShapes = [][2]int{{160, 480}, {160, 2048}, {2560, 2560}, {2560, 10240}}

func BenchmarkLinear(b *testing.B) {
	for name, cpu := range versions() {
		for _, d := range benchWeights {
			for _, s := range benchShapes {
				weight := operand(b, cpu, d, s[1], s[0])
				for _, T := range []int{1, 4, 8, 16, 64, 256} {
					b.Run(fmt.Sprintf("%s/%v/%dx%d/T%d", name, d, s[0], s[1], T), func(b *testing.B) {
						x, out := operand(b, cpu, kernels.F32, T, s[0]), operand(b, cpu, kernels.F32, T, s[1])
						for b.Loop() {
							cpu.Linear(out, x, weight, kernels.Tensor{})
						}
						rates(b, 2*T*weight.Len(), weight.Bytes())
					})
				}
				cpu.Free(weight)
			}
		}
	}
}

func BenchmarkLinearBackward(b *testing.B) {
	cpu := New()
	for _, d := range benchWeights {
		for _, s := range benchShapes {
			weight := operand(b, cpu, d, s[1], s[0])
			for _, T := range []int{64, 256} {
				b.Run(fmt.Sprintf("%v/%dx%d/T%d", d, s[0], s[1], T), func(b *testing.B) {
					dx, dout := operand(b, cpu, kernels.F32, T, s[0]), operand(b, cpu, kernels.F32, T, s[1])
					for b.Loop() {
						cpu.LinearBackward(dx, dout, weight)
					}
					rates(b, 2*T*weight.Len(), weight.Bytes())
				})
			}
			cpu.Free(weight)
		}
	}
}

// versions are backends with every vector path that this processor runs.
func versions() map[Path]*Backend {
	v := map[Path]*Backend{}
	for _, p := range Paths()[1:] {
		v[p] = New(On(p))
	}
	return v
}

// BenchmarkMatrixVector reads more weights than caches hold, as decoding does. of-read is its speed beside that of merely reading
// the same weights, by turns, so that what other programs take concerns both.
func BenchmarkMatrixVector(b *testing.B) {
	for _, d := range benchWeights {
		cpu := New()
		var weights []kernels.Tensor
		for range 8 {
			weights = append(weights, operand(b, cpu, d, 10240, 2560))
		}
		x, out := operand(b, cpu, kernels.F32, 1, 2560), operand(b, cpu, kernels.F32, 1, 10240)
		for name, v := range versions() {
			b.Run(d.String()+"/"+string(name), func(b *testing.B) {
				var reading, multiplying time.Duration
				for b.Loop() {
					started := time.Now()
					for _, w := range weights {
						words := kernels.HostTensor(kernels.F32, 1, len(w.Host)/4, w.Host).F32s()
						v.pool.each(len(words), flat, func(_ *worker, lo, hi int) { v.loops.largest(words[lo:hi]) })
					}
					read := time.Now()
					for _, w := range weights {
						v.Linear(out, x, w, kernels.Tensor{})
					}
					reading += read.Sub(started)
					multiplying += time.Since(read)
				}
				b.ReportMetric(float64(b.N*8*weights[0].Bytes())/multiplying.Seconds()/1e9, "GB/s")
				b.ReportMetric(reading.Seconds()/multiplying.Seconds(), "of-read")
			})
		}
		for _, w := range weights {
			cpu.Free(w)
		}
	}
}

// rates reports an operation's products and sums, and the weights that it reads, a second.
func rates(b *testing.B, flops, bytes int) {
	seconds := b.Elapsed().Seconds() / float64(b.N)
	b.ReportMetric(float64(flops)/seconds/1e9, "GFLOP/s")
	b.ReportMetric(float64(bytes)/seconds/1e9, "GB/s")
}

func BenchmarkGelu(b *testing.B) {
	cpu := New()
	x, out := operand(b, cpu, kernels.F32, 64, 10240), operand(b, cpu, kernels.F32, 64, 10240)
	b.Run("forward", func(b *testing.B) {
		for b.Loop() {
			cpu.Gelu(out, x)
		}
		elements(b, x.Len())
	})
	b.Run("backward", func(b *testing.B) {
		for b.Loop() {
			cpu.GeluBackward(out, out, x)
		}
		elements(b, x.Len())
	})
}

func BenchmarkDropout(b *testing.B) {
	cpu := New(Threads(1))
	x := operand(b, cpu, kernels.F32, 256, 2560)
	tokens, err := cpu.Alloc(kernels.I32, 256, 2)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		cpu.Dropout(x, x, tokens, 0.1, kernels.DropoutKey{Seed: 1})
	}
	elements(b, x.Len())
}

func BenchmarkQuantizeNF4(b *testing.B) {
	cpu := New(Threads(1))
	x := operand(b, cpu, kernels.F16, 2560, 2560)
	out := operand(b, cpu, kernels.NF4, 2560, 2560)
	b.Run("quantise", func(b *testing.B) {
		for b.Loop() {
			cpu.QuantizeNF4(out, x)
		}
		elements(b, x.Len())
	})
	b.Run("dequantise", func(b *testing.B) {
		for b.Loop() {
			cpu.DequantizeNF4(x, out)
		}
		elements(b, x.Len())
	})
}

func BenchmarkAttention(b *testing.B) {
	cpu := New()
	const T = 512
	h := kernels.Heads{Count: 32, KV: 32, Dim: 80}
	var x [7]kernels.Tensor
	for i := range x {
		x[i] = operand(b, cpu, kernels.F32, T, 32*80)
	}
	lse := operand(b, cpu, kernels.F32, T, 32)
	spans, err := cpu.Alloc(kernels.I32, T, 2)
	if err != nil {
		b.Fatal(err)
	}
	for t := range T {
		spans.I32s()[2*t+1] = int32(t + 1)
	}
	for name, v := range versions() {
		b.Run("forward/"+string(name), func(b *testing.B) {
			for b.Loop() {
				v.Attention(x[0], lse, x[1], x[2], x[3], spans, h)
			}
			rates(b, 2*T*T*2560, 0)
		})
		b.Run("backward/"+string(name), func(b *testing.B) {
			for b.Loop() {
				v.AttentionBackward(x[4], x[5], x[6], x[0], x[1], x[2], x[3], x[0], lse, spans, h)
			}
			rates(b, 5*T*T*2560, 0)
		})
	}
}

// elements reports the time of one element.
func elements(b *testing.B, n int) {
	b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/float64(n), "ns/element")
}

// BenchmarkSmall is the cost of an operation that has next to nothing to do.
func BenchmarkSmall(b *testing.B) {
	cpu := New()
	x := operand(b, cpu, kernels.F32, 1, 160)
	weight := operand(b, cpu, kernels.F16, 160, 160)
	b.Run("Add", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			cpu.Add(x, x, x)
		}
	})
	b.Run("Linear", func(b *testing.B) {
		b.ReportAllocs()
		out := operand(b, cpu, kernels.F32, 1, 160)
		for b.Loop() {
			cpu.Linear(out, x, weight, kernels.Tensor{})
		}
	})
}

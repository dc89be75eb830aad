package model_test

import (
	"testing"

	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/model/modeltest"
	"quartet/safetensors"
)

// elsewhere is a backend whose memory is its own, as a GPU's: it takes tensors and computes nothing.
type elsewhere struct {
	kernels.Backend
	t    *testing.T
	next uint64
	live map[uint64]int // bytes at an address
}

func (e *elsewhere) Import(x kernels.Tensor) (kernels.Tensor, error) {
	e.next += 1 << 32
	e.live[e.next] = x.Bytes()
	x.Host, x.Addr = nil, e.next
	return x, nil
}

func (e *elsewhere) Alloc(d kernels.DType, rows, cols int) (kernels.Tensor, error) {
	return e.Import(kernels.Tensor{DType: d, Rows: rows, Cols: cols})
}

func (e *elsewhere) Free(x kernels.Tensor) {
	if x.Addr == 0 {
		return
	}
	if _, there := e.live[x.Addr]; !there {
		e.t.Errorf("%#x is freed, but nothing is there", x.Addr)
	}
	delete(e.live, x.Addr)
	if x.Quant != nil {
		e.Free(x.Quant.Absmax)
		e.Free(x.Quant.NestedAbsmax)
	}
}

func (e *elsewhere) Sync() error { return nil }

func (e *elsewhere) bytes() (n int64) {
	for _, b := range e.live {
		n += int64(b)
	}
	return n
}

// TestShared requires what quantising leaves as it is to be on a device once, for as long as somebody uses it.
func TestShared(t *testing.T) {
	src := write(t, shareShape)
	four, _ := quantize(t, src, model.QuantizeOptions{DoubleQuant: true, ComputeDType: "float16"})
	other := rewritten(t, src, func(all map[string]safetensors.Tensor) { all["lm_head.weight"].Data[5] ^= 1 })
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}} {
		e := &elsewhere{Backend: cpu.New(), t: t, live: map[uint64]int{}}
		var all []*model.Weights
		for _, dir := range []string{src, four, other} {
			w, err := model.Load(e, dir, all...)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, w)
		}
		base, quantized, changed := all[0], all[1], all[2]
		if got := model.BytesOf(base, quantized, changed, base); got != e.bytes() {
			t.Errorf("%d bytes are told of %d", got, e.bytes())
		}
		if quantized.Embed.Addr != base.Embed.Addr || quantized.Head.Weight.Addr != base.Head.Weight.Addr || quantized.Layers[0].Linears[0].Bias.Addr != base.Layers[0].Linears[0].Bias.Addr {
			t.Error("the quantised model has tensors of its own that it need not have")
		}
		if changed.Embed.Addr != base.Embed.Addr || changed.Head.Weight.Addr == base.Head.Weight.Addr {
			t.Error("models share other tensors than those that are equal")
		}
		linears := int64(0)
		for _, l := range quantized.Layers {
			for _, x := range l.Linears {
				linears += int64(x.Weight.Bytes())
			}
		}
		if want := base.Bytes() + int64(base.Head.Weight.Bytes()) + linears; e.bytes() < want || e.bytes() > want+linears/4 { // and the scales
			t.Errorf("%d bytes are held, and %d are needed", e.bytes(), want)
		}
		for n, i := range order {
			if err := all[i].Close(); err != nil {
				t.Fatal(err)
			}
			var want int64
			if n == 1 {
				want = all[order[2]].Bytes()
			}
			if rest := e.bytes(); n > 0 && rest < want || n == 2 && rest != 0 || n == 1 && rest > want+linears/4 {
				t.Errorf("%d bytes are held after %d weights were closed, and %d are needed", rest, n+1, want)
			}
		}
	}
}

// TestNotSharedInFiles requires tensors that are mapped files to be each weights' own, so that they outlive the others.
func TestNotSharedInFiles(t *testing.T) {
	src := write(t, shareShape)
	b := cpu.New()
	first, err := model.Load(b, src)
	if err != nil {
		t.Fatal(err)
	}
	second, err := model.Load(b, src, first)
	if err != nil {
		t.Fatal(err)
	}
	if &first.Embed.Host[0] == &second.Embed.Host[0] {
		t.Error("two weights have one mapping")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	logits(t, &model.Model{Weights: second})
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

var shareShape = modeltest.Shape{Vocab: 300, Hidden: 64, Intermediate: 256, Layers: 2, Heads: 4, KVHeads: 4, Positions: 64, Rotary: 0.5, DType: safetensors.F16, Seed: 7}

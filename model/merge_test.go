package model_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/model/modeltest"
	"quartet/safetensors"
)

// adapterFolder saves a random adapter for the model in folder base.
func adapterFolder(t *testing.T, base string, targets ...string) string {
	t.Helper()
	c, err := model.ReadConfig(base)
	if err != nil {
		t.Fatal(err)
	}
	ac := model.AdapterConfig{BaseModel: "org/base", R: 3, Alpha: 4, Dropout: 0.1, Targets: targets}
	a, err := model.NewAdapter(cpu.New(), c, ac, 7, kernels.F16)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Free()
	r := rand.New(rand.NewPCG(3, 3))
	for _, m := range a.Modules {
		for i := range m.B.F32s() {
			m.B.F32s()[i] = float32(0.1 * r.NormFloat64())
		}
	}
	dir := t.TempDir()
	if err := a.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func loadAdapter(t *testing.T, base *model.Weights, dir string) *model.Adapter {
	t.Helper()
	a, err := model.LoadAdapter(base.Backend(), base.Config, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Free)
	return a
}

// sum is w + scale·B·A in float64, rounded to float32.
func sum(w []float32, m *model.LoRA) []float32 {
	a, b := m.A.F32s(), m.B.F32s()
	out := make([]float32, len(w))
	for i := range m.B.Rows {
		for j := range m.A.Cols {
			var delta float64
			for k := range m.A.Rows {
				delta += float64(b[i*m.B.Cols+k]) * float64(a[k*m.A.Cols+j])
			}
			out[i*m.A.Cols+j] = float32(float64(w[i*m.A.Cols+j]) + float64(m.Scale)*delta)
		}
	}
	return out
}

// linears are a model's linears with the output projection.
func linears(w *model.Weights, visit func(layer, l int, weight kernels.Tensor)) {
	for i, layer := range w.Layers {
		for l, linear := range layer.Linears {
			visit(i, l, linear.Weight)
		}
	}
	if !w.Config.Tied {
		visit(-1, model.LMHead, w.Head.Weight)
	}
}

// ulps is how far two floating numbers of a type lie apart, counted in numbers of the type.
func ulps(d kernels.DType, a, b []byte) int {
	size := d.Bytes(1)
	worst := 0
	for i := 0; i < len(a); i += size {
		n := [2]int{}
		for k, x := range [][]byte{a, b} {
			for j := size - 1; j >= 0; j-- {
				n[k] = n[k]<<8 | int(x[i+j])
			}
			if sign := 1 << (8*size - 1); n[k]&sign != 0 {
				n[k] = sign - n[k]
			}
		}
		worst = max(worst, n[0]-n[1], n[1]-n[0])
	}
	return worst
}

func TestMergedFolder(t *testing.T) {
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			src, dst := write(t, shape), t.TempDir()
			targets := []string{"v_proj", "fc2", "lm_head"}
			if shape.Tied {
				targets = targets[:2]
			}
			adapter := adapterFolder(t, src, targets...)
			if err := model.Convert(cpu.New(), src, adapter, dst, nil); err != nil {
				t.Fatal(err)
			}
			base := weights(t, src)
			b, a := base.Backend(), loadAdapter(t, base, adapter)
			was, is := tensors(t, src), tensors(t, dst)
			if len(was) != len(is) {
				t.Errorf("%d tensors became %d", len(was), len(is))
			}
			linears(base, func(layer, l int, w kernels.Tensor) {
				path := model.LinearPath(layer, l) + ".weight"
				m := a.Find(layer, l)
				if m == nil {
					return
				}
				want, err := b.Alloc(w.DType, w.Rows, w.Cols)
				if err != nil {
					t.Fatal(err)
				}
				exact := sum(wide(t, b, w), m)
				b.Copy(want, kernels.HostTensor(kernels.F32, w.Rows, w.Cols, kernels.AsBytes(exact)))
				limit := 1
				if w.DType == kernels.F32 { // here the sum itself is rounded often
					limit = 1 << 10
				}
				if far := ulps(w.DType, is[path].Data, want.Host); far > limit {
					t.Errorf("%s is off by %d units in the last place", path, far)
				}
				if bytes.Equal(is[path].Data, was[path].Data) {
					t.Errorf("%s has not changed", path)
				}
				delete(was, path)
			})
			for name, w := range was {
				if g := is[name]; g.DType != w.DType || !slices.Equal(g.Shape, w.Shape) || !bytes.Equal(g.Data, w.Data) {
					t.Errorf("%s is not adapted, and changed", name)
				}
			}
			for _, name := range []string{"config.json"} {
				x, _ := os.ReadFile(filepath.Join(src, name))
				y, err := os.ReadFile(filepath.Join(dst, name))
				if err != nil || !bytes.Equal(x, y) {
					t.Errorf("%s changed", name)
				}
			}
		})
	}
}

// TestMergeQuantizeEqualsMergeThenQuantize: not writing the merged model changes nothing.
func TestMergeQuantizeEqualsMergeThenQuantize(t *testing.T) {
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			src, merged, direct := write(t, shape), t.TempDir(), t.TempDir()
			targets := []string{"q_proj", "dense", "lm_head"}
			if shape.Tied {
				targets = targets[:2]
			}
			adapter := adapterFolder(t, src, targets...)
			if err := model.Convert(cpu.New(), src, adapter, merged, nil); err != nil {
				t.Fatal(err)
			}
			two, stats := quantize(t, merged, half)
			one, err := model.MergeQuantize(cpu.New(), src, adapter, direct, half, "fp16", nil)
			if err != nil {
				t.Fatal(err)
			}
			if one.QuantizeStats != stats {
				t.Errorf("errors %+v, in two steps %+v", one.QuantizeStats, stats)
			}
			for _, name := range []string{"model.safetensors", "config.json"} {
				a, _ := os.ReadFile(filepath.Join(two, name))
				b, err := os.ReadFile(filepath.Join(direct, name))
				if err != nil || !bytes.Equal(a, b) {
					t.Errorf("%s differs from that of merging and quantising in two steps", name)
				}
			}
		})
	}
}

// TestMergeIntoDequantized: adapted linears start from the quantised base, the others are the base's own codes; and both
// ways' errors are told whichever is taken.
func TestMergeIntoDequantized(t *testing.T) {
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			src, dst := write(t, shape), t.TempDir()
			adapter := adapterFolder(t, src, "k_proj", "fc1")
			stats, err := model.MergeQuantize(cpu.New(), src, adapter, dst, half, "dequantized", nil)
			if err != nil {
				t.Fatal(err)
			}
			other, err := model.MergeQuantize(cpu.New(), src, adapter, t.TempDir(), half, "fp16", nil)
			if err != nil {
				t.Fatal(err)
			}
			if stats.FP16Error != other.FP16Error || stats.DequantizedError != other.DequantizedError {
				t.Errorf("the errors are %+v, and when the other way is taken %+v", stats, other)
			}
			base, got := weights(t, src), weights(t, dst)
			b, a := base.Backend(), loadAdapter(t, base, adapter)
			var exact, viaFP16, viaBase []float32
			for i, layer := range base.Layers {
				for l, linear := range layer.Linears {
					w := linear.Weight
					have, quantised := wide(t, b, got.Layers[i].Linears[l].Weight), throughNF4(t, b, w, w.DType, true)
					m := a.Find(i, l)
					if m == nil {
						if !slices.Equal(have, quantised) {
							t.Errorf("layer %d %s is not adapted, and not the quantised base", i, model.LinearNames[l])
						}
						continue
					}
					ideal, merged := sum(wide(t, b, w), m), sum(quantised, m)
					want := throughNF4(t, b, kernels.HostTensor(kernels.F32, w.Rows, w.Cols, kernels.AsBytes(merged)), w.DType, true)
					if e := rms(have, want); e > 0.02 { // sums that round differently may fall to the neighbouring code
						t.Errorf("layer %d %s is off by %g", i, model.LinearNames[l], e)
					}
					rounded, err := b.Alloc(w.DType, w.Rows, w.Cols)
					if err != nil {
						t.Fatal(err)
					}
					b.Copy(rounded, kernels.HostTensor(kernels.F32, w.Rows, w.Cols, kernels.AsBytes(ideal)))
					exact = append(exact, ideal...)
					viaFP16 = append(viaFP16, throughNF4(t, b, rounded, w.DType, true)...)
					viaBase = append(viaBase, have...)
				}
			}
			for _, e := range []struct{ told, want float64 }{{stats.FP16Error, rms(viaFP16, exact)}, {stats.DequantizedError, rms(viaBase, exact)}} {
				if math.Abs(e.told-e.want) > 1e-3*e.want {
					t.Errorf("an error of %g is told as %g", e.want, e.told)
				}
			}
			if stats.DequantizedError <= stats.FP16Error {
				t.Errorf("quantising twice has an error of %g, once %g", stats.DequantizedError, stats.FP16Error)
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	src := write(t, modeltest.Shape{})
	huge := rewritten(t, src, func(all map[string]safetensors.Tensor) { copy(all[q0].Data, []byte{0xff, 0x7b}) }) // 65504
	adapter := adapterFolder(t, src, "q_proj")
	large := t.TempDir()
	c, err := model.ReadConfig(src)
	if err != nil {
		t.Fatal(err)
	}
	a, err := model.LoadAdapter(cpu.New(), c, adapter)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Free()
	for _, x := range []kernels.Tensor{a.Modules[0].A, a.Modules[0].B} {
		for i := range x.F32s() {
			x.F32s()[i] = 30
		}
	}
	if err := a.Save(large); err != nil {
		t.Fatal(err)
	}
	quantized, _ := quantize(t, src, half)
	dst := t.TempDir()
	const tooLarge = "a weight is not finite or too large for its type; check the base model's files and the adapter"
	for name, c := range map[string]struct {
		got  func() error
		want string
	}{
		"overflow": {func() error { return model.Convert(cpu.New(), huge, large, dst, nil) },
			fmt.Sprintf("convert %s: write %s: tensor %q: %s", huge, filepath.Join(dst, "model.safetensors"), q0, tooLarge)},
		"overflow before quantising": {func() error {
			_, err := model.MergeQuantize(cpu.New(), huge, large, dst, half, "fp16", nil)
			return err
		}, fmt.Sprintf("merge %s into %s: tensor %s: %s", large, huge, q0, tooLarge)},
		"unknown way": {func() error {
			_, err := model.MergeQuantize(cpu.New(), src, adapter, dst, half, "exact", nil)
			return err
		}, `merge into "exact"; it is "fp16" or "dequantized"`},
		"quantised base": {func() error {
			_, err := model.MergeQuantize(cpu.New(), quantized, adapter, dst, half, "fp16", nil)
			return err
		}, "convert " + quantized + ": it is quantised already; give the 16-bit model it was made from"},
		"no adapter": {func() error { return model.Convert(cpu.New(), src, src, dst, nil) },
			"load adapter " + src + ": adapter_config.json is missing; a PEFT folder holds it and adapter_model.safetensors"},
	} {
		if err := c.got(); err == nil || err.Error() != c.want {
			t.Errorf("%s: error\n%v, not\n%s", name, err, c.want)
		}
		if entries, _ := os.ReadDir(dst); len(entries) > 0 {
			t.Errorf("%s: left %v", name, entries)
		}
	}
}

// TestGoldenMergedFolder holds a merged folder against PEFT's: at most one in a thousand elements differs, by one unit
// in the last place.
func TestGoldenMergedFolder(t *testing.T) {
	want, dst := tensors(t, goldenFile(t, "phi", "merged")), t.TempDir()
	if err := model.Convert(cpu.New(), goldenFile(t, "phi", "base"), goldenFile(t, "phi", "lora"), dst, nil); err != nil {
		t.Fatal(err)
	}
	got := tensors(t, dst)
	if len(got) != len(want) {
		t.Errorf("%d tensors, not %d", len(got), len(want))
	}
	differ, all := 0, 0
	for name, w := range want {
		g := got[name]
		if g.DType != "F16" || w.DType != "F16" || !slices.Equal(g.Shape, w.Shape) {
			t.Errorf("%s is %s%v, not %s%v", name, g.DType, g.Shape, w.DType, w.Shape)
			continue
		}
		if far := ulps(kernels.F16, g.Data, w.Data); far > 1 {
			t.Errorf("%s is off by %d units in the last place", name, far)
		}
		for i := 0; i < len(w.Data); i += 2 {
			all++
			if !bytes.Equal(g.Data[i:i+2], w.Data[i:i+2]) {
				differ++
			}
		}
	}
	if share := float64(differ) / float64(all); share > 1e-3 {
		t.Errorf("%g of the elements differ", share)
	}
	t.Logf("%d of %d elements differ", differ, all)
}

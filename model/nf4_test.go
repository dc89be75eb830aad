package model_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/model/modeltest"
	"quartet/safetensors"
)

var half = model.QuantizeOptions{DoubleQuant: true, ComputeDType: "float16"}

// write makes a random model's folder.
func write(t *testing.T, s modeltest.Shape) string {
	t.Helper()
	dir := t.TempDir()
	if err := modeltest.Write(dir, s); err != nil {
		t.Fatal(err)
	}
	return dir
}

func quantize(t *testing.T, src string, o model.QuantizeOptions) (string, model.QuantizeStats) {
	t.Helper()
	dst := t.TempDir()
	s, err := model.Quantize(cpu.New(), src, dst, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	return dst, s
}

func weights(t *testing.T, dir string) *model.Weights {
	t.Helper()
	w, err := model.Load(cpu.New(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// wide is a matrix's elements in float32.
func wide(t *testing.T, b kernels.Backend, x kernels.Tensor) []float32 {
	t.Helper()
	out, err := b.Alloc(kernels.F32, x.Rows, x.Cols)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free(out)
	if x.DType == kernels.NF4 {
		b.DequantizeNF4(out, x)
	} else {
		b.Copy(out, x)
	}
	return slices.Clone(out.F32s())
}

// throughNF4 is a matrix's elements after quantising.
func throughNF4(t *testing.T, b kernels.Backend, x kernels.Tensor, round kernels.DType, double bool) []float32 {
	t.Helper()
	q, err := model.AllocNF4(b, x.Rows, x.Cols, 64, round, double)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free(q)
	b.QuantizeNF4(q, x)
	return wide(t, b, q)
}

// rms is the relative root mean square error of got.
func rms(got, want []float32) float64 {
	var wrong, size float64
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		wrong, size = wrong+d*d, size+float64(w)*float64(w)
	}
	return math.Sqrt(wrong / size)
}

// TestQuantisedFolder reads back what was written, for shapes whose blocks cross rows and whose counts are odd.
func TestQuantisedFolder(t *testing.T) {
	for name, shape := range shapes {
		for _, double := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/double=%t", name, double), func(t *testing.T) {
				src := write(t, shape)
				dst, stats := quantize(t, src, model.QuantizeOptions{DoubleQuant: double, ComputeDType: "bfloat16"})
				base, got := weights(t, src), weights(t, dst)
				b := base.Backend()
				var all, plain []float32
				var worst float64
				for i, layer := range base.Layers {
					for l, linear := range layer.Linears {
						q := got.Layers[i].Linears[l].Weight
						if q.DType != kernels.NF4 || q.Quant.Round != linear.Weight.DType || (q.Quant.NestedBlockSize > 0) != double {
							t.Fatalf("layer %d %s is %v, %+v", i, model.LinearNames[l], q, q.Quant)
						}
						have, want := wide(t, b, q), throughNF4(t, b, linear.Weight, linear.Weight.DType, double)
						if !slices.Equal(have, want) {
							t.Errorf("layer %d %s reads back as other weights", i, model.LinearNames[l])
						}
						if !bytes.Equal(got.Layers[i].Linears[l].Bias.Host, linear.Bias.Host) {
							t.Errorf("layer %d %s has another bias", i, model.LinearNames[l])
						}
						original := wide(t, b, linear.Weight)
						all, plain = append(all, have...), append(plain, original...)
						worst = max(worst, rms(have, original))
					}
				}
				for _, same := range [][2]kernels.Tensor{{base.Embed, got.Embed}, {base.Head.Weight, got.Head.Weight}, {base.NormBias, got.NormBias}} {
					if same[0].DType != same[1].DType || !bytes.Equal(same[0].Host, same[1].Host) {
						t.Errorf("%v became %v, or other values", same[0], same[1])
					}
				}
				if want := rms(all, plain); math.Abs(stats.RMSError-want) > 1e-5*want || math.Abs(stats.WorstRMS-worst) > 1e-5*worst {
					t.Errorf("errors are %g and %g, told as %g and %g", want, worst, stats.RMSError, stats.WorstRMS)
				}
				if want := len(base.Layers) * model.LinearsPerLayer; stats.Matrices != want {
					t.Errorf("%d matrices told, %d quantised", stats.Matrices, want)
				}
				f, err := safetensors.Open(filepath.Join(dst, "model.safetensors"))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				var size int64
				for _, t := range f.Tensors() {
					size += int64(len(t.Data))
				}
				if size != stats.Bytes {
					t.Errorf("%d bytes of tensors told, %d written", stats.Bytes, size)
				}
			})
		}
	}
}

// TestFilesAlongAndProgress: config.json keeps its other keys, the tokenizer comes along, progress rises to its total.
func TestFilesAlongAndProgress(t *testing.T) {
	src, dst := write(t, modeltest.Shape{}), t.TempDir()
	for _, name := range []string{"tokenizer.json", "merges.txt", "generation_config.json"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte("the "+name), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(src, "notes.txt"), []byte("not part of a model"), 0o666)
	var last, total int64
	_, err := model.Quantize(cpu.New(), src, dst, half, func(done, all int64) error {
		if done < last || all != total && total != 0 {
			t.Errorf("progress went from %d of %d to %d of %d", last, total, done, all)
		}
		last, total = done, all
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if last != total || total == 0 {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	stop := errors.New("stop")
	if _, err := model.Quantize(cpu.New(), src, t.TempDir(), half, func(int64, int64) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of progress does not end the work: %v", err)
	}
	entries, err := os.ReadDir(dst)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"config.json", "generation_config.json", "merges.txt", "model.safetensors", "tokenizer.json"}; !slices.Equal(names, want) {
		t.Errorf("the folder holds %q, not %q", names, want)
	}
	var was, is map[string]any
	for path, into := range map[string]*map[string]any{src: &was, dst: &is} {
		data, err := os.ReadFile(filepath.Join(path, "config.json"))
		if err != nil || json.Unmarshal(data, into) != nil {
			t.Fatal(err)
		}
	}
	if _, ok := is["quantization_config"]; !ok || len(is) != len(was)+1 {
		t.Errorf("config.json went from %v to %v", was, is)
	}
}

func goldenFile(t *testing.T, path ...string) string {
	t.Helper()
	dir := os.Getenv("QUARTET_GOLDEN")
	foreign := dir != ""
	if !foreign {
		dir = "../testdata/golden"
	}
	full := filepath.Join(append([]string{dir}, path...)...)
	if _, err := os.Stat(full); err != nil && foreign {
		t.Skipf("MISSING: %s", full)
	} else if err != nil {
		t.Fatal(err)
	}
	return full
}

// TestGoldenFolder4bit holds a written 4-bit folder against transformers' and bitsandbytes': all bytes the same but for
// the last bits of each mean of the scales and of what is scaled by it.
func TestGoldenFolder4bit(t *testing.T) {
	want := goldenFile(t, "phi", "nf4")
	got, _ := quantize(t, goldenFile(t, "phi", "base"), half)
	for _, name := range []string{"config.json", "generation_config.json"} {
		g, _ := os.ReadFile(filepath.Join(got, name))
		w, err := os.ReadFile(filepath.Join(want, name))
		if err != nil || !bytes.Equal(g, w) {
			t.Errorf("%s is written\n%s\nnot\n%s", name, g, w)
		}
	}
	ours, theirs := tensors(t, got), tensors(t, want)
	if len(ours) != len(theirs) {
		t.Errorf("%d tensors, not %d", len(ours), len(theirs))
	}
	for name, w := range theirs {
		g := ours[name]
		if g.DType != w.DType {
			t.Errorf("%s is %s%v, not %s%v", name, g.DType, g.Shape, w.DType, w.Shape)
			continue
		}
		if strings.HasSuffix(name, "bitsandbytes__nf4") {
			before, offset, _ := strings.Cut(string(g.Data), `"nested_offset": `)
			wantBefore, wantOffset, _ := strings.Cut(string(w.Data), `"nested_offset": `)
			var a, b float64
			fmt.Sscanf(offset, "%g}", &a)
			fmt.Sscanf(wantOffset, "%g}", &b)
			if before != wantBefore || b == 0 || math.Abs(a-b) > 1.2e-7*b {
				t.Errorf("%s is %s, not %s", name, g.Data, w.Data)
			}
			continue
		}
		if !slices.Equal(g.Shape, w.Shape) {
			t.Errorf("%s has shape %v, not %v", name, g.Shape, w.Shape)
		}
		if !strings.HasSuffix(name, ".nested_absmax") && !bytes.Equal(g.Data, w.Data) {
			t.Errorf("%s holds other bytes", name)
		}
	}
}

// tensors are those of a folder of one file, copied.
func tensors(t *testing.T, dir string) map[string]safetensors.Tensor {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]safetensors.Tensor{}
	for _, x := range f.Tensors() {
		x.Data = bytes.Clone(x.Data)
		all[x.Name] = x
	}
	return all
}

// rewritten is a copy of a folder with its tensors changed.
func rewritten(t *testing.T, dir string, change func(map[string]safetensors.Tensor)) string {
	t.Helper()
	all, out := tensors(t, dir), t.TempDir()
	change(all)
	var entries []safetensors.Entry
	for name, x := range all {
		entries = append(entries, safetensors.Entry{Name: name, DType: x.DType, Shape: x.Shape, Data: safetensors.Bytes(x.Data)})
	}
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "config.json"), config, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := safetensors.WriteFolder(out, entries, 1<<40); err != nil {
		t.Fatal(err)
	}
	return out
}

// q0 is a quantised weight of 42 × 42 in the folder that the tests below change.
const q0 = "model.layers.0.self_attn.q_proj.weight"

func TestCodesUnderAnotherType(t *testing.T) {
	quantized, _ := quantize(t, write(t, modeltest.Shape{}), half)
	stored := rewritten(t, quantized, func(all map[string]safetensors.Tensor) {
		x := all[q0]
		x.DType, x.Shape = "BF16", []int{x.Shape[0] / 2, 1}
		all[q0] = x
	})
	a, b := weights(t, quantized), weights(t, stored)
	if !bytes.Equal(a.Layers[0].Linears[model.QProj].Weight.Host, b.Layers[0].Linears[model.QProj].Weight.Host) {
		t.Error("codes stored as bfloat16 read as others")
	}
}

// TestLinearsLeftIn16Bits: bitsandbytes can be told to skip modules; these have no state.
func TestLinearsLeftIn16Bits(t *testing.T) {
	src := write(t, modeltest.Shape{})
	quantized, _ := quantize(t, src, half)
	plain := tensors(t, src)[q0]
	mixed := rewritten(t, quantized, func(all map[string]safetensors.Tensor) {
		for name := range all {
			if strings.HasPrefix(name, q0) {
				delete(all, name)
			}
		}
		all[q0] = plain
	})
	if w := weights(t, mixed).Layers[0].Linears[model.QProj].Weight; w.DType != kernels.F16 || !bytes.Equal(w.Host, plain.Data) {
		t.Errorf("a linear left in 16 bits reads as %v", w)
	}
}

func TestBad4bitFoldersAreRefused(t *testing.T) {
	quantized, _ := quantize(t, write(t, modeltest.Shape{}), half)
	state := q0 + ".quant_state.bitsandbytes__nf4"
	type all = map[string]safetensors.Tensor
	cut := func(name string, n int) func(all) {
		return func(a all) {
			x := a[name]
			x.Data = x.Data[:len(x.Data)-n*x.DType.Size()]
			x.Shape = []int{len(x.Data) / x.DType.Size()}
			a[name] = x
		}
	}
	for name, c := range map[string]struct {
		change func(all)
		err    string
	}{
		"no state":         {func(a all) { delete(a, state) }, "tensor " + q0 + " has dtype U8, not F16, BF16 or F32"},
		"two states":       {func(a all) { a[state+"2"] = a[state] }, `tensor ` + q0 + `: it has 2 states, "` + state + `" and "` + state + `2"; one is allowed`},
		"fp4":              {func(a all) { a[q0+".quant_state.bitsandbytes__fp4"] = a[state]; delete(a, state) }, "tensor " + q0 + `: "bitsandbytes__fp4" is not supported, only bitsandbytes__nf4; quantise the base again`},
		"short codes":      {cut(q0, 1), "tensor " + q0 + ": 881 bytes of codes for 1764 weights, not 882"},
		"no codes":         {func(a all) { delete(a, q0) }, "tensor " + q0 + ": read DIR: tensor \"" + q0 + "\" is missing; check that the folder holds the model its config.json describes"},
		"short absmax":     {cut(q0+".absmax", 1), "tensor " + q0 + ": absmax is U8[27], not U8[28]"},
		"no nested absmax": {cut(q0+".nested_absmax", 1), "tensor " + q0 + ": nested_absmax is F32[0], not F32[1]"},
		"short map":        {cut(q0+".quant_map", 1), "tensor " + q0 + ": quant_map is F32[15], not F32[16]"},
		"other map":        {func(a all) { a[q0+".quant_map"].Data[3] = 0 }, "tensor " + q0 + ": quant_map[0] is 1.1754944e-38, not the standard -1; quantise the base again"},
		"other nested map": {func(a all) { a[q0+".nested_quant_map"].Data[4*255+3] = 0xbf }, "tensor " + q0 + ": nested_quant_map[255] is -1, not the standard 1; quantise the base again"},
		"plain absmax for a nested state": {func(a all) {
			x := a[q0+".absmax"]
			x.DType, x.Data = "F32", make([]byte, 4*len(x.Data))
			a[q0+".absmax"] = x
		}, "tensor " + q0 + ": absmax is F32[28], not U8[28]"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := rewritten(t, quantized, c.change)
			w, err := model.Load(cpu.New(), dir)
			if err == nil {
				w.Close()
				t.Fatal("loaded")
			}
			got := strings.ReplaceAll(strings.TrimPrefix(err.Error(), "load "+dir+": "), dir, "DIR")
			if got != c.err {
				t.Errorf("error\n%s, not\n%s", got, c.err)
			}
		})
	}
}

func TestQuantizeRefuses(t *testing.T) {
	src := write(t, modeltest.Shape{})
	quantized, _ := quantize(t, src, half)
	missing := rewritten(t, src, func(all map[string]safetensors.Tensor) { delete(all, q0) })
	poisoned := rewritten(t, src, func(all map[string]safetensors.Tensor) {
		copy(all[q0].Data[100:], []byte{1, 0x7e})
	})
	for name, c := range map[string]struct {
		src string
		o   model.QuantizeOptions
		err string
	}{
		"quantised":   {quantized, half, "convert " + quantized + ": it is quantised already; give the 16-bit model it was made from"},
		"missing":     {missing, half, "read " + missing + `: tensor "` + q0 + `" is missing; check that the folder holds the model its config.json describes`},
		"NaN":         {poisoned, half, "quantize " + poisoned + ": tensor " + q0 + ": a weight is not finite or too large for its type; check the base model's files and the adapter"},
		"no compute":  {src, model.QuantizeOptions{}, "quantize " + src + `: compute dtype "" is not float16, bfloat16 or float32`},
		"bad compute": {src, model.QuantizeOptions{ComputeDType: "fp8"}, "quantize " + src + `: compute dtype "fp8" is not float16, bfloat16 or float32`},
	} {
		dst := t.TempDir()
		if _, err := model.Quantize(cpu.New(), c.src, dst, c.o, nil); err == nil || err.Error() != c.err {
			t.Errorf("%s: error %v, not %s", name, err, c.err)
		}
		if entries, _ := os.ReadDir(dst); len(entries) > 0 {
			t.Errorf("%s: left %v", name, entries)
		}
	}
}

// ledger counts what is reserved and not yet freed, and can run out of memory at a given request.
type ledger struct {
	kernels.Backend
	held     map[*byte]int
	live     int
	peak     int
	requests int
	failAt   int
}

func newLedger(failAt int) *ledger {
	return &ledger{Backend: cpu.New(), held: map[*byte]int{}, failAt: failAt}
}

func (l *ledger) Alloc(d kernels.DType, rows, cols int) (kernels.Tensor, error) {
	if l.requests++; l.requests == l.failAt {
		return kernels.Tensor{}, fmt.Errorf("no memory for request %d", l.requests)
	}
	t, err := l.Backend.Alloc(d, rows, cols)
	if err == nil && t.Len() > 0 {
		l.held[&t.Host[0]] = len(t.Host)
		l.live += len(t.Host)
		l.peak = max(l.peak, l.live)
	}
	return t, err
}

func (l *ledger) Free(t kernels.Tensor) {
	if len(t.Host) > 0 {
		l.live -= l.held[&t.Host[0]]
		delete(l.held, &t.Host[0])
	}
	l.Backend.Free(t)
}

// TestOneMatrixAtATime: the most that is held at once is what the largest matrix needs, however many layers there are.
func TestOneMatrixAtATime(t *testing.T) {
	src := write(t, modeltest.Shape{Layers: 9})
	adapter := adapterFolder(t, src, "fc1", "fc2")
	parameters := 4 * 3 * (77 + 42) * 2 * 9
	for name, c := range map[string]struct {
		limit   int // bytes
		convert func(b kernels.Backend, dst string) error
	}{
		"quantize": {9 * 42 * 77, func(b kernels.Backend, dst string) error {
			_, err := model.Quantize(b, src, dst, half, nil)
			return err
		}},
		"merge": {7*42*77 + parameters, func(b kernels.Backend, dst string) error { return model.Convert(b, src, adapter, dst, nil) }},
		"merge and quantize": {11*42*77 + parameters, func(b kernels.Backend, dst string) error {
			_, err := model.MergeQuantize(b, src, adapter, dst, half, "fp16", nil)
			return err
		}},
	} {
		l := newLedger(0)
		if err := c.convert(l, t.TempDir()); err != nil {
			t.Fatal(err)
		}
		if l.peak > c.limit {
			t.Errorf("%s held %d bytes at once, more than %d", name, l.peak, c.limit)
		}
		if l.live != 0 {
			t.Errorf("%s never freed %d bytes", name, l.live)
		}
	}
}

// TestRunningOutOfMemoryKeepsNone lets each request for memory fail in turn.
func TestRunningOutOfMemoryKeepsNone(t *testing.T) {
	base := write(t, modeltest.Shape{Layers: 1})
	adapter := adapterFolder(t, base, "q_proj", "lm_head")
	for name, convert := range map[string]func(b kernels.Backend, dst string) error{
		"quantize": func(b kernels.Backend, dst string) error {
			_, err := model.Quantize(b, base, dst, half, nil)
			return err
		},
		"merge": func(b kernels.Backend, dst string) error { return model.Convert(b, base, adapter, dst, nil) },
		"merge and quantize": func(b kernels.Backend, dst string) error {
			_, err := model.MergeQuantize(b, base, adapter, dst, half, "dequantized", nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for at := 1; ; at++ {
				l, dst := newLedger(at), t.TempDir()
				err := convert(l, dst)
				if l.live != 0 {
					t.Fatalf("%d bytes were never freed when request %d failed", l.live, at)
				}
				if l.requests < at {
					if err != nil || at < 5 {
						t.Errorf("%d requests: %v", l.requests, err)
					}
					return
				}
				if entries, _ := os.ReadDir(dst); err == nil || len(entries) > 0 {
					t.Fatalf("request %d failed, but the error is %v and the folder holds %v", at, err, entries)
				}
			}
		})
	}
}

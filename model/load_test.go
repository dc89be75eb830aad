package model_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/model/modeltest"
	"quartet/safetensors"
)

// logits are a model's logits at the end of each of some rows.
func logits(t *testing.T, m *model.Model) [][]float32 {
	t.Helper()
	b := rows(m)
	p, err := m.NewPass(len(b.IDs), model.PassOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var all [][]float32
	if err := p.Logits(b, []int32{0, 6, 7, int32(len(b.IDs) - 1)}, func(_ int, l []float32) { all = append(all, slices.Clone(l)) }); err != nil {
		t.Fatal(err)
	}
	return all
}

// apart is the largest difference of two models' logits.
func apart(a, b [][]float32) float64 {
	var most float64
	for i := range a {
		for j := range a[i] {
			most = max(most, math.Abs(float64(a[i][j])-float64(b[i][j])))
		}
	}
	return most
}

// inShards is a copy of a folder in shards of at most 4000 bytes.
func inShards(t *testing.T, dir string) string {
	t.Helper()
	var entries []safetensors.Entry
	for name, x := range tensors(t, dir) {
		entries = append(entries, safetensors.Entry{Name: name, DType: x.DType, Shape: x.Shape, Data: safetensors.Bytes(x.Data)})
	}
	out := t.TempDir()
	copyFile(t, dir, out, "config.json")
	if err := safetensors.WriteFolder(out, entries, 4000); err != nil {
		t.Fatal(err)
	}
	if shards, _ := filepath.Glob(filepath.Join(out, "model-*.safetensors")); len(shards) < 3 {
		t.Fatalf("%d shards", len(shards))
	}
	return out
}

func copyFile(t *testing.T, from, to, name string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(from, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, name), data, 0o666); err != nil {
		t.Fatal(err)
	}
}

// shifted is a copy of a folder whose tensors lie at odd addresses, as the format allows.
func shifted(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	end := 8 + binary.LittleEndian.Uint64(data)
	moved := slices.Concat(binary.LittleEndian.AppendUint64(nil, end-8+1), data[8:end], []byte{' '}, data[end:])
	out := t.TempDir()
	copyFile(t, dir, out, "config.json")
	if err := os.WriteFile(filepath.Join(out, "model.safetensors"), moved, 0o666); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestShardsAndUnalignedFiles: neither changes what a model computes, nor what is made of it.
func TestShardsAndUnalignedFiles(t *testing.T) {
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			src := write(t, shape)
			quantized, stats := quantize(t, src, half)
			adapter := adapterFolder(t, src, "v_proj", "fc1")
			merged := t.TempDir()
			if err := model.Convert(cpu.New(), src, adapter, merged, nil); err != nil {
				t.Fatal(err)
			}
			want, want4 := logits(t, &model.Model{Weights: weights(t, src)}), logits(t, &model.Model{Weights: weights(t, quantized)})
			copies := []string{shifted(t, src)}
			if info, err := os.Stat(filepath.Join(src, "model.safetensors")); err == nil && info.Size() > 20_000 {
				copies = append(copies, inShards(t, src))
				if got := logits(t, &model.Model{Weights: weights(t, inShards(t, quantized))}); apart(got, want4) != 0 {
					t.Error("a 4-bit model in shards computes otherwise")
				}
			}
			if got := logits(t, &model.Model{Weights: weights(t, shifted(t, quantized))}); apart(got, want4) != 0 {
				t.Error("a 4-bit model at odd addresses computes otherwise")
			}
			for _, dir := range copies {
				if got := logits(t, &model.Model{Weights: weights(t, dir)}); apart(got, want) != 0 {
					t.Errorf("%s computes otherwise", dir)
				}
				again, told := quantize(t, dir, half)
				if told != stats {
					t.Errorf("figures %+v, not %+v", told, stats)
				}
				twice := t.TempDir()
				if err := model.Convert(cpu.New(), dir, adapter, twice, nil); err != nil {
					t.Fatal(err)
				}
				for got, want := range map[string]string{again: quantized, twice: merged} {
					a, _ := os.ReadFile(filepath.Join(want, "model.safetensors"))
					b, err := os.ReadFile(filepath.Join(got, "model.safetensors"))
					if err != nil || !bytes.Equal(a, b) {
						t.Errorf("what is made of %s differs: %v", dir, err)
					}
				}
			}
		})
	}
}

// TestQuantisedModelComputesWithItsDecodedWeights decodes the written folder by the format's own rules and holds the
// 4-bit model against a 32-bit one of these weights.
func TestQuantisedModelComputesWithItsDecodedWeights(t *testing.T) {
	for name, shape := range shapes {
		for _, double := range []bool{true, false} {
			src := write(t, shape)
			quantized, _ := quantize(t, src, model.QuantizeOptions{DoubleQuant: double, ComputeDType: "float16"})
			c, err := model.ReadConfig(src)
			if err != nil {
				t.Fatal(err)
			}
			all := tensors(t, quantized)
			decoded := rewritten(t, src, func(plain map[string]safetensors.Tensor) {
				for i := range c.Layers {
					for l := range model.LinearsPerLayer {
						path := model.LinearPath(i, l) + ".weight"
						x := plain[path]
						plain[path] = safetensors.Tensor{Name: path, DType: "F32", Shape: x.Shape, Data: kernels.AsBytes(decode(t, all, path, x.DType))}
					}
				}
			})
			got, want := logits(t, &model.Model{Weights: weights(t, quantized)}), logits(t, &model.Model{Weights: weights(t, decoded)})
			if d := apart(got, want); d > 2e-5 {
				t.Errorf("%s, double=%t: the logits are %g apart", name, double, d)
			}
			if d := apart(got, logits(t, &model.Model{Weights: weights(t, src)})); d < 1e-3 {
				t.Errorf("%s: quantising moved the logits by %g only", name, d)
			}
		}
	}
}

// decode is a weight of a written 4-bit folder: code times absmax, rounded once to the type it had.
func decode(t *testing.T, all map[string]safetensors.Tensor, path string, round safetensors.DType) []float32 {
	t.Helper()
	float := func(data []byte, i int) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:])) }
	var state struct {
		Shape  []int
		Offset *float64 `json:"nested_offset"`
	}
	if err := json.Unmarshal(all[path+".quant_state.bitsandbytes__nf4"].Data, &state); err != nil {
		t.Fatal(err)
	}
	codes, scales := all[path].Data, all[path+".absmax"].Data
	values := make([]float32, state.Shape[0]*state.Shape[1])
	for i := range values {
		code := codes[i/2] >> 4
		if i%2 == 1 {
			code = codes[i/2] & 15
		}
		block := i / 64
		var absmax float32
		if state.Offset == nil {
			absmax = float(scales, block)
		} else {
			product := float(all[path+".nested_quant_map"].Data, int(scales[block])) * float(all[path+".nested_absmax"].Data, block/256)
			absmax = float32(product) + float32(*state.Offset)
		}
		values[i] = float(all[path+".quant_map"].Data, int(code)) * absmax
		switch round {
		case "F16":
			values[i] = kernels.F16ToF32(kernels.F32ToF16(values[i]))
		case "BF16":
			values[i] = kernels.BF16ToF32(kernels.F32ToBF16(values[i]))
		}
	}
	return values
}

// TestMergedModelComputesAsTheAdapterDoes: the two differ by the rounding of the merged weights.
func TestMergedModelComputesAsTheAdapterDoes(t *testing.T) {
	for name, shape := range shapes {
		targets := []string{"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2", "lm_head"}
		if shape.Tied {
			targets = targets[:model.LinearsPerLayer]
		}
		limit := map[safetensors.DType]float64{"": 2e-2, "F16": 2e-2, "BF16": 1e-1, "F32": 1e-4}[shape.DType]
		src, merged := write(t, shape), t.TempDir()
		adapter := adapterFolder(t, src, targets...)
		if err := model.Convert(cpu.New(), src, adapter, merged, nil); err != nil {
			t.Fatal(err)
		}
		base := weights(t, src)
		want := logits(t, &model.Model{Weights: base, Adapter: loadAdapter(t, base, adapter)})
		if d := apart(logits(t, &model.Model{Weights: weights(t, merged)}), want); d > limit {
			t.Errorf("%s: merging moved the logits by %g", name, d)
		}
		if d := apart(logits(t, &model.Model{Weights: base}), want); d < 4*limit {
			t.Errorf("%s: the adapter moves the logits by %g only", name, d)
		}
	}
}

func TestBadModelFoldersAreRefused(t *testing.T) {
	src := write(t, modeltest.Shape{})
	const norm = "model.final_layernorm.weight"
	type all = map[string]safetensors.Tensor
	reshape := func(name string, shape ...int) func(all) {
		return func(a all) {
			x := a[name]
			x.Shape = shape
			a[name] = x
		}
	}
	for name, c := range map[string]struct {
		change func(all)
		err    string
	}{
		"no embedding":  {func(a all) { delete(a, "model.embed_tokens.weight") }, `read DIR: tensor "model.embed_tokens.weight" is missing; check that the folder holds the model its config.json describes`},
		"no bias":       {func(a all) { delete(a, "model.layers.1.mlp.fc2.bias") }, `read DIR: tensor "model.layers.1.mlp.fc2.bias" is missing; check that the folder holds the model its config.json describes`},
		"no head":       {func(a all) { delete(a, "lm_head.weight") }, `read DIR: tensor "lm_head.weight" is missing; check that the folder holds the model its config.json describes`},
		"turned":        {reshape("model.layers.0.mlp.fc1.weight", 42, 77), "tensor model.layers.0.mlp.fc1.weight has shape [42 77], but config.json asks for [77 42]"},
		"flat":          {reshape(q0, 42*42), "tensor " + q0 + " has shape [1764], but config.json asks for [42 42]"},
		"deep":          {reshape(norm, 1, 1, 42), "tensor " + norm + " has shape [1 1 42], but config.json asks for [1 42]"},
		"integers":      {func(a all) { x := a[q0]; x.DType = "I16"; a[q0] = x }, "tensor " + q0 + " has dtype I16, not F16, BF16 or F32"},
		"empty":         {func(a all) { a[norm] = safetensors.Tensor{DType: "F16", Shape: []int{0}} }, "tensor " + norm + " has shape [0], but config.json asks for [1 42]"},
		"scalar":        {func(a all) { a[norm] = safetensors.Tensor{DType: "F16", Shape: []int{}, Data: []byte{0, 0}} }, "tensor " + norm + " has shape [], but config.json asks for [1 42]"},
		"old layout":    {func(a all) { a["transformer.h.0.mixer.Wqkv.weight"] = a[q0] }, `tensor "transformer.h.0.mixer.Wqkv.weight" belongs to the layout of 2023; take a revision of 2024 or later`},
		"control codes": {func(a all) { a["layers.\n\x1b"] = a[q0] }, `tensor "layers.\n\x1b" belongs to the layout of 2023; take a revision of 2024 or later`},
	} {
		dir := rewritten(t, src, c.change)
		w, err := model.Load(cpu.New(), dir)
		if err == nil {
			w.Close()
			t.Errorf("%s: loaded", name)
			continue
		}
		if got := strings.ReplaceAll(strings.TrimPrefix(err.Error(), "load "+dir+": "), dir, "DIR"); got != c.err {
			t.Errorf("%s: error\n%s, not\n%s", name, got, c.err)
		}
	}
}

// settings is a copy of a folder with its config.json changed, and generation_config.json beside it unless that is empty.
func settings(t *testing.T, dir string, change map[string]any, generation string) string {
	t.Helper()
	out := t.TempDir()
	copyFile(t, dir, out, "model.safetensors")
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	for key, value := range change {
		c[key] = value
	}
	if data, err = json.Marshal(c); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "config.json"), data, 0o666); err != nil {
		t.Fatal(err)
	}
	if generation != "" {
		if err := os.WriteFile(filepath.Join(out, "generation_config.json"), []byte(generation), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestEndOfTextOfTheGenerationSettings(t *testing.T) {
	src := write(t, modeltest.Shape{})
	none := map[string]any{"eos_token_id": nil}
	for text, want := range map[string]int32{"": -1, `{"eos_token_id": 7}`: 7, `{"eos_token_id": [9, 7]}`: 9, `{"eos_token_id": null}`: -1, `{`: -1} {
		if c, err := model.ReadConfig(settings(t, src, none, text)); err != nil || c.EOS != want {
			t.Errorf("%s: end-of-text is %d, not %d: %v", text, c.EOS, want, err)
		}
	}
	if c, err := model.ReadConfig(settings(t, src, nil, `{"eos_token_id": 7}`)); err != nil || c.EOS != 0 {
		t.Errorf("config.json's end-of-text 0 gives way to %d: %v", c.EOS, err)
	}
	dir := settings(t, src, none, `{"eos_token_id": 61}`)
	want := "read " + filepath.Join(dir, "generation_config.json") + ": token id 61 is outside the vocabulary of 61"
	if _, err := model.ReadConfig(dir); err == nil || err.Error() != want {
		t.Errorf("error %v, not %s", err, want)
	}
}

// TestSettingsClaimNoMemory: what a small folder claims to hold is held against the folder before it is reserved.
func TestSettingsClaimNoMemory(t *testing.T) {
	src := write(t, modeltest.Shape{})
	quantized, _ := quantize(t, src, half)
	adapter := adapterFolder(t, src, "q_proj")
	huge := map[string]any{"vocab_size": 1 << 22, "hidden_size": 1 << 16, "intermediate_size": 1 << 18, "num_hidden_layers": 1 << 10,
		"num_attention_heads": 1 << 12, "num_key_value_heads": 1 << 12, "max_position_embeddings": 1 << 20, "partial_rotary_factor": 0.5}
	layers := map[string]any{"num_hidden_layers": 1 << 10}
	long := settings(t, src, map[string]any{"model_type": strings.Repeat("x", 1<<19)}, "")
	fat := settings(t, src, map[string]any{"x": strings.Repeat("x", 1<<20)}, "")
	folder := func(change func(all map[string]any)) string {
		out := t.TempDir()
		copyFile(t, adapter, out, "adapter_model.safetensors")
		data, _ := os.ReadFile(filepath.Join(adapter, "adapter_config.json"))
		var c map[string]any
		if err := json.Unmarshal(data, &c); err != nil {
			t.Fatal(err)
		}
		change(c)
		data, _ = json.Marshal(c)
		if err := os.WriteFile(filepath.Join(out, "adapter_config.json"), data, 0o666); err != nil {
			t.Fatal(err)
		}
		return out
	}
	load := func(dir string) func() error {
		return func() error {
			w, err := model.Load(cpu.New(), dir)
			if err == nil {
				w.Close()
			}
			return err
		}
	}
	c, err := model.ReadConfig(src)
	if err != nil {
		t.Fatal(err)
	}
	adapt := func(dir string) func() error {
		return func() error {
			a, err := model.LoadAdapter(cpu.New(), c, dir)
			a.Free()
			return err
		}
	}
	for name, c := range map[string]struct {
		do  func() error
		err string
	}{
		"model":           {load(settings(t, src, huge, "")), "tensor model.embed_tokens.weight has shape [61 42], but config.json asks for [4194304 65536]"},
		"4-bit model":     {load(settings(t, quantized, huge, "")), "tensor model.embed_tokens.weight has shape [61 42], but config.json asks for [4194304 65536]"},
		"layers":          {load(settings(t, src, layers, "")), `tensor "model.layers.2.input_layernorm.weight" is missing; check that the folder holds the model its config.json describes`},
		"long name":       {load(long), `model_type "` + strings.Repeat("x", 60) + `" is not supported; this program runs model_type "phi"`},
		"large settings":  {load(fat), "not a file of at most 1048576 bytes; download it again"},
		"rank":            {adapt(folder(func(c map[string]any) { c["r"] = 1 << 40 })), "but r and the base's config.json ask for [1099511627776 42]; is it the adapter of another base?"},
		"rank beyond int": {adapt(folder(func(c map[string]any) { c["r"] = 1e30 })), "not an adapter configuration: json: cannot unmarshal number 1e+30 into Go struct field adapterFile.r of type int"},
		"many targets": {adapt(folder(func(c map[string]any) {
			c["target_modules"] = strings.Split(strings.Repeat("fc2 ", 100_000)+"nowhere", " ")
		})), `target "nowhere" matches nothing in the model; its linears are q_proj, k_proj, v_proj, dense, fc1, fc2, lm_head`},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := c.do()
		runtime.ReadMemStats(&after)
		if err == nil || !strings.HasSuffix(err.Error(), c.err) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, not one line with %s", name, err, c.err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 32<<20 {
			t.Errorf("%s: took %d bytes", name, took)
		}
	}
}

// device is a backend with memory of its own, as a GPU has: Import copies.
type device struct{ *ledger }

func (d device) Import(t kernels.Tensor) (kernels.Tensor, error) {
	out, err := d.Alloc(t.DType, t.Rows, t.Cols)
	if err != nil || t.IsZero() {
		return out, err
	}
	copy(out.Host, t.Host)
	if t.Quant == nil {
		return out, nil
	}
	q := *t.Quant
	if q.Absmax, err = d.Import(t.Quant.Absmax); err == nil {
		if q.NestedAbsmax, err = d.Import(t.Quant.NestedAbsmax); err != nil {
			d.Free(q.Absmax)
		}
	}
	if err != nil {
		d.Free(out)
		return kernels.Tensor{}, err
	}
	out.Quant = &q
	return out, nil
}

func (d device) Free(t kernels.Tensor) {
	if t.Quant != nil {
		d.ledger.Free(t.Quant.Absmax)
		d.ledger.Free(t.Quant.NestedAbsmax)
		t.Quant = nil
	}
	d.ledger.Free(t)
}

// TestDeviceMemoryIsGivenBack lets each request for memory fail in turn, while models are loaded, quantised and merged.
func TestDeviceMemoryIsGivenBack(t *testing.T) {
	src := write(t, modeltest.Shape{Layers: 1})
	quantized, _ := quantize(t, src, half)
	adapter := adapterFolder(t, src, "q_proj", "lm_head")
	load := func(dir string) func(kernels.Backend) error {
		return func(b kernels.Backend) error {
			w, err := model.Load(b, dir)
			if err != nil {
				return err
			}
			if live := int64(b.(device).live); w.Bytes() != live {
				t.Errorf("a model of %d bytes takes %d", w.Bytes(), live)
			}
			return errors.Join(w.Close(), w.Close())
		}
	}
	for name, do := range map[string]func(kernels.Backend) error{
		"load":       load(src),
		"load 4-bit": load(quantized),
		"quantize": func(b kernels.Backend) error {
			_, err := model.Quantize(b, src, t.TempDir(), half, nil)
			return err
		},
		"merge": func(b kernels.Backend) error { return model.Convert(b, src, adapter, t.TempDir(), nil) },
		"merge and quantize": func(b kernels.Backend) error {
			_, err := model.MergeQuantize(b, src, adapter, t.TempDir(), half, "dequantized", nil)
			return err
		},
	} {
		for at := 1; ; at++ {
			d := device{newLedger(at)}
			err := do(d)
			if d.live != 0 {
				t.Fatalf("%s: %d bytes were never freed when request %d failed", name, d.live, at)
			}
			if d.requests < at {
				if err != nil || at < 10 {
					t.Errorf("%s: %d requests: %v", name, d.requests, err)
				}
				break
			}
			if err == nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%s: request %d failed, but the error is %v", name, at, err)
			}
		}
	}
}

// TestProgressEndsAtItsTotal: for each conversion, from one file and from shards, it rises and ends there.
func TestProgressEndsAtItsTotal(t *testing.T) {
	single := write(t, modeltest.Shape{})
	adapter := adapterFolder(t, single, "q_proj", "lm_head")
	tied := write(t, modeltest.Shape{Tied: true})
	adapterOfTied := adapterFolder(t, tied, "q_proj")
	for src, adapter := range map[string]string{single: adapter, inShards(t, single): adapter, tied: adapterOfTied} {
		for name, convert := range map[string]func(p model.Progress) error{
			"quantize": func(p model.Progress) error {
				_, err := model.Quantize(cpu.New(), src, t.TempDir(), half, p)
				return err
			},
			"merge": func(p model.Progress) error { return model.Convert(cpu.New(), src, adapter, t.TempDir(), p) },
			"fp16": func(p model.Progress) error {
				_, err := model.MergeQuantize(cpu.New(), src, adapter, t.TempDir(), half, "fp16", p)
				return err
			},
			"dequantized": func(p model.Progress) error {
				_, err := model.MergeQuantize(cpu.New(), src, adapter, t.TempDir(), half, "dequantized", p)
				return err
			},
		} {
			var last, total int64
			err := convert(func(done, all int64) error {
				if done <= last || done > all || total != 0 && all != total {
					t.Errorf("%s: progress went from %d of %d to %d of %d", name, last, total, done, all)
				}
				last, total = done, all
				return nil
			})
			if err != nil || last != total || total == 0 {
				t.Errorf("%s: progress ended at %d of %d: %v", name, last, total, err)
			}
		}
	}
}

// TestDamagedFoldersAreErrors changes bytes of a 4-bit folder's headers and settings. Whatever comes of it is loaded and
// computes, or is refused in one line.
func TestDamagedFoldersAreErrors(t *testing.T) {
	quantized, _ := quantize(t, write(t, modeltest.Shape{Layers: 1}), half)
	model4, err := os.ReadFile(filepath.Join(quantized, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(quantized, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	r, dir := rand.New(rand.NewPCG(11, 11)), t.TempDir()
	header := int(binary.LittleEndian.Uint64(model4)) + 8
	state := bytes.Index(model4, []byte(`{"quant_type"`))
	refused := 0
	for range 400 {
		m, c := bytes.Clone(model4), bytes.Clone(config)
		switch r.IntN(4) {
		case 0:
			m[r.IntN(header)] = byte(' ' + r.IntN(95))
		case 1:
			m[state+r.IntN(170)] = byte(' ' + r.IntN(95))
		case 2:
			m = m[:r.IntN(len(m))]
		case 3:
			c[r.IntN(len(c))] = byte('0' + r.IntN(10))
		}
		for name, data := range map[string][]byte{"model.safetensors": m, "config.json": c} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		w, err := model.Load(cpu.New(), dir)
		if err != nil {
			refused++
			if strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Errorf("error %q", err)
			}
			continue
		}
		if w.Config.VocabSize == 61 && w.Config.MaxPositions >= 64 {
			logits(t, &model.Model{Weights: w})
		}
		w.Close()
	}
	if refused < 200 {
		t.Errorf("%d of 400 damaged folders were refused", refused)
	}
}

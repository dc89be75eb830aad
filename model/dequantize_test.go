package model_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/model/modeltest"
	"quartet/safetensors"
)

// converted is a folder's plain 16-bit copy, with an adapter merged unless that is "".
func converted(t *testing.T, src, adapter string) string {
	t.Helper()
	dst := t.TempDir()
	if err := model.Convert(cpu.New(), src, adapter, dst, nil); err != nil {
		t.Fatal(err)
	}
	return dst
}

func TestDequantisedFolderComputesAsThe4bitOne(t *testing.T) {
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			src := write(t, shape)
			for _, double := range []bool{false, true} {
				four, _ := quantize(t, src, model.QuantizeOptions{DoubleQuant: double, ComputeDType: "float16"})
				plain := converted(t, four, "")
				was, is := tensors(t, src), tensors(t, plain)
				if got, want := slices.Sorted(maps.Keys(is)), slices.Sorted(maps.Keys(was)); !slices.Equal(got, want) {
					t.Fatalf("the tensors are %q, not %q", got, want)
				}
				for name, w := range was {
					if g := is[name]; g.DType != w.DType || !slices.Equal(g.Shape, w.Shape) {
						t.Errorf("%s is %s%v, not %s%v", name, g.DType, g.Shape, w.DType, w.Shape)
					}
				}
				if far := apart(logits(t, &model.Model{Weights: weights(t, four)}), logits(t, &model.Model{Weights: weights(t, plain)})); far > 0 {
					t.Errorf("double %t: logits are off by %g", double, far)
				}
			}
		})
	}
}

func TestDequantisedConfigIsTheOriginalOne(t *testing.T) {
	src := write(t, modeltest.Shape{})
	if err := os.WriteFile(filepath.Join(src, "tokenizer.json"), []byte("{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	four, _ := quantize(t, src, half)
	plain := converted(t, four, "")
	var was, is map[string]json.RawMessage
	for dir, into := range map[string]*map[string]json.RawMessage{src: &was, plain: &is} {
		text, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
	for key := range is {
		if _, ok := was[key]; !ok {
			t.Errorf("config.json holds %s, which the original does not", key)
		}
	}
	for key, want := range was {
		var a, b bytes.Buffer
		if json.Compact(&a, want) != nil || json.Compact(&b, is[key]) != nil || a.String() != b.String() {
			t.Errorf("%s is %s, not %s", key, is[key], want)
		}
	}
	if _, err := os.Stat(filepath.Join(plain, "tokenizer.json")); err != nil {
		t.Error(err)
	}
}

func TestConvertedWithAnAdapter(t *testing.T) {
	for _, name := range []string{"odd", "grouped", "uneven"} {
		t.Run(name, func(t *testing.T) {
			shape := shapes[name]
			src := write(t, shape)
			adapter := adapterFolder(t, src, "q_proj", "fc2", "lm_head")
			four, _ := quantize(t, src, half)
			tolerance := map[safetensors.DType]float64{"": 2e-2, "BF16": 1e-1, "F32": 2e-5}[shape.DType]
			for _, from := range []string{src, four} {
				base := weights(t, from)
				want := logits(t, &model.Model{Weights: base, Adapter: loadAdapter(t, base, adapter)})
				got := logits(t, &model.Model{Weights: weights(t, converted(t, from, adapter))})
				if far := apart(got, want); far > tolerance {
					t.Errorf("logits are off by %g", far)
				}
				if far := apart(logits(t, &model.Model{Weights: base}), want); far < 4*tolerance {
					t.Errorf("the adapter changes logits by %g only", far)
				}
			}
		})
	}
}

func TestConvertKeepsLinearsLeftIn16Bits(t *testing.T) {
	src := write(t, modeltest.Shape{})
	four, _ := quantize(t, src, half)
	const name = "model.layers.1.mlp.fc1.weight"
	original := tensors(t, src)[name]
	mixed := rewritten(t, four, func(all map[string]safetensors.Tensor) {
		for key := range all {
			if len(key) > len(name) && key[:len(name)] == name {
				delete(all, key)
			}
		}
		all[name] = original
	})
	if got := tensors(t, converted(t, mixed, ""))[name]; !bytes.Equal(got.Data, original.Data) {
		t.Error("a weight in 16 bits has changed")
	}
}

func TestConvertRefuses(t *testing.T) {
	src := write(t, modeltest.Shape{})
	four, _ := quantize(t, src, half)
	broken := rewritten(t, four, func(all map[string]safetensors.Tensor) { delete(all, "model.layers.0.mlp.fc1.weight.absmax") })
	stateless := rewritten(t, four, func(all map[string]safetensors.Tensor) { delete(all, q0+".quant_state.bitsandbytes__nf4") })
	other := adapterFolder(t, write(t, modeltest.Shape{Hidden: 30}), "q_proj")
	untrained := t.TempDir()
	base := weights(t, src)
	a, err := model.NewAdapter(base.Backend(), base.Config, model.AdapterConfig{R: 3, Alpha: 4, Targets: []string{"q_proj"}}, 7, kernels.F16)
	if err == nil {
		err = a.Save(untrained)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer a.Free()
	file := filepath.Join(src, "model.safetensors")
	for _, c := range []struct{ src, adapter, want string }{
		{src, "", "convert " + src + ": it is not quantised, so there is nothing to do; name an adapter to merge"},
		{broken, "", "convert " + broken + ": tensor model.layers.0.mlp.fc1.weight: read " + broken + ": tensor \"model.layers.0.mlp.fc1.weight.absmax\" is missing; check that the folder holds the model its config.json describes"},
		{stateless, "", "convert " + stateless + ": tensor " + q0 + " has dtype U8, not F16, BF16 or F32"},
		{src, untrained, "convert " + src + ": every B of adapter " + untrained + " is zero, as before training, so that merging it would change nothing; give one that was trained"},
		{other, "", "read " + other + "/config.json: no such file; " + other + " is a LoRA adapter, not a model"},
		{file, "", "read " + file + "/config.json: no such file; a model folder holds config.json, model.safetensors and a tokenizer"},
		{four, other, "load adapter " + other + ": tensor base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight has shape [3 30], but r and the base's config.json ask for [3 42]; is it the adapter of another base?"},
	} {
		dst := t.TempDir()
		if err := model.Convert(cpu.New(), c.src, c.adapter, dst, nil); err == nil || err.Error() != c.want {
			t.Errorf("%v\nnot\n%s", err, c.want)
		}
		if left, err := os.ReadDir(dst); err != nil || len(left) > 0 {
			t.Errorf("a refused conversion left %v, %v", left, err)
		}
	}
}

func TestConvertReadsNoPipe(t *testing.T) {
	four, _ := quantize(t, write(t, modeltest.Shape{}), half)
	pipe := filepath.Join(four, "vocab.json")
	if err := syscall.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	want := "convert " + four + ": read " + pipe + ": not a file of at most 268435456 bytes; download it again"
	if err := model.Convert(cpu.New(), four, "", t.TempDir(), nil); err == nil || err.Error() != want {
		t.Errorf("%v, not\n%s", err, want)
	}
}

func TestConvertEndsWhenProgressSaysSo(t *testing.T) {
	four, _ := quantize(t, write(t, modeltest.Shape{}), half)
	var last, all int64
	count := func(done, total int64) error {
		last, all = done, total
		return nil
	}
	if err := model.Convert(cpu.New(), four, "", t.TempDir(), count); err != nil || last != all || all == 0 {
		t.Errorf("progress ended at %d of %d, %v", last, all, err)
	}
	stop, dst := errors.New("stop"), t.TempDir()
	err := model.Convert(cpu.New(), four, "", dst, func(done, total int64) error {
		if 2*done > total {
			return stop
		}
		return nil
	})
	if left, _ := os.ReadDir(dst); !errors.Is(err, stop) || len(left) > 0 {
		t.Errorf("%v, and it left %v", err, left)
	}
}

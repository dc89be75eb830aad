package doctor

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quartet/demo"
	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/safetensors"
)

// models are a base of the demo, its 4-bit folder and an adapter that does something.
type models struct{ base, four, adapter string }

// made makes the three folders.
func made(t *testing.T) models {
	t.Helper()
	dir := t.TempDir()
	m := models{filepath.Join(dir, "base"), filepath.Join(dir, "four"), filepath.Join(dir, "adapter")}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.CopyFS(m.base, demo.Model()))
	b := cpu.New()
	check(os.Mkdir(m.four, 0o777))
	_, err := model.Quantize(b, m.base, m.four, model.QuantizeOptions{DoubleQuant: true, ComputeDType: "float16"}, nil)
	check(err)
	c, err := model.ReadConfig(m.base)
	check(err)
	a, err := model.NewAdapter(b, c, model.AdapterConfig{BaseModel: "quartet/phi-tiny", R: 4, Alpha: 8, Targets: []string{"q_proj", "v_proj"}}, 1, kernels.F16)
	check(err)
	defer a.Free()
	for _, l := range a.Modules {
		values := make([]float32, l.B.Len())
		for i := range values {
			values[i] = 0.01
		}
		b.Upload(l.B, kernels.AsBytes(values))
	}
	check(os.Mkdir(m.adapter, 0o777))
	check(a.Save(m.adapter))
	return m
}

// edit changes a JSON file.
func edit(t *testing.T, path string, change func(map[string]any)) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	change(v)
	if data, err = json.Marshal(v); err == nil {
		err = os.WriteFile(path, data, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// rewrite writes a weights file anew with entries changed; one that change makes nameless is left out.
func rewrite(t *testing.T, path string, change func(e *safetensors.Entry, data []byte) []byte) {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var entries []safetensors.Entry
	for _, tensor := range f.Tensors() {
		e := safetensors.Entry{Name: tensor.Name, DType: tensor.DType, Shape: tensor.Shape}
		data := change(&e, append([]byte(nil), tensor.Data...))
		if e.Data = safetensors.Bytes(data); e.Name != "" {
			entries = append(entries, e)
		}
	}
	f.Close()
	if err := safetensors.Write(path, map[string]string{"format": "pt"}, entries); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// shard cuts a folder's weights into shards.
func shard(t *testing.T, dir string) {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(dir, singleName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var entries []safetensors.Entry
	for _, tensor := range f.Tensors() {
		entries = append(entries, safetensors.Entry{Name: tensor.Name, DType: tensor.DType, Shape: tensor.Shape, Data: safetensors.Bytes(append([]byte(nil), tensor.Data...))})
	}
	remove(t, dir, singleName)
	if err := safetensors.WriteFolder(dir, entries, 2_000_000); err != nil {
		t.Fatal(err)
	}
}

// verdicts is which libraries load it, as "transformers +, quartet -".
func verdicts(r *Report) string {
	var all []string
	for _, v := range r.Verdicts {
		all = append(all, fmt.Sprintf("%s %s", v.Library, map[bool]string{true: "+", false: "-"}[v.Loads]))
	}
	return strings.Join(all, ", ")
}

// found are a report's findings as lines.
func found(r *Report) (lines []string) {
	for _, f := range r.Findings {
		lines = append(lines, fmt.Sprintf("%s %s: %s", f.Level, f.Where, f.Text))
	}
	return lines
}

func keep(_ *safetensors.Entry, data []byte) []byte { return data }

const (
	pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4995584424\n"
	q0      = "model.layers.0.self_attn.q_proj.weight"
)

func TestBrokenModels(t *testing.T) {
	for _, c := range []struct {
		name     string
		four     bool // the 4-bit folder is broken, not the base
		deep     bool
		break_   func(t *testing.T, dir string)
		verdicts string
		want     []string // each the beginning of a line, in order
	}{
		{"whole", false, true, func(*testing.T, string) {}, "transformers +, quartet +", nil},
		{"whole in 4 bits", true, true, func(*testing.T, string) {}, "transformers +, quartet +, bitsandbytes +", nil},
		{"whole in shards", false, false, shard, "transformers +, quartet +", nil},
		{"a shard is missing", false, false, func(t *testing.T, dir string) {
			shard(t, dir)
			remove(t, dir, "model-00002-of-00003.safetensors")
		}, "transformers -, quartet -", []string{"error model.safetensors.index.json: 1 of 3 shards are missing: model-00002-of-00003.safetensors; download them"}},
		{"the index disagrees", false, false, func(t *testing.T, dir string) {
			shard(t, dir)
			edit(t, filepath.Join(dir, indexName), func(v map[string]any) { v["weight_map"].(map[string]any)[q0] = "model-00003-of-00003.safetensors" })
		}, "transformers -, quartet -", []string{"error : model-0000"}},
		{"shards without an index", false, false, func(t *testing.T, dir string) {
			shard(t, dir)
			remove(t, dir, indexName)
		}, "transformers -, quartet -", []string{"error : model-00001-of-00003.safetensors, model-00002-of-00003.safetensors, model-00003-of-00003.safetensors, but neither model.safetensors nor"}},
		{"truncated", false, false, func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, singleName), 2_500_000); err != nil {
				t.Fatal(err)
			}
		}, "transformers -, quartet -", []string{"error model.safetensors: truncated: it has 2500000 of 50"}},
		{"an LFS pointer", false, false, func(t *testing.T, dir string) { write(t, dir, singleName, pointer) },
			"transformers -, quartet -", []string{"error model.safetensors: a Git LFS pointer in place of the file of 5 GB; run `git lfs pull`"}},
		{"a header that claims 4 GB", false, false, func(t *testing.T, dir string) {
			write(t, dir, singleName, string(binary.LittleEndian.AppendUint64(nil, 4<<30)))
		}, "transformers -, quartet -", []string{"error model.safetensors: header claims 4294967296 bytes, more than the limit"}},
		{"pickles only", false, false, func(t *testing.T, dir string) {
			remove(t, dir, singleName)
			write(t, dir, "pytorch_model.bin", "PK")
		}, "transformers +, quartet -", []string{"error pytorch_model.bin: only pickles"}},
		{"no weights", false, false, func(t *testing.T, dir string) { remove(t, dir, singleName) },
			"transformers -, quartet -", []string{"error : no weights: neither"}},
		{"a dangling link", false, false, func(t *testing.T, dir string) {
			remove(t, dir, singleName)
			if err := os.Symlink("../blobs/gone", filepath.Join(dir, singleName)); err != nil {
				t.Fatal(err)
			}
		}, "transformers -, quartet -", []string{"error model.safetensors: a link to a file that is gone"}},
		{"a missing tensor", false, false, func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, singleName), func(e *safetensors.Entry, data []byte) []byte {
				if e.Name == q0 {
					e.Name = ""
				}
				return data
			})
		}, "transformers -, quartet -", []string{"error : tensors are missing, which transformers fills with random numbers: " + q0}},
		{"another model's config", false, false, func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, configName), func(v map[string]any) { v["intermediate_size"] = 99 })
		}, "transformers -, quartet -", []string{"error : model.layers.0.mlp.fc1.weight is"}},
		{"another architecture", false, false, func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, configName), func(v map[string]any) { v["model_type"] = "llama" })
		}, "transformers +, quartet -", []string{"error config.json: model_type \"llama\" is not supported"}},
		{"config.json cut off", false, false, func(t *testing.T, dir string) { write(t, dir, configName, "{\"model_type\": ") },
			"transformers -, quartet -", []string{"error config.json: not JSON"}},
		{"a type that is none", false, false, func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, singleName), func(e *safetensors.Entry, data []byte) []byte {
				if e.Name == q0 {
					e.DType = safetensors.I16
				}
				return data
			})
		}, "transformers -, quartet -", []string{"error : " + q0 + " is I16, not F16, BF16 or F32"}},
		{"two types", false, false, func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, singleName), func(e *safetensors.Entry, data []byte) []byte {
				if e.Name == q0 {
					e.DType = safetensors.BF16
				}
				return data
			})
		}, "transformers +, quartet +", []string{"warning : weights of several types, BF16+F16"}},
		{"NaN", false, true, func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, singleName), func(e *safetensors.Entry, data []byte) []byte {
				if e.Name == q0 {
					binary.LittleEndian.PutUint16(data[6:], 0x7e00)
				}
				return data
			})
		}, "transformers +, quartet +", []string{"error : values are NaN or infinite in \"" + q0 + "\" (1 of "}},
		{"NaN unseen without deep", false, false, func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, singleName), func(e *safetensors.Entry, data []byte) []byte {
				binary.LittleEndian.PutUint16(data, 0x7e00)
				return data
			})
		}, "transformers +, quartet +", nil},
		{"zeros", false, true, func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, singleName), func(e *safetensors.Entry, data []byte) []byte {
				if e.Name == q0 {
					clear(data)
				}
				return data
			})
		}, "transformers +, quartet +", []string{"error : all values are zero in \"" + q0}},
		{"no metadata", false, false, func(t *testing.T, dir string) {
			path := filepath.Join(dir, singleName)
			rewrite(t, path, keep)
			f, err := safetensors.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			var entries []safetensors.Entry
			for _, tensor := range f.Tensors() {
				entries = append(entries, safetensors.Entry{Name: tensor.Name, DType: tensor.DType, Shape: tensor.Shape, Data: safetensors.Bytes(append([]byte(nil), tensor.Data...))})
			}
			f.Close()
			if err := safetensors.Write(path, map[string]string{"made": "by hand"}, entries); err != nil {
				t.Fatal(err)
			}
		}, "transformers -, quartet +", []string{"error model.safetensors: its metadata lacks format \"pt\""}},
		{"no tokenizer", false, false, func(t *testing.T, dir string) { remove(t, dir, "tokenizer.json") },
			"transformers +, quartet -", []string{"error tokenizer.json: the tokenizer is missing"}},
		{"a hole", false, false, func(t *testing.T, dir string) {
			path := filepath.Join(dir, singleName)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(int64(len(data))); err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(data[:1<<20], 0); err != nil {
				t.Fatal(err)
			}
		}, "transformers +, quartet +", []string{"warning model.safetensors: nothing was ever written from byte 1048576 on"}},
		{"4-bit weights, plain config", true, false, func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, configName), func(v map[string]any) { delete(v, "quantization_config") })
		}, "transformers -, quartet -", []string{"error config.json: the weights are 4-bit, but there is no quantization_config"}},
		{"plain weights, 4-bit config", false, false, func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, configName), func(v map[string]any) {
				v["quantization_config"] = map[string]any{"quant_method": "bitsandbytes", "load_in_4bit": true}
			})
		}, "transformers -, quartet -, bitsandbytes -", []string{"error config.json: quantization_config asks for 4-bit weights, but no weight has a quant_state"}},
		{"a quant state of another shape", true, false, func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, singleName), func(e *safetensors.Entry, data []byte) []byte {
				if e.Name == q0+stateNF4 {
					data = []byte(strings.Replace(string(data), `"shape": [`, `"shape": [1`, 1))
					e.Shape = []int{len(data)}
				}
				return data
			})
		}, "transformers -, quartet -, bitsandbytes -", []string{"error : the 4-bit state does not fit: " + q0 + ": quant_state has shape"}},
		{"an absmax that is gone", true, false, func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, singleName), func(e *safetensors.Entry, data []byte) []byte {
				if e.Name == q0+".nested_absmax" {
					e.Name = ""
				}
				return data
			})
		}, "transformers -, quartet -, bitsandbytes -", []string{"error : the 4-bit state does not fit: " + q0}},
		{"fp4", true, false, func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, singleName), func(e *safetensors.Entry, data []byte) []byte {
				e.Name = strings.Replace(e.Name, stateNF4, stateFP4, 1)
				return data
			})
		}, "transformers +, quartet -, bitsandbytes +", []string{"error : 36 weights are fp4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := made(t)
			dir := m.base
			if c.four {
				dir = m.four
			}
			c.break_(t, dir)
			compare(t, dir, Options{Deep: c.deep}, c.verdicts, c.want)
		})
	}
}

// compare examines a path and holds the report against what is wanted.
func compare(t *testing.T, path string, o Options, wantVerdicts string, want []string) {
	t.Helper()
	r, err := Examine(context.Background(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	if got := verdicts(r); got != wantVerdicts {
		t.Errorf("loads: %s, want %s", got, wantVerdicts)
	}
	lines := found(r)
	if len(lines) != len(want) {
		t.Fatalf("%d findings, want %d:\n%s", len(lines), len(want), strings.Join(lines, "\n"))
	}
	for i, line := range lines {
		if !strings.HasPrefix(line, want[i]) {
			t.Errorf("finding %q, want %q", line, want[i])
		}
		if strings.Contains(line, "\n") {
			t.Errorf("finding of several lines: %q", line)
		}
	}
}

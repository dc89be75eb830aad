package doctor

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quartet/safetensors"
)

const a0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

func TestBrokenAdapters(t *testing.T) {
	tensors := func(change func(e *safetensors.Entry, data []byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) { rewrite(t, filepath.Join(dir, adapterModelName), change) }
	}
	settings := func(change func(map[string]any)) func(*testing.T, string) {
		return func(t *testing.T, dir string) { edit(t, filepath.Join(dir, adapterConfigName), change) }
	}
	zero := func(which func(name string) bool) func(e *safetensors.Entry, data []byte) []byte {
		return func(e *safetensors.Entry, data []byte) []byte {
			if which(e.Name) {
				clear(data)
			}
			return data
		}
	}
	for _, c := range []struct {
		name     string
		break_   func(t *testing.T, dir string)
		verdicts string
		want     []string
	}{
		{"whole", func(*testing.T, string) {}, "PEFT +, quartet +", nil},
		{"untrained", tensors(zero(func(name string) bool { return strings.Contains(name, "lora_B") })),
			"PEFT +, quartet +", []string{"error adapter_model.safetensors: every A or B is zero, as before training"}},
		{"half trained", tensors(zero(func(name string) bool { return strings.Contains(name, "v_proj.lora_B") })),
			"PEFT +, quartet +", []string{"warning adapter_model.safetensors: A or B is zero, as before training, for 6 of 12 linears"}},
		{"alpha 0", settings(func(v map[string]any) { v["lora_alpha"] = 0 }),
			"PEFT +, quartet +", []string{"error adapter_config.json: lora_alpha is 0"}},
		{"NaN", tensors(func(e *safetensors.Entry, data []byte) []byte {
			if e.Name == a0 {
				binary.LittleEndian.PutUint32(data, math.Float32bits(float32(math.NaN())))
			}
			return data
		}), "PEFT +, quartet -", []string{"error : values are NaN or infinite in \"" + a0}},
		{"targets without weights", settings(func(v map[string]any) { v["target_modules"] = []string{"q_proj", "v_proj", "out_proj"} }),
			"PEFT +, quartet -", []string{"error adapter_config.json: target_modules names out_proj, for which there are no weights"}},
		{"weights beside the targets", settings(func(v map[string]any) { v["target_modules"] = []string{"q_proj"} }),
			"PEFT -, quartet -", []string{"error adapter_config.json: target_modules does not name model.layers.0.self_attn.v_proj"}},
		{"another rank", settings(func(v map[string]any) { v["r"] = 8 }),
			"PEFT -, quartet -", []string{"error adapter_model.safetensors: r is 8, but the weights have another rank"}},
		{"names of a state_dict", tensors(func(e *safetensors.Entry, data []byte) []byte {
			e.Name = strings.Replace(e.Name, ".weight", ".default.weight", 1)
			return data
		}), "PEFT -, quartet -", []string{"error adapter_model.safetensors: \"base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight\"", "error adapter_model.safetensors: no LoRA weights"}},
		{"only A", tensors(func(e *safetensors.Entry, data []byte) []byte {
			if e.Name == strings.Replace(a0, "lora_A", "lora_B", 1) {
				e.Name = ""
			}
			return data
		}), "PEFT -, quartet -", []string{"error adapter_model.safetensors: only one of A and B is there for model.layers.0.self_attn.q_proj"}},
		{"DoRA", settings(func(v map[string]any) { v["use_dora"] = true }),
			"PEFT +, quartet -", []string{"error adapter_config.json: use_dora is not supported"}},
		{"a pickle", func(t *testing.T, dir string) {
			if err := os.Rename(filepath.Join(dir, adapterModelName), filepath.Join(dir, "adapter_model.bin")); err != nil {
				t.Fatal(err)
			}
		}, "PEFT +, quartet -", []string{"error adapter_model.bin: only a pickle"}},
		{"no settings", func(t *testing.T, dir string) { remove(t, dir, adapterConfigName) },
			"PEFT -, quartet -", []string{"error adapter_config.json: missing"}},
		{"no weights", func(t *testing.T, dir string) { remove(t, dir, adapterModelName) },
			"PEFT -, quartet -", []string{"error adapter_model.safetensors: missing"}},
		{"truncated", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, adapterModelName), 9000); err != nil {
				t.Fatal(err)
			}
		}, "PEFT -, quartet -", []string{"error adapter_model.safetensors: truncated: it has 9000 of"}},
		{"a path of a machine", settings(func(v map[string]any) { v["base_model_name_or_path"] = "/home/someone/phi" }),
			"PEFT +, quartet +", []string{"note adapter_config.json: names the base by a path of a machine, \"/home/someone/phi\""}},
		{"another base", tensors(func(e *safetensors.Entry, data []byte) []byte {
			e.Name = strings.Replace(e.Name, "layers.0.", "layers.77.", 1)
			return data
		}), "PEFT -, quartet -", []string{"error adapter_model.safetensors: the base has no model.layers.77.self_attn.q_proj, model.layers.77.self_attn.v_proj"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := made(t)
			c.break_(t, m.adapter)
			compare(t, m.adapter, Options{Base: m.base}, c.verdicts, c.want)
		})
	}
}

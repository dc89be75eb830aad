package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"quartet/kernels"
	"quartet/safetensors"
)

// The files of a PEFT adapter folder, and what PEFT puts before its tensors' names.
const (
	adapterConfigFile = "adapter_config.json"
	adapterModelFile  = "adapter_model.safetensors"
	tensorPrefix      = "base_model.model."
)

// Save writes the adapter as a PEFT folder: adapter_config.json with the keys that all versions of PEFT know, and
// adapter_model.safetensors in float32. A weight that is not finite is an error.
func (a *Adapter) Save(dir string) error {
	var entries []safetensors.Entry
	for _, p := range a.Parameters() {
		values := a.host(p.Value)
		for _, v := range values {
			if v64 := float64(v); math.IsNaN(v64) || math.IsInf(v64, 0) {
				return fmt.Errorf("save the adapter: %s holds a weight that is not finite; lower learning_rate", p.Name)
			}
		}
		entries = append(entries, safetensors.Entry{Name: p.Name, DType: "F32", Shape: []int{p.Value.Rows, p.Value.Cols}, Data: safetensors.Bytes(kernels.AsBytes(values))})
	}
	if err := a.backend.Sync(); err != nil {
		return err
	}
	var revision any
	if a.Config.Revision != "" {
		revision = a.Config.Revision
	}
	config := map[string]any{
		"alpha_pattern": map[string]any{}, "auto_mapping": nil, "base_model_name_or_path": a.Config.BaseModel, "bias": "none",
		"fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true, "layers_pattern": nil,
		"layers_to_transform": nil, "lora_alpha": a.Config.Alpha, "lora_dropout": a.Config.Dropout, "modules_to_save": nil,
		"peft_type": "LORA", "r": a.Config.R, "rank_pattern": map[string]any{}, "revision": revision,
		"target_modules": a.Config.Targets, "task_type": "CAUSAL_LM",
	}
	if a.Config.RSLoRA {
		config["use_rslora"] = true
	}
	text, err := sortedJSON(config)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, adapterConfigFile), bytes.TrimSuffix(text, []byte("\n")), 0o666); err != nil {
		return err
	}
	return safetensors.Write(filepath.Join(dir, adapterModelFile), map[string]string{"format": "pt"}, entries)
}

// sortedJSON is JSON as Python's json.dumps(indent=2, sort_keys=True) writes it, with a final newline.
func sortedJSON(v map[string]any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return out.Bytes(), err
}

// LoadAdapter reads a PEFT LoRA folder for a model of configuration c. Which linears are adapted follows from the tensors.
func LoadAdapter(b kernels.Backend, c Config, dir string) (*Adapter, error) {
	a, err := loadAdapter(b, c, dir)
	if err != nil {
		return nil, fmt.Errorf("load adapter %s: %w", dir, err)
	}
	return a, nil
}

func loadAdapter(b kernels.Backend, c Config, dir string) (*Adapter, error) {
	data, err := os.ReadFile(filepath.Join(dir, adapterConfigFile))
	if err != nil {
		return nil, err
	}
	ac, err := parseAdapterConfig(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", adapterConfigFile, err)
	}
	path := filepath.Join(dir, adapterModelFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, "adapter_model.bin")); err == nil {
			return nil, errors.New("adapter_model.bin is a pickle, which can run code; save the adapter again as safetensors")
		}
	}
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := &Adapter{Config: ac, backend: b}
	if err := a.read(c, f); err != nil {
		a.Free()
		return nil, err
	}
	return a, b.Sync()
}

// read takes the modules from the file's tensors, in the order of the model's linears.
func (a *Adapter) read(c Config, f *safetensors.File) error {
	used := 0
	add := func(layer, l int) error {
		out, in := c.LinearShape(l)
		path := tensorPrefix + LinearPath(layer, l)
		ta, okA := f.Get(path + ".lora_A.weight")
		tb, okB := f.Get(path + ".lora_B.weight")
		if !okA && !okB {
			return nil
		}
		if !okA || !okB {
			return fmt.Errorf("%s has only one of lora_A and lora_B", path)
		}
		if l == LMHead && c.Tied {
			return errors.New("lm_head is tied to the embedding and cannot be adapted")
		}
		r := a.Config.R
		if !shapeIs(ta.Shape, r, in) || len(ta.Shape) != 2 || !shapeIs(tb.Shape, out, r) || len(tb.Shape) != 2 {
			return fmt.Errorf("%s has lora_A %v and lora_B %v, but the base and r = %d ask for [%d %d] and [%d %d]; is it the adapter of another base?", path, ta.Shape, tb.Shape, r, r, in, out, r)
		}
		m := &LoRA{Layer: layer, Linear: l}
		a.Modules = append(a.Modules, m)
		if err := a.allocate(m, r, out, in); err != nil {
			return err
		}
		for _, t := range []struct {
			into kernels.Tensor
			from safetensors.Tensor
		}{{m.A, ta}, {m.B, tb}} {
			values, err := float32s(t.from)
			if err != nil {
				return err
			}
			a.backend.Upload(t.into, kernels.AsBytes(values))
		}
		used += 2
		return nil
	}
	for i := range c.Layers {
		for l := range LinearsPerLayer {
			if err := add(i, l); err != nil {
				return err
			}
		}
	}
	if err := add(-1, LMHead); err != nil {
		return err
	}
	if used == 0 {
		return errors.New("no tensor belongs to a linear of the base; is it the adapter of another model?")
	}
	if all := f.Tensors(); used != len(all) {
		for _, t := range all {
			if !strings.Contains(t.Name, ".lora_") {
				return fmt.Errorf("tensor %s is not a LoRA weight, and would be ignored", t.Name)
			}
		}
		return fmt.Errorf("%d of %d tensors belong to no linear of the base; is it the adapter of another model?", len(all)-used, len(all))
	}
	return nil
}

// float32s is a floating tensor's elements.
func float32s(t safetensors.Tensor) ([]float32, error) {
	values := make([]float32, len(t.Data)/t.DType.Size())
	for i := range values {
		switch t.DType {
		case "F32":
			values[i] = math.Float32frombits(uint32(t.Data[4*i]) | uint32(t.Data[4*i+1])<<8 | uint32(t.Data[4*i+2])<<16 | uint32(t.Data[4*i+3])<<24)
		case "F16":
			values[i] = kernels.F16ToF32(uint16(t.Data[2*i]) | uint16(t.Data[2*i+1])<<8)
		case "BF16":
			values[i] = kernels.BF16ToF32(uint16(t.Data[2*i]) | uint16(t.Data[2*i+1])<<8)
		default:
			return nil, fmt.Errorf("tensor %s has dtype %s, not F32, F16 or BF16", t.Name, t.DType)
		}
	}
	return values, nil
}

// parseAdapterConfig reads adapter_config.json. Unknown keys are ignored, but what would change the computation is refused.
func parseAdapterConfig(data []byte) (AdapterConfig, error) {
	var f struct {
		PeftType        string          `json:"peft_type"`
		BaseModel       string          `json:"base_model_name_or_path"`
		Revision        string          `json:"revision"`
		R               int             `json:"r"`
		Alpha           *float64        `json:"lora_alpha"`
		Dropout         float64         `json:"lora_dropout"`
		Targets         json.RawMessage `json:"target_modules"`
		Bias            string          `json:"bias"`
		FanInFanOut     bool            `json:"fan_in_fan_out"`
		ModulesToSave   []string        `json:"modules_to_save"`
		RSLoRA          bool            `json:"use_rslora"`
		DoRA            bool            `json:"use_dora"`
		LoRABias        bool            `json:"lora_bias"`
		RankPattern     map[string]any  `json:"rank_pattern"`
		AlphaPattern    map[string]any  `json:"alpha_pattern"`
		LayerReplicates json.RawMessage `json:"layer_replication"`
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return AdapterConfig{}, fmt.Errorf("not an adapter configuration: %w", err)
	}
	switch {
	case f.PeftType != "LORA":
		return AdapterConfig{}, fmt.Errorf("peft_type %q is not supported, only LORA", f.PeftType)
	case f.R < 1:
		return AdapterConfig{}, fmt.Errorf("r is %d, not 1 or more", f.R)
	case f.Alpha == nil:
		return AdapterConfig{}, errors.New("lora_alpha is missing")
	case f.DoRA:
		return AdapterConfig{}, errors.New("use_dora true is not supported")
	case f.LoRABias || f.Bias != "" && f.Bias != "none":
		return AdapterConfig{}, errors.New("trained biases are not supported, only bias \"none\" and lora_bias false")
	case f.FanInFanOut:
		return AdapterConfig{}, errors.New("fan_in_fan_out true is not supported")
	case len(f.ModulesToSave) > 0:
		return AdapterConfig{}, fmt.Errorf("modules_to_save %q is not supported", f.ModulesToSave)
	case len(f.RankPattern)+len(f.AlphaPattern) > 0:
		return AdapterConfig{}, errors.New("rank_pattern and alpha_pattern are not supported")
	case len(f.LayerReplicates) > 0 && string(f.LayerReplicates) != "null":
		return AdapterConfig{}, errors.New("layer_replication is not supported")
	}
	ac := AdapterConfig{BaseModel: f.BaseModel, Revision: f.Revision, R: f.R, Alpha: *f.Alpha, Dropout: f.Dropout, RSLoRA: f.RSLoRA}
	var one string
	if json.Unmarshal(f.Targets, &one) == nil && one != "" {
		ac.Targets = []string{one}
	} else if json.Unmarshal(f.Targets, &ac.Targets) != nil {
		return AdapterConfig{}, errors.New("target_modules is neither a name nor a list of names")
	}
	return ac, nil
}

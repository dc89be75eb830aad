package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"quartet/kernels"
	"quartet/safetensors"
)

// The files of a PEFT adapter folder, and what PEFT puts before its tensors' names.
const (
	adapterConfigFile = "adapter_config.json"
	adapterModelFile  = "adapter_model.safetensors"
	tensorPrefix      = "base_model.model."
)

// Save writes the adapter as a PEFT folder into the existing folder dir: adapter_model.safetensors in float32, and
// adapter_config.json with the keys that all versions of PEFT know. A base model that is named by a path of the machine
// rather than by a hub id is left out. A weight that is not finite is an error.
func (a *Adapter) Save(dir string) error {
	var entries []safetensors.Entry
	for _, p := range a.Parameters() {
		data := kernels.AsBytes(a.host(p.Value))
		if !finite(kernels.F32, data) {
			return fmt.Errorf("save the adapter: %s holds a weight that is not finite; lower learning_rate", p.Name)
		}
		entries = append(entries, safetensors.Entry{Name: p.Name, DType: "F32", Shape: []int{p.Value.Rows, p.Value.Cols}, Data: safetensors.Bytes(data)})
	}
	if err := a.backend.Sync(); err != nil {
		return err
	}
	if err := safetensors.Write(filepath.Join(dir, adapterModelFile), map[string]string{"format": "pt"}, entries); err != nil {
		return err
	}
	text, err := a.Config.text()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, adapterConfigFile), text, 0o666)
}

// LoadAdapter reads a PEFT LoRA folder for a model of configuration c. Each linear that target_modules names must have its
// two tensors, of float32, float16 or bfloat16, and there must be no others.
func LoadAdapter(b kernels.Backend, c Config, dir string) (*Adapter, error) {
	a, err := loadAdapter(b, c, dir)
	if err != nil {
		return nil, fmt.Errorf("load adapter %s: %w", dir, err)
	}
	return a, nil
}

func loadAdapter(b kernels.Backend, c Config, dir string) (*Adapter, error) {
	ac, err := ReadAdapterConfig(dir)
	if err != nil {
		return nil, err
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
	err = a.read(c, f)
	if err == nil {
		err = b.Sync()
	}
	if err != nil {
		a.Free()
		return nil, err
	}
	return a, nil
}

// ReadAdapterConfig reads a PEFT folder's adapter_config.json. Unknown keys are ignored, but what would change the
// computation is refused by name.
func ReadAdapterConfig(dir string) (AdapterConfig, error) {
	data, err := readText(filepath.Join(dir, adapterConfigFile), maxText)
	if errors.Is(err, fs.ErrNotExist) {
		return AdapterConfig{}, fmt.Errorf("%s is missing; a PEFT folder holds it and %s", adapterConfigFile, adapterModelFile)
	}
	if err != nil {
		return AdapterConfig{}, err
	}
	ac, err := parseAdapterConfig(data)
	if err != nil {
		return AdapterConfig{}, fmt.Errorf("%s: %w", adapterConfigFile, err)
	}
	return ac, nil
}

// read takes the modules from the file's tensors, in the order of the model's linears.
func (a *Adapter) read(c Config, f *safetensors.File) error {
	places, err := targeted(c, a.Config)
	if err != nil {
		return err
	}
	r, used := a.Config.R, map[string]bool{}
	for _, at := range places {
		out, in := c.LinearShape(at.linear)
		path := tensorPrefix + LinearPath(at.layer, at.linear)
		var both [2][]float32
		for i, want := range []struct {
			name       string
			rows, cols int
		}{{path + ".lora_A.weight", r, in}, {path + ".lora_B.weight", out, r}} {
			t, ok := f.Get(want.name)
			if !ok {
				return fmt.Errorf("tensor %s is missing, though target_modules names it; is the file whole, and the base the right one?", want.name)
			}
			if !slices.Equal(t.Shape, []int{want.rows, want.cols}) {
				return fmt.Errorf("tensor %s has shape %v, but r and the base's config.json ask for [%d %d]; is it the adapter of another base?", want.name, t.Shape, want.rows, want.cols)
			}
			if both[i], err = float32s(t); err != nil {
				return err
			}
			used[want.name] = true
		}
		m, err := a.add(at, out, in)
		if err != nil {
			return err
		}
		a.backend.Upload(m.A, kernels.AsBytes(both[0]))
		a.backend.Upload(m.B, kernels.AsBytes(both[1]))
	}
	for _, t := range f.Tensors() {
		if !used[t.Name] {
			return fmt.Errorf("tensor %.120q is no LoRA weight of a linear in target_modules, and would be ignored; is it the adapter of another model?", t.Name)
		}
	}
	return nil
}

// float32s is a floating tensor's elements, which must be finite.
func float32s(t safetensors.Tensor) ([]float32, error) {
	d, ok := dtypeStored(t.DType)
	if !ok {
		return nil, fmt.Errorf("tensor %s has dtype %s, not F32, F16 or BF16", t.Name, t.DType)
	}
	if !finite(d, t.Data) {
		return nil, fmt.Errorf("tensor %s holds a weight that is not finite; train the adapter again", t.Name)
	}
	size := d.Bytes(1)
	values := make([]float32, len(t.Data)/size)
	for i := range values {
		bits := t.Data[i*size:]
		switch d {
		case kernels.F32:
			values[i] = math.Float32frombits(binary.LittleEndian.Uint32(bits))
		case kernels.F16:
			values[i] = kernels.F16ToF32(binary.LittleEndian.Uint16(bits))
		case kernels.BF16:
			values[i] = kernels.BF16ToF32(binary.LittleEndian.Uint16(bits))
		}
	}
	return values, nil
}

// dtypeStored is the floating type that a file calls d.
func dtypeStored(d safetensors.DType) (kernels.DType, bool) {
	for _, k := range []kernels.DType{kernels.F32, kernels.F16, kernels.BF16} {
		if storedAs[k] == d {
			return k, true
		}
	}
	return 0, false
}

package model

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"quartet/kernels"
	"quartet/safetensors"
)

// Load maps a model folder in Hugging Face's layout into b's memory: fp16, bf16 or fp32, or with a quantization_config
// the linears in bitsandbytes' NF4. On the CPU the weights stay in the mapped files; on a device, tensors whose bytes weights
// beside hold already are shared with them.
func Load(b kernels.Backend, dir string, beside ...*Weights) (*Weights, error) {
	c, err := ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	ck, err := safetensors.OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	w := &Weights{Config: c, backend: b, pieces: map[string]*piece{}, closers: []func() error{ck.Close}}
	if err := w.read(ck, beside); err != nil {
		w.Close()
		return nil, fmt.Errorf("load %s: %w", dir, err)
	}
	return w, nil
}

func (w *Weights) read(ck *safetensors.Checkpoint, beside []*Weights) error {
	for _, name := range ck.Names() {
		if strings.HasPrefix(name, "transformer.") || strings.HasPrefix(name, "layers.") {
			return fmt.Errorf("tensor %.120q belongs to the layout of 2023; take a revision of 2024 or later", name)
		}
	}
	c := w.Config
	var err error
	tensor := func(name string, rows, cols int) kernels.Tensor {
		if err != nil {
			return kernels.Tensor{}
		}
		var t kernels.Tensor
		if t, err = plain(ck, name, rows, cols); err == nil {
			t, err = w.place(name, t, beside)
		}
		return t
	}
	linear := func(layer, l int) Linear {
		out, in := c.LinearShape(l)
		path := LinearPath(layer, l)
		if !c.Quantized || l == LMHead {
			return Linear{tensor(path+".weight", out, in), tensor(path+".bias", 1, out)}
		}
		var t kernels.Tensor
		if err == nil {
			if t, err = readQuantized(w.backend, ck, path+".weight", out, in); err == nil {
				w.owned = append(w.owned, t)
			}
		}
		return Linear{t, tensor(path+".bias", 1, out)}
	}
	w.Embed = tensor("model.embed_tokens.weight", c.VocabSize, c.Hidden)
	for i := range c.Layers {
		norm := fmt.Sprintf("model.layers.%d.input_layernorm.", i)
		layer := Layer{NormWeight: tensor(norm+"weight", 1, c.Hidden), NormBias: tensor(norm+"bias", 1, c.Hidden)}
		for l := range layer.Linears {
			layer.Linears[l] = linear(i, l)
		}
		if err != nil {
			return err
		}
		w.Layers = append(w.Layers, layer)
	}
	w.NormWeight = tensor("model.final_layernorm.weight", 1, c.Hidden)
	w.NormBias = tensor("model.final_layernorm.bias", 1, c.Hidden)
	if c.Tied {
		w.Head = Linear{w.Embed, tensor("lm_head.bias", 1, c.VocabSize)}
	} else {
		w.Head = linear(0, LMHead)
	}
	if err != nil {
		return err
	}
	return w.backend.Sync()
}

// DType is the type of the checkpoint's 16- or 32-bit weights, to which an adapter's start is rounded.
func (w *Weights) DType() kernels.DType { return w.Embed.DType }

// plain is a 16- or 32-bit floating tensor of exactly rows × cols elements in a checkpoint's mapped file.
func plain(ck *safetensors.Checkpoint, name string, rows, cols int) (kernels.Tensor, error) {
	st, err := ck.Get(name)
	if err != nil {
		return kernels.Tensor{}, err
	}
	d, ok := dtypeStored(st.DType)
	if !ok {
		return kernels.Tensor{}, fmt.Errorf("tensor %s has dtype %s, not F16, BF16 or F32", name, st.DType)
	}
	if !shapeIs(st.Shape, rows, cols) {
		return kernels.Tensor{}, fmt.Errorf("tensor %s has shape %v, but config.json asks for [%d %d]", name, st.Shape, rows, cols)
	}
	return kernels.HostTensor(d, rows, cols, st.Data), nil
}

// importPlain takes a plain tensor from a checkpoint to a backend.
func importPlain(b kernels.Backend, ck *safetensors.Checkpoint, name string, rows, cols int) (kernels.Tensor, error) {
	t, err := plain(ck, name, rows, cols)
	if err != nil {
		return kernels.Tensor{}, err
	}
	return b.Import(t)
}

func shapeIs(shape []int, rows, cols int) bool {
	return len(shape) == 2 && shape[0] == rows && shape[1] == cols || len(shape) == 1 && rows == 1 && shape[0] == cols
}

// Backend is where the weights lie.
func (w *Weights) Backend() kernels.Backend { return w.backend }

// Bytes is the memory of the weights, those in mapped files and those shared with other weights included.
func (w *Weights) Bytes() int64 { return BytesOf(w) }

// Close frees the weights that no other share and unmaps their files; every model on them becomes invalid.
func (w *Weights) Close() error {
	for _, t := range w.owned {
		w.backend.Free(t)
	}
	w.owned = nil
	w.leave()
	var errs []error
	for _, c := range w.closers {
		errs = append(errs, c())
	}
	w.closers = nil
	return errors.Join(errs...)
}

// linear is the frozen linear of a layer, or with LMHead the output projection.
func (w *Weights) linear(layer, l int) Linear {
	if l == LMHead {
		return w.Head
	}
	return w.Layers[layer].Linears[l]
}

// rotaryTable is F32 (positions, RotaryDim): the cosines, then the sines, of each position's angles p·theta^(-2i/RotaryDim),
// computed in fp32 as transformers does.
func rotaryTable(c Config, positions int) []float32 {
	half := c.RotaryDim() / 2
	frequency := make([]float32, half)
	for i := range frequency {
		exponent := float32(2*i) / float32(c.RotaryDim())
		frequency[i] = 1 / float32(math.Pow(c.RopeTheta, float64(exponent)))
	}
	table := make([]float32, positions*2*half)
	for p := range positions {
		row := table[p*2*half:]
		for i, f := range frequency {
			angle := float64(float32(p) * f)
			row[i], row[half+i] = float32(math.Cos(angle)), float32(math.Sin(angle))
		}
	}
	return table
}

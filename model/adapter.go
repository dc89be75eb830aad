package model

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"quartet/kernels"
)

// AdapterConfig is the part of PEFT's adapter_config.json that this program uses (LoRA, Hu et al. 2021).
type AdapterConfig struct {
	BaseModel string   // hub id of the base model, never a path of the machine
	Revision  string   // the base's revision, "" for none
	R         int      // rank
	Alpha     float64  // scale numerator: the product B·A is multiplied by Alpha/R
	Dropout   float64  // on the adapter's input, in training
	Targets   []string // of LinearNames
	RSLoRA    bool     // scale by Alpha/√R instead
}

// LoRA is one adapted linear: y += Scale·(x·Aᵀ)·Bᵀ. Memory is F32.
type LoRA struct {
	Layer, Linear int            // Linear is QProj … LMHead; Layer is -1 for LMHead
	A             kernels.Tensor // (r, in)
	B             kernels.Tensor // (out, r)
	GradA, GradB  kernels.Tensor // same shapes; zero Tensors unless training
	Scale         float32
}

// Adapter is the LoRA modules of one model, by layer and then by linear.
type Adapter struct {
	Config  AdapterConfig
	Modules []*LoRA

	backend kernels.Backend
}

// NewAdapter starts an adapter as PEFT does: A uniform in ±1/√in, rounded to the base weights' type, and B zero. The draws
// depend on the seed, the layer and the linear alone.
func NewAdapter(b kernels.Backend, c Config, ac AdapterConfig, seed uint64, round kernels.DType) (*Adapter, error) {
	a := &Adapter{Config: ac, backend: b}
	if len(ac.Targets) == 0 {
		return nil, fmt.Errorf("make an adapter: no targets; name some of %s", strings.Join(LinearNames[:], ", "))
	}
	wanted := map[int]bool{}
	for _, name := range ac.Targets {
		l := LinearByName(name)
		if l < 0 {
			return nil, fmt.Errorf("make an adapter: target %q matches nothing in the model; its linears are %s", name, strings.Join(LinearNames[:], ", "))
		}
		if l == LMHead && c.Tied {
			return nil, errors.New("make an adapter: lm_head is tied to the embedding and cannot be a target")
		}
		wanted[l] = true
	}
	for i := range c.Layers {
		for l := range LinearsPerLayer {
			if wanted[l] {
				a.Modules = append(a.Modules, &LoRA{Layer: i, Linear: l})
			}
		}
	}
	if wanted[LMHead] {
		a.Modules = append(a.Modules, &LoRA{Layer: -1, Linear: LMHead})
	}
	for _, m := range a.Modules {
		out, in := c.LinearShape(m.Linear)
		if ac.R < 1 || ac.R > min(out, in) {
			a.Free()
			return nil, fmt.Errorf("make an adapter: rank %d for %s of %d by %d; take 1 to %d", ac.R, LinearNames[m.Linear], out, in, min(out, in))
		}
		if err := a.allocate(m, ac.R, out, in); err != nil {
			return nil, err
		}
		b.Upload(m.A, kernels.AsBytes(start(seed, m, ac.R, in, round)))
	}
	return a, b.Sync()
}

// allocate reserves a module's A and B and sets its scale; when it fails it frees the adapter.
func (a *Adapter) allocate(m *LoRA, r, out, in int) (err error) {
	m.Scale = float32(a.Config.Alpha / float64(r))
	if a.Config.RSLoRA {
		m.Scale = float32(a.Config.Alpha / math.Sqrt(float64(r)))
	}
	if m.A, err = a.backend.Alloc(kernels.F32, r, in); err == nil {
		m.B, err = a.backend.Alloc(kernels.F32, out, r)
	}
	if err != nil {
		a.Free()
		return fmt.Errorf("reserve memory for the adapter: %w", err)
	}
	return nil
}

// start draws a module's A.
func start(seed uint64, m *LoRA, r, in int, round kernels.DType) []float32 {
	values := make([]float32, r*in)
	bound := 1 / math.Sqrt(float64(in))
	for i := range values {
		words := kernels.Philox([4]uint32{uint32(i / 4), 0, uint32(m.Layer + 1), uint32(m.Linear)}, [2]uint32{uint32(seed), uint32(seed >> 32)})
		v := float32((2*(float64(words[i%4])+0.5)/(1<<32) - 1) * bound)
		switch round {
		case kernels.F16:
			v = kernels.F16ToF32(kernels.F32ToF16(v))
		case kernels.BF16:
			v = kernels.BF16ToF32(kernels.F32ToBF16(v))
		}
		values[i] = v
	}
	return values
}

// Parameter is one trained tensor under its name in PEFT's files.
type Parameter struct {
	Name        string
	Value, Grad kernels.Tensor
}

// Parameters are the adapter's trained tensors in a fixed order: by module, A before B.
func (a *Adapter) Parameters() []Parameter {
	var p []Parameter
	for _, m := range a.Modules {
		path := tensorPrefix + LinearPath(m.Layer, m.Linear)
		p = append(p, Parameter{path + ".lora_A.weight", m.A, m.GradA}, Parameter{path + ".lora_B.weight", m.B, m.GradB})
	}
	return p
}

// EnableGrad reserves the gradients, which start at zero.
func (a *Adapter) EnableGrad() error {
	for _, m := range a.Modules {
		for _, t := range []struct {
			grad  *kernels.Tensor
			value kernels.Tensor
		}{{&m.GradA, m.A}, {&m.GradB, m.B}} {
			if !t.grad.IsZero() {
				continue
			}
			var err error
			if *t.grad, err = a.backend.Alloc(kernels.F32, t.value.Rows, t.value.Cols); err != nil {
				return fmt.Errorf("reserve memory for the adapter's gradients: %w", err)
			}
		}
	}
	return nil
}

// IsZero reports whether every B is zero: such an adapter changes nothing.
func (a *Adapter) IsZero() bool {
	for _, m := range a.Modules {
		for _, v := range a.host(m.B) {
			if v != 0 {
				return false
			}
		}
	}
	return true
}

// host is a copy of a tensor of the adapter.
func (a *Adapter) host(t kernels.Tensor) []float32 {
	values := make([]float32, t.Len())
	a.backend.Download(kernels.AsBytes(values), t)
	return values
}

// Bytes is the memory of the adapter's weights.
func (a *Adapter) Bytes() int64 {
	var n int64
	for _, m := range a.Modules {
		n += int64(m.A.Bytes() + m.B.Bytes())
	}
	return n
}

// Free gives back the adapter's memory. Freeing nil does nothing.
func (a *Adapter) Free() {
	if a == nil {
		return
	}
	for _, m := range a.Modules {
		for _, t := range []*kernels.Tensor{&m.A, &m.B, &m.GradA, &m.GradB} {
			if !t.IsZero() {
				a.backend.Free(*t)
			}
			*t = kernels.Tensor{}
		}
	}
}

// Find is the module of a layer's linear, nil where that linear is not adapted.
func (a *Adapter) Find(layer, linear int) *LoRA {
	if a == nil {
		return nil
	}
	for _, m := range a.Modules {
		if m.Layer == layer && m.Linear == linear {
			return m
		}
	}
	return nil
}

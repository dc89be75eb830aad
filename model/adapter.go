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
	Targets   []string // of LinearNames, or ends of a linear's path
	Layers    []int    // those adapted, nil for all
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

	// All modules' A and B, and their gradients, one after another: F32 (1,n), each from a multiple of kernels.AdamBlock on, zeros
	// between them. Zero Tensors unless training.
	Values, Grads kernels.Tensor

	backend kernels.Backend
}

// maxRank bounds an adapter's rank, far above any that helps.
const maxRank = 1 << 14

// NewAdapter starts an adapter as PEFT does: A uniform in ±1/√in, rounded to the base weights' type, and B zero. The draws
// depend on the seed, the layer and the linear alone. A target that matches nothing is an error that names the linears.
func NewAdapter(b kernels.Backend, c Config, ac AdapterConfig, seed uint64, round kernels.DType) (*Adapter, error) {
	places, err := targeted(c, ac)
	if err != nil {
		return nil, fmt.Errorf("make an adapter: %w", err)
	}
	a := &Adapter{Config: ac, backend: b}
	for _, at := range places {
		out, in := c.LinearShape(at.linear)
		if ac.R < 1 || ac.R > maxRank {
			a.Free()
			return nil, fmt.Errorf("make an adapter: rank %d is not within 1 and %d", ac.R, maxRank)
		}
		m, err := a.add(at, out, in)
		if err != nil {
			return nil, err
		}
		b.Upload(m.A, kernels.AsBytes(start(seed, m, ac.R, in, round)))
	}
	if err := b.Sync(); err != nil {
		a.Free()
		return nil, err
	}
	return a, nil
}

// place is a linear of the model: of a layer QProj … FC2, or LMHead in layer -1.
type place struct{ layer, linear int }

func (p place) weight() string { return LinearPath(p.layer, p.linear) + ".weight" }

// places are the model's linears in order, a tied output projection included.
func (c Config) places() []place {
	var all []place
	for i := range c.Layers {
		for l := range LinearsPerLayer {
			all = append(all, place{i, l})
		}
	}
	return append(all, place{-1, LMHead})
}

// targeted are the linears that an adapter adapts: as in PEFT those whose path is a target or ends in one, of the chosen
// layers.
func targeted(c Config, ac AdapterConfig) ([]place, error) {
	if len(ac.Targets) == 0 {
		return nil, fmt.Errorf("no targets; name some of %s", strings.Join(LinearNames[:], ", "))
	}
	for _, i := range ac.Layers {
		if i < 0 || i >= c.Layers {
			return nil, fmt.Errorf("layer %d is not one of the model's %d", i, c.Layers)
		}
	}
	matched, chosen := map[string]bool{}, map[int]bool{}
	for _, target := range ac.Targets {
		matched[target] = false
	}
	for _, i := range ac.Layers {
		chosen[i] = true
	}
	var found []place
	for _, at := range c.places() {
		hit := false
		for rest, more := LinearPath(at.layer, at.linear), true; more; _, rest, more = strings.Cut(rest, ".") {
			if _, ok := matched[rest]; ok {
				matched[rest], hit = true, true
			}
		}
		if !hit || ac.Layers != nil && !chosen[at.layer] {
			continue
		}
		if at.linear == LMHead && c.Tied {
			return nil, errors.New("lm_head is tied to the embedding and cannot be a target")
		}
		found = append(found, at)
	}
	for _, target := range ac.Targets {
		if !matched[target] {
			return nil, fmt.Errorf("target %.60q matches nothing in the model; its linears are %s", target, strings.Join(LinearNames[:], ", "))
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("targets %q match nothing in layers %v", ac.Targets, ac.Layers)
	}
	return found, nil
}

// add reserves a module of A and B; when it fails it frees the adapter.
func (a *Adapter) add(at place, out, in int) (*LoRA, error) {
	r := a.Config.R
	m := &LoRA{Layer: at.layer, Linear: at.linear, Scale: float32(a.Config.Alpha / float64(r))}
	if a.Config.RSLoRA {
		m.Scale = float32(a.Config.Alpha / math.Sqrt(float64(r)))
	}
	a.Modules = append(a.Modules, m)
	var err error
	if m.A, err = a.backend.Alloc(kernels.F32, r, in); err == nil {
		m.B, err = a.backend.Alloc(kernels.F32, out, r)
	}
	if err != nil {
		a.Free()
		return nil, fmt.Errorf("reserve memory for the adapter: %w", err)
	}
	return m, nil
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
	At          int // its first element's place in the adapter's Values and Grads
}

// Parameters are the adapter's trained tensors in a fixed order: by module, A before B.
func (a *Adapter) Parameters() []Parameter {
	var p []Parameter
	at := 0
	for _, m := range a.Modules {
		path := tensorPrefix + LinearPath(m.Layer, m.Linear)
		second := at + padded(m.A)
		p = append(p, Parameter{path + ".lora_A.weight", m.A, m.GradA, at}, Parameter{path + ".lora_B.weight", m.B, m.GradB, second})
		at = second + padded(m.B)
	}
	return p
}

// padded is the number of a tensor's elements, rounded up to whole blocks of the optimiser.
func padded(t kernels.Tensor) int {
	return (t.Len() + kernels.AdamBlock - 1) / kernels.AdamBlock * kernels.AdamBlock
}

// EnableGrad reserves the gradients, which start at zero, and moves the weights so that what concerns all of them is one
// operation.
func (a *Adapter) EnableGrad() error {
	if !a.Values.IsZero() {
		return nil
	}
	n := 0
	for _, m := range a.Modules {
		n += padded(m.A) + padded(m.B)
	}
	values, err := a.backend.Alloc(kernels.F32, 1, n)
	if err != nil {
		return fmt.Errorf("reserve memory for the adapter: %w", err)
	}
	grads, err := a.backend.Alloc(kernels.F32, 1, n)
	if err != nil {
		a.backend.Free(values)
		return fmt.Errorf("reserve memory for the adapter's gradients: %w", err)
	}
	a.Values, a.Grads = values, grads
	at := 0
	for _, m := range a.Modules {
		for _, t := range []struct{ value, grad *kernels.Tensor }{{&m.A, &m.GradA}, {&m.B, &m.GradB}} {
			rows, cols := t.value.Rows, t.value.Cols
			view := func(all kernels.Tensor) kernels.Tensor { return part(all, at, at+rows*cols).Reshape(rows, cols) }
			moved := view(values)
			a.backend.Copy(moved, *t.value)
			a.backend.Free(*t.value)
			*t.value, *t.grad = moved, view(grads)
			at += padded(moved)
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
		if a.Values.IsZero() {
			a.backend.Free(m.A)
			a.backend.Free(m.B)
		}
		m.A, m.B, m.GradA, m.GradB = kernels.Tensor{}, kernels.Tensor{}, kernels.Tensor{}, kernels.Tensor{}
	}
	a.backend.Free(a.Values)
	a.backend.Free(a.Grads)
	a.Values, a.Grads = kernels.Tensor{}, kernels.Tensor{}
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

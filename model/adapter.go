package model

import "quartet/kernels"

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

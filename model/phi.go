// Package model is Phi: its configuration, weights, forward and backward passes, KV cache, sampling, LoRA adapters,
// NF4 checkpoints and merging. Forward and backward are written once, over the operations of package kernels.
package model

import "quartet/kernels"

// Linear is a frozen linear layer: weight (out, in) in fp16, bf16, fp32 or NF4, and bias (1, out).
type Linear struct {
	Weight, Bias kernels.Tensor
}

// Layer is one block's weights. One LayerNorm feeds both the attention and the MLP branch.
type Layer struct {
	NormWeight, NormBias kernels.Tensor
	Linears              [LinearsPerLayer]Linear // indexed by QProj … FC2
}

// The linears of a layer, as indexes into Layer.Linears, and the output projection, LMHead.
const (
	QProj = iota
	KProj
	VProj
	Dense
	FC1
	FC2
	LinearsPerLayer
	LMHead = LinearsPerLayer
)

// LinearNames are the names by which LoRA targets name the linears, indexed by QProj … LMHead.
var LinearNames = [...]string{"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2", "lm_head"}

// linearPaths are the linears' places inside a layer of a checkpoint; lm_head stands outside the layers.
var linearPaths = [...]string{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense", "mlp.fc1", "mlp.fc2"}

// Weights is a Phi model's frozen weights in a backend's memory. Several Models may share one.
type Weights struct {
	Config               Config
	Embed                kernels.Tensor // (V, D)
	Layers               []Layer
	NormWeight, NormBias kernels.Tensor
	Head                 Linear // (V, D), the embedding itself where tied

	// Between, if not nil, is called between layers, so that other work can have the device meanwhile. Its error ends the pass
	// at once, which returns it.
	Between func() error

	backend kernels.Backend
	owned   []kernels.Tensor
	pieces  map[string]*piece // the plain tensors, by their names in the checkpoint
	closers []func() error
}

// Model is weights with, for a LoRA variant, an adapter.
type Model struct {
	*Weights
	Adapter *Adapter // nil for none
}

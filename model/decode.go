package model

import (
	"fmt"

	"quartet/kernels"
)

// planDecode plans the fused step of one sequence's next token where the backend has one for the model; c.decode stays nil
// where it has none, and operations do the work.
func (c *Cache) planDecode() error {
	d, ok := c.pass.b.(kernels.Decoder)
	if !ok {
		return nil
	}
	m := c.pass.m
	linear := func(layer, l int) kernels.DecodeLinear {
		w := m.Weights.linear(layer, l)
		out := kernels.DecodeLinear{Weight: w.Weight, Bias: w.Bias}
		if a := m.Adapter.Find(layer, l); a != nil {
			out.A, out.B, out.Scale = a.A, a.B, a.Scale
		}
		return out
	}
	plan := kernels.DecodeModel{
		Embed: m.Embed, NormWeight: m.NormWeight, NormBias: m.NormBias, Head: linear(-1, LMHead),
		Heads: c.pass.heads, Eps: m.Config.LayerNormEps, Rotary: c.pass.rotary,
	}
	for i, l := range m.Layers {
		plan.Layers = append(plan.Layers, kernels.DecodeLayer{
			NormWeight: l.NormWeight, NormBias: l.NormBias, Keys: c.k[i], Values: c.v[i],
			Q: linear(i, QProj), K: linear(i, KProj), V: linear(i, VProj), Dense: linear(i, Dense), FC1: linear(i, FC1), FC2: linear(i, FC2),
		})
	}
	decode, err := d.NewDecode(plan)
	c.decode = decode
	return err
}

// next extends one sequence by one token in the fused step.
func (c *Cache) next(sequence int, id int32) ([][]float32, error) {
	if err := c.pass.m.between(); err != nil {
		return nil, err
	}
	if V := c.pass.m.Config.VocabSize; id < 0 || int(id) >= V {
		return nil, fmt.Errorf("run the model: token id %d is outside the vocabulary of %d", id, V)
	}
	if c.logits[0] == nil {
		c.logits[0] = make([]float32, c.pass.m.Config.VocabSize)
	}
	err := c.decode.Logits(c.logits[0], id, sequence*c.capacity, c.length[sequence])
	c.length[sequence]++
	return c.logits[:1], err
}

package model

import (
	"context"
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

// canRunAhead reports whether the device can choose the tokens of an answer itself: the likeliest ones.
func (c *Cache) canRunAhead(s Sampling) bool { return c.decode != nil && s.Temperature == 0 }

// ahead is how many tokens the device chooses before the host looks at them: it may do a few for nothing.
const ahead = 16

// runAhead goes on from a token of sequence 0, which is not in the cache yet, with the likeliest tokens, until accept is false.
func (c *Cache) runAhead(ctx context.Context, token int32, seen map[int32]struct{}, o *GenerateOptions, accept func(id int32) bool) error {
	V := c.pass.m.Config.VocabSize
	choice := kernels.Choice{Penalty: 1}
	if o.Allowed != nil {
		choice.Allowed = bits(V, func(id int32) bool { return o.Allowed(id) })
	}
	if p := float32(o.RepetitionPenalty); p != 0 && p != 1 {
		choice.Penalty = p
		choice.Seen = bits(V, func(id int32) bool { _, ok := seen[id]; return ok })
	}
	if err := c.decode.Choose(choice); err != nil {
		return err
	}
	chosen := make([]int32, ahead)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.pass.m.between(); err != nil {
			return err
		}
		chosen := chosen[:min(ahead, c.capacity-c.length[0])]
		if err := c.decode.Greedy(chosen, token, 0, c.length[0]); err != nil {
			return err
		}
		c.length[0] += len(chosen)
		for _, id := range chosen {
			if !accept(id) {
				return nil
			}
		}
		token = chosen[len(chosen)-1]
	}
}

// bits is a set of tokens, a bit each.
func bits(n int, in func(id int32) bool) []uint32 {
	set := make([]uint32, (n+31)/32)
	for id := range int32(n) {
		if in(id) {
			set[id/32] |= 1 << (id % 32)
		}
	}
	return set
}

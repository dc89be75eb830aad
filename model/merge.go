package model

import (
	"fmt"

	"quartet/kernels"
	"quartet/safetensors"
)

// What an adapter is merged into: the base's own weights, the sum rounded to their type, or the base's weights as they are
// after quantising, which a QLoRA adapter was trained against. The exact sum in fp32 is what both are measured by.
const (
	intoFP16        = "fp16"
	intoDequantized = "dequantized"
	intoExact       = "exact"
)

// MergeStats tell what merging and quantising did to the weights. The two errors are those of the adapted matrices'
// dequantised weights against W + scale·B·A in fp32, relative to its root mean square: of merging into the 16-bit base, and
// of merging into the base's own dequantised weights, which a QLoRA adapter was trained against.
type MergeStats struct {
	QuantizeStats
	FP16Error        float64 `json:"merged_fp16_error"`
	DequantizedError float64 `json:"merged_dequantized_error"`
}

// merge writes the source with the adapter merged into its weights.
func (c *conversion) merge() error {
	var entries []safetensors.Entry
	for _, name := range c.ck.Names() {
		e, err := c.entry(name)
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	if err := safetensors.WriteFolder(c.dst, entries, shardBytes); err != nil {
		return err
	}
	return c.finish(c.raw)
}

// MergeQuantize merges an adapter into a 16- or 32-bit base and quantises once, without writing the merged model. into is
// "fp16", the base's own weights, or "dequantized", its weights after quantising; linears that are not adapted are
// quantised from the base in either case, and an adapted lm_head stays in the base's type. Both ways' errors are measured
// whichever is taken. Memory and progress are as with Quantize.
func MergeQuantize(b kernels.Backend, base, adapter, dst string, o QuantizeOptions, into string, progress Progress) (MergeStats, error) {
	if into != intoFP16 && into != intoDequantized {
		return MergeStats{}, fmt.Errorf("merge into %q; it is %q or %q", into, intoFP16, intoDequantized)
	}
	c, err := newMerge(b, base, adapter, dst, progress)
	if err != nil {
		return MergeStats{}, err
	}
	defer c.close()
	var fp16, dequantized [2]float64
	s, err := c.quantize(o, into, func(at place) error {
		if c.adapter.Find(at.layer, at.linear) == nil {
			return nil
		}
		exact, _, err := c.target(at, intoExact, o)
		if err != nil {
			return err
		}
		defer c.b.Free(exact)
		if err := c.measure(&fp16, at, intoFP16, o, exact); err != nil {
			return err
		}
		return c.measure(&dequantized, at, intoDequantized, o, exact)
	})
	if err != nil {
		return MergeStats{}, fmt.Errorf("merge %s into %s: %w", adapter, base, err)
	}
	return MergeStats{s, relative(fp16), relative(dequantized)}, nil
}

func newMerge(b kernels.Backend, base, adapter, dst string, progress Progress) (*conversion, error) {
	c, err := newConversion(b, base, dst, progress)
	if err != nil {
		return nil, err
	}
	if c.adapter, err = LoadAdapter(b, c.config, adapter); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// measure merges and quantises a linear and adds up the squares of its error against exact, and of exact.
func (c *conversion) measure(sums *[2]float64, at place, into string, o QuantizeOptions, exact kernels.Tensor) error {
	w, q, err := c.targetNF4(at, o, into)
	if err != nil {
		return err
	}
	c.b.Free(w)
	defer freeNF4(c.b, q)
	s, err := c.squares(q, exact)
	if err != nil {
		return fmt.Errorf("tensor %s: %w", at.weight(), err)
	}
	sums[0], sums[1] = sums[0]+s[0], sums[1]+s[1]
	return nil
}

// target is the weight that takes a linear's place: its own, or where it is adapted W + scale·B·A. round is the type of the
// source's. The caller frees it.
func (c *conversion) target(at place, into string, o QuantizeOptions) (t kernels.Tensor, round kernels.DType, err error) {
	w, err := c.weight(at)
	if err != nil {
		return t, 0, err
	}
	m := c.adapter.Find(at.layer, at.linear)
	if m == nil {
		return w, w.DType, nil
	}
	defer c.b.Free(w)
	sum, err := c.b.Alloc(kernels.F32, w.Rows, w.Cols)
	if err != nil {
		return t, 0, err
	}
	if into == intoDequantized {
		q, err := c.nf4(w, w.DType, o)
		if err != nil {
			c.b.Free(sum)
			return t, 0, err
		}
		c.b.DequantizeNF4(sum, q)
		freeNF4(c.b, q)
	} else {
		c.b.Copy(sum, w)
	}
	c.b.MatMul(sum, m.B, m.A, false, false, m.Scale, 1)
	if into != intoFP16 {
		return sum, w.DType, nil
	}
	defer c.b.Free(sum)
	if t, err = c.b.Alloc(w.DType, w.Rows, w.Cols); err == nil {
		c.b.Copy(t, sum)
	}
	return t, w.DType, err
}

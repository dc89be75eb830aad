package model

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"quartet/kernels"
	"quartet/safetensors"
)

// MergeStats tell what merging and quantising did to the weights. The two errors are those of the adapted matrices'
// dequantised weights against W + scale·B·A in fp32, relative to its root mean square: of merging into the 16-bit base, and
// of merging into the base's own dequantised weights, which a QLoRA adapter was trained against.
type MergeStats struct {
	QuantizeStats
	FP16Error        float64 `json:"merged_fp16_error"`
	DequantizedError float64 `json:"merged_dequantized_error"`
}

// Merge writes the 16-bit model in folder base with the adapter merged into its weights: W + scale·B·A, added in fp32 and
// rounded once. dst is an empty folder. progress, which may be nil, is told how many bytes are done.
func Merge(b kernels.Backend, base, adapter, dst string, progress func(done, total int64)) error {
	c, a, err := newMerge(b, base, adapter, dst, progress)
	if err != nil {
		return err
	}
	defer c.close()
	defer a.Free()
	var entries []safetensors.Entry
	for _, name := range c.ck.Names() {
		e, err := c.copied(name)
		if err != nil {
			return err
		}
		if m := a.byWeight(name); m != nil {
			e.Data = func() ([]byte, error) { return c.mergedBytes(m) }
		}
		entries = append(entries, e)
	}
	if err := safetensors.WriteFolder(dst, entries, shardBytes); err != nil {
		return fmt.Errorf("merge %s into %s: %w", adapter, base, err)
	}
	return errors.Join(os.WriteFile(filepath.Join(dst, "config.json"), c.raw, 0o666), copyCompanions(base, dst))
}

// MergeQuantize merges an adapter into a 16-bit base and quantises once, without writing the merged model. into is "fp16",
// the base's own weights, or "dequantized", its weights after quantising. Both ways' errors are measured in either case.
func MergeQuantize(b kernels.Backend, base, adapter, dst string, o QuantizeOptions, into string, progress func(done, total int64)) (MergeStats, error) {
	if into != "fp16" && into != "dequantized" {
		return MergeStats{}, fmt.Errorf("merge into %q; it is \"fp16\" or \"dequantized\"", into)
	}
	c, a, err := newMerge(b, base, adapter, dst, progress)
	if err != nil {
		return MergeStats{}, err
	}
	defer c.close()
	defer a.Free()
	if head := a.Find(-1, LMHead); head != nil {
		c.replaced = map[string]func() ([]byte, error){"lm_head.weight": func() ([]byte, error) { return c.mergedBytes(head) }}
	}
	var fp16, dequantized [2]float64
	s, err := c.quantize(o, func(layer, l int, w kernels.Tensor) (kernels.Tensor, error) {
		m := a.Find(layer, l)
		if m == nil && into == "fp16" {
			return w, nil
		}
		viaBase, err := c.dequantized(w, o)
		if err != nil || m == nil {
			return viaBase, err
		}
		c.addDelta(viaBase, m)
		ideal, err := c.widened(w)
		if err != nil {
			c.b.Free(viaBase)
			return ideal, err
		}
		defer c.b.Free(ideal)
		c.addDelta(ideal, m)
		rounded, err := c.b.Alloc(w.DType, w.Rows, w.Cols)
		if err != nil {
			c.b.Free(viaBase)
			return rounded, err
		}
		c.b.Copy(rounded, ideal)
		chosen, other := rounded, viaBase
		if into == "dequantized" {
			chosen, other = viaBase, rounded
		}
		err = errors.Join(c.measure(&fp16, rounded, ideal, w.DType, o), c.measure(&dequantized, viaBase, ideal, w.DType, o))
		c.b.Free(other)
		return chosen, err
	})
	if err != nil {
		return MergeStats{}, fmt.Errorf("merge %s into %s: %w", adapter, base, err)
	}
	return MergeStats{s, relative(fp16), relative(dequantized)}, nil
}

func newMerge(b kernels.Backend, base, adapter, dst string, progress func(done, total int64)) (*conversion, *Adapter, error) {
	c, err := newConversion(b, base, dst, progress)
	if err != nil {
		return nil, nil, err
	}
	a, err := LoadAdapter(b, c.config, adapter)
	if err != nil {
		c.close()
		return nil, nil, err
	}
	return c, a, nil
}

// byWeight is the module that adapts the linear whose weight has a name, nil for none.
func (a *Adapter) byWeight(name string) *LoRA {
	for _, m := range a.Modules {
		if LinearPath(m.Layer, m.Linear)+".weight" == name {
			return m
		}
	}
	return nil
}

// addDelta adds a module's scale·B·A to w, in fp32.
func (c *conversion) addDelta(w kernels.Tensor, m *LoRA) {
	c.b.MatMul(w, m.B, m.A, false, false, m.Scale, 1)
}

// widened is a copy of w in F32.
func (c *conversion) widened(w kernels.Tensor) (kernels.Tensor, error) {
	t, err := c.b.Alloc(kernels.F32, w.Rows, w.Cols)
	if err == nil {
		c.b.Copy(t, w)
	}
	return t, err
}

// dequantized is w after quantising, in F32.
func (c *conversion) dequantized(w kernels.Tensor, o QuantizeOptions) (kernels.Tensor, error) {
	q, err := AllocNF4(c.b, w.Rows, w.Cols, nf4Block, w.DType, o.DoubleQuant)
	if err != nil {
		return q, err
	}
	defer freeNF4(c.b, q)
	t, err := c.b.Alloc(kernels.F32, w.Rows, w.Cols)
	if err == nil {
		c.b.QuantizeNF4(q, w)
		c.b.DequantizeNF4(t, q)
		err = c.b.Sync()
	}
	return t, err
}

// measure quantises w and adds to sums its error against ideal.
func (c *conversion) measure(sums *[2]float64, w, ideal kernels.Tensor, round kernels.DType, o QuantizeOptions) error {
	q, err := AllocNF4(c.b, w.Rows, w.Cols, nf4Block, round, o.DoubleQuant)
	if err != nil {
		return err
	}
	defer freeNF4(c.b, q)
	c.b.QuantizeNF4(q, w)
	s, err := c.difference(q, ideal)
	sums[0], sums[1] = sums[0]+s[0], sums[1]+s[1]
	return err
}

// mergedBytes is a linear's weight with its module merged, in the source's type.
func (c *conversion) mergedBytes(m *LoRA) ([]byte, error) {
	w, err := c.weight(m.Layer, m.Linear)
	if err != nil {
		return nil, err
	}
	defer c.b.Free(w)
	sum, err := c.widened(w)
	if err != nil {
		return nil, err
	}
	defer c.b.Free(sum)
	c.addDelta(sum, m)
	rounded, err := c.b.Alloc(w.DType, w.Rows, w.Cols)
	if err != nil {
		return nil, err
	}
	defer c.b.Free(rounded)
	c.b.Copy(rounded, sum)
	data := make([]byte, rounded.Bytes())
	c.b.Download(data, rounded)
	c.advance(len(data))
	return data, c.b.Sync()
}

package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"quartet/kernels"
	"quartet/safetensors"
)

// Convert writes a model as a plain folder of 16-bit weights into the empty folder dst. NF4 weights of a bitsandbytes
// folder are dequantised and rounded once, to the type that they had before they were quantised (where that is float32 they
// stay unrounded). With an adapter, a PEFT folder, its product is added in fp32 to the weights as a loader sees them, and
// the sum is rounded once; without one adapter is "", and src must be quantised. One matrix is in memory at a time. progress,
// which may be nil, is told how many bytes of the source have been read.
func Convert(b kernels.Backend, src, adapter, dst string, progress Progress) error {
	c, err := openConversion(b, src, dst, progress)
	if err != nil {
		return err
	}
	defer c.close()
	if !c.config.Quantized && adapter == "" {
		return fmt.Errorf("convert %s: it is not quantised, so there is nothing to do; name an adapter to merge", src)
	}
	if adapter != "" {
		if c.adapter, err = LoadAdapter(b, c.config, adapter); err != nil {
			return err
		}
		if c.adapter.IsZero() {
			return fmt.Errorf("convert %s: every B of adapter %s is zero, as before training, so that merging it would change nothing; give one that was trained", src, adapter)
		}
	}
	if c.config.Quantized {
		err = c.dequantize()
	} else {
		err = c.merge()
	}
	if err != nil {
		return fmt.Errorf("convert %s: %w", src, err)
	}
	return nil
}

func (c *conversion) dequantize() error {
	var entries []safetensors.Entry
	for _, name := range c.ck.Names() {
		if at, ok := c.stateOf(name); ok && at.linear != LMHead {
			if err := c.advance(name); err != nil {
				return err
			}
			continue
		}
		e, err := c.plainEntry(name)
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	if err := safetensors.WriteFolder(c.dst, entries, shardBytes); err != nil {
		return err
	}
	config, err := plainConfig(c.raw)
	if err != nil {
		return err
	}
	return c.finish(config)
}

// stateOf is the linear to whose quantised weight's state a tensor belongs.
func (c *conversion) stateOf(name string) (place, bool) {
	const weight = ".weight"
	i := strings.Index(name, weight+".")
	if i < 0 {
		return place{}, false
	}
	at, ok := c.linears[name[:i+len(weight)]]
	return at, ok
}

// plainEntry is a tensor of a quantised source as the new folder has it: dequantised where it is in NF4.
func (c *conversion) plainEntry(name string) (safetensors.Entry, error) {
	at, ok := c.linears[name]
	if !ok || at.linear == LMHead {
		return c.entry(name)
	}
	out, in := c.config.LinearShape(at.linear)
	t, found, err := FindNF4(c.ck, name, out, in)
	if err != nil {
		return safetensors.Entry{}, err
	}
	if !found { // left in 16 bits
		w, err := importPlain(c.b, c.ck, name, out, in)
		if err != nil {
			return safetensors.Entry{}, err
		}
		c.b.Free(w)
		return c.entry(name)
	}
	return safetensors.Entry{Name: name, DType: storedAs[t.Quant.Round], Shape: []int{out, in}, Data: func() ([]byte, error) {
		data, err := c.mergedBytes(at)
		return data, errors.Join(err, c.advance(name))
	}}, nil
}

// dequantized brings a layer's weight into the backend's memory, in the type it had before it was quantised; the caller
// frees it.
func (c *conversion) dequantized(at place) (kernels.Tensor, error) {
	out, in := c.config.LinearShape(at.linear)
	q, err := readQuantized(c.b, c.ck, at.weight(), out, in)
	if err != nil || q.DType != kernels.NF4 {
		return q, err
	}
	defer freeNF4(c.b, q)
	w, err := c.b.Alloc(q.Quant.Round, out, in)
	if err != nil {
		return kernels.Tensor{}, err
	}
	c.b.DequantizeNF4(w, q)
	return w, nil
}

// plainConfig is a config.json without its quantization_config.
func plainConfig(raw []byte) ([]byte, error) {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber() // numbers stay as they are written
	var config map[string]any
	if err := d.Decode(&config); err != nil {
		return nil, err
	}
	delete(config, "quantization_config")
	return sortedJSON(config)
}

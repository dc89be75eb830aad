package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"quartet/kernels"
	"quartet/safetensors"
)

// QuantizeOptions say how a model is quantised to NF4.
type QuantizeOptions struct {
	DoubleQuant  bool   // quantise the block scales too
	ComputeDType string // what a loader computes in: float16, bfloat16 or float32
}

// QuantizeStats tell what quantising did to the weights: the root mean square error relative to that of the weights.
type QuantizeStats struct {
	Matrices int     `json:"matrices"`
	Bytes    int64   `json:"tensor_bytes"`    // of the written tensors
	RMSError float64 `json:"rms_error"`       // of all quantised weights
	WorstRMS float64 `json:"worst_rms_error"` // of one matrix
}

// Quantize writes the 16- or 32-bit model in folder src as a bitsandbytes 4-bit checkpoint into the empty folder dst: the
// layers' linears in NF4, all else as it is. One matrix is in memory at a time. progress, which may be nil, is told how
// many bytes of the source have been read; a linear's are read twice.
func Quantize(b kernels.Backend, src, dst string, o QuantizeOptions, progress Progress) (QuantizeStats, error) {
	c, err := newConversion(b, src, dst, progress)
	if err != nil {
		return QuantizeStats{}, err
	}
	defer c.close()
	s, err := c.quantize(o, intoFP16, func(place) error { return nil })
	if err != nil {
		return QuantizeStats{}, fmt.Errorf("quantize %s: %w", src, err)
	}
	return s, nil
}

// quantize writes the 4-bit folder in two passes over the linears, since a file's header tells the length of every
// state, which depends on the scales: the first keeps each linear's scales, the second makes the codes when they are
// written. into says how an adapter is merged first; visit is called for each linear in the first pass.
func (c *conversion) quantize(o QuantizeOptions, into string, visit func(at place) error) (QuantizeStats, error) {
	var s QuantizeStats
	if _, ok := dtypeOf(o.ComputeDType); !ok {
		return s, fmt.Errorf("compute dtype %q is not float16, bfloat16 or float32", o.ComputeDType)
	}
	for name, at := range c.linears {
		if t, err := c.ck.Get(name); err == nil && at.linear != LMHead {
			c.total += int64(len(t.Data))
		}
	}
	var entries []safetensors.Entry
	var all [2]float64
	for _, name := range c.ck.Names() {
		at, ok := c.linears[name]
		if !ok || at.linear == LMHead {
			e, err := c.entry(name)
			if err != nil {
				return s, err
			}
			entries = append(entries, e)
			continue
		}
		if err := visit(at); err != nil {
			return s, err
		}
		made, sums, err := c.quantizeLinear(at, o, into)
		if err != nil {
			return s, err
		}
		if err := c.advance(name); err != nil {
			return s, err
		}
		entries = append(entries, made...)
		all[0], all[1] = all[0]+sums[0], all[1]+sums[1]
		s.WorstRMS = max(s.WorstRMS, relative(sums))
		s.Matrices++
	}
	s.RMSError = relative(all)
	for _, e := range entries {
		n := e.DType.Size()
		for _, d := range e.Shape {
			n *= d
		}
		s.Bytes += int64(n)
	}
	config, err := quantizedConfig(c.raw, o)
	if err != nil {
		return s, err
	}
	if err := safetensors.WriteFolder(c.dst, entries, shardBytes); err != nil {
		return s, err
	}
	return s, c.finish(config)
}

// quantizeLinear is one linear's tensors in the 4-bit folder, and the squares of the error and of the weights. The codes stay
// in a GPU's memory until they are written; in the host's, where the base may fill the memory, they are made again.
func (c *conversion) quantizeLinear(at place, o QuantizeOptions, into string) ([]safetensors.Entry, [2]float64, error) {
	var sums [2]float64
	w, q, err := c.targetNF4(at, o, into)
	if err != nil {
		return nil, sums, err
	}
	defer c.b.Free(w)
	keep := c.b.Name() == "cuda"
	if keep {
		c.kept = append(c.kept, q)
	} else {
		defer freeNF4(c.b, q)
	}
	if sums, err = c.squares(q, w); err != nil {
		return nil, sums, fmt.Errorf("tensor %s: %w", at.weight(), err)
	}
	entries := quantEntries(c.b, at.weight(), q, func() ([]byte, error) {
		made := q
		if !keep {
			w, again, err := c.targetNF4(at, o, into)
			if err != nil {
				return nil, err
			}
			defer c.b.Free(w)
			defer freeNF4(c.b, again)
			made = again
		}
		made.Quant = nil
		codes := make([]byte, made.Bytes())
		c.b.Download(codes, made)
		return codes, errors.Join(c.b.Sync(), c.advance(at.weight()))
	})
	return entries, sums, c.b.Sync()
}

// targetNF4 is the weight that takes a linear's place, and it in NF4; the caller frees both.
func (c *conversion) targetNF4(at place, o QuantizeOptions, into string) (w, q kernels.Tensor, err error) {
	w, round, err := c.target(at, into, o)
	if err != nil {
		return w, q, err
	}
	if q, err = c.nf4(w, round, o); err != nil {
		c.b.Free(w)
	}
	return w, q, err
}

// nf4 quantises w, whose dequantised weights are to be rounded to a type; the caller frees the result.
func (c *conversion) nf4(w kernels.Tensor, round kernels.DType, o QuantizeOptions) (kernels.Tensor, error) {
	q, err := AllocNF4(c.b, w.Rows, w.Cols, nf4Block, round, o.DoubleQuant)
	if err == nil {
		c.b.QuantizeNF4(q, w)
	}
	return q, err
}

// quantizedConfig is a config.json with bitsandbytes' quantization_config, as transformers writes it.
func quantizedConfig(raw []byte, o QuantizeOptions) ([]byte, error) {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber() // numbers stay as they are written
	var config map[string]any
	if err := d.Decode(&config); err != nil {
		return nil, err
	}
	config["quantization_config"] = map[string]any{
		"_load_in_4bit": true, "_load_in_8bit": false, "bnb_4bit_compute_dtype": o.ComputeDType, "bnb_4bit_quant_storage": "uint8",
		"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": o.DoubleQuant, "llm_int8_enable_fp32_cpu_offload": false,
		"llm_int8_has_fp16_weight": false, "llm_int8_skip_modules": nil, "llm_int8_threshold": json.Number("6.0"),
		"load_in_4bit": true, "load_in_8bit": false, "quant_method": "bitsandbytes",
	}
	return sortedJSON(config)
}

package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"quartet/kernels"
	"quartet/safetensors"
)

// shardBytes is the largest shard that is written, Hugging Face's classic limit.
const shardBytes = 5_000_000_000

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
// layers' linears in NF4, all else as it is. The codes of the whole model are held in memory until they are written.
// progress, which may be nil, is told how many of the source's bytes are done.
func Quantize(b kernels.Backend, src, dst string, o QuantizeOptions, progress func(done, total int64)) (QuantizeStats, error) {
	c, err := newConversion(b, src, dst, progress)
	if err != nil {
		return QuantizeStats{}, err
	}
	defer c.close()
	s, err := c.quantize(o, func(layer, l int, w kernels.Tensor) (kernels.Tensor, error) { return w, nil })
	if err != nil {
		return QuantizeStats{}, fmt.Errorf("quantize %s: %w", src, err)
	}
	return s, nil
}

// conversion makes a new model folder of a 16- or 32-bit one, tensor by tensor.
type conversion struct {
	b        kernels.Backend
	src, dst string
	config   Config
	raw      []byte // config.json
	ck       *safetensors.Checkpoint
	linears  map[string][2]int                 // a linear's tensor name: layer, linear
	replaced map[string]func() ([]byte, error) // the bytes of tensors that are neither quantised nor copied
	progress func(done, total int64)
	done     int64
	total    int64
}

func newConversion(b kernels.Backend, src, dst string, progress func(done, total int64)) (*conversion, error) {
	c := &conversion{b: b, src: src, dst: dst, progress: progress, linears: map[string][2]int{}}
	if c.progress == nil {
		c.progress = func(int64, int64) {}
	}
	var err error
	if c.config, err = ReadConfig(src); err != nil {
		return nil, err
	}
	if c.config.Quantized {
		return nil, fmt.Errorf("%s is quantised already; give the 16-bit model it was made from", src)
	}
	if c.raw, err = os.ReadFile(filepath.Join(src, "config.json")); err != nil {
		return nil, err
	}
	if c.ck, err = safetensors.OpenFolder(src); err != nil {
		return nil, err
	}
	for i := range c.config.Layers {
		for l := range LinearsPerLayer {
			c.linears[LinearPath(i, l)+".weight"] = [2]int{i, l}
		}
	}
	for _, name := range c.ck.Names() {
		if t, err := c.ck.Get(name); err == nil {
			c.total += int64(len(t.Data))
		}
	}
	return c, nil
}

func (c *conversion) close() { c.ck.Close() }

// advance tells progress of n more bytes of the source.
func (c *conversion) advance(n int) {
	c.done += int64(n)
	c.progress(c.done, c.total)
}

// weight brings a linear's weight into the backend's memory; the caller frees it.
func (c *conversion) weight(layer, l int) (kernels.Tensor, error) {
	out, in := c.config.LinearShape(l)
	return importPlain(c.b, c.ck, LinearPath(layer, l)+".weight", out, in)
}

// copied is an entry that copies a tensor of the source.
func (c *conversion) copied(name string) (safetensors.Entry, error) {
	t, err := c.ck.Get(name)
	if err != nil {
		return safetensors.Entry{}, err
	}
	return safetensors.Entry{Name: name, DType: t.DType, Shape: t.Shape, Data: func() ([]byte, error) {
		c.advance(len(t.Data))
		return t.Data, nil
	}}, nil
}

// quantize writes the 4-bit folder. change gives the weights that are quantised in the place of a linear's, in F32 or the
// source's type; what it returns besides its argument is freed.
func (c *conversion) quantize(o QuantizeOptions, change func(layer, l int, w kernels.Tensor) (kernels.Tensor, error)) (QuantizeStats, error) {
	var s QuantizeStats
	var entries []safetensors.Entry
	var wrong, size float64
	for _, name := range c.ck.Names() {
		at, ok := c.linears[name]
		if !ok {
			e, err := c.copied(name)
			if err != nil {
				return s, err
			}
			if data, ok := c.replaced[name]; ok {
				e.Data = data
			}
			entries = append(entries, e)
			continue
		}
		made, sums, err := c.quantizeLinear(at[0], at[1], o, change)
		if err != nil {
			return s, fmt.Errorf("%s: %w", name, err)
		}
		entries = append(entries, made...)
		wrong, size = wrong+sums[0], size+sums[1]
		s.WorstRMS = max(s.WorstRMS, relative(sums))
		s.Matrices++
		if t, err := c.ck.Get(name); err == nil {
			c.advance(len(t.Data))
		}
	}
	if math.IsNaN(wrong) || math.IsInf(wrong, 0) {
		return s, errors.New("the weights hold a NaN or an infinity; check the base model's files")
	}
	s.RMSError = relative([2]float64{wrong, size})
	if err := safetensors.WriteFolder(c.dst, entries, shardBytes); err != nil {
		return s, err
	}
	for _, e := range entries {
		n := e.DType.Size()
		for _, d := range e.Shape {
			n *= d
		}
		s.Bytes += int64(n)
	}
	text, err := quantizedConfig(c.raw, o)
	if err != nil {
		return s, err
	}
	return s, errors.Join(os.WriteFile(filepath.Join(c.dst, "config.json"), text, 0o666), copyCompanions(c.src, c.dst))
}

// quantizeLinear quantises one linear and measures the squares of the error and of the weights.
func (c *conversion) quantizeLinear(layer, l int, o QuantizeOptions, change func(layer, l int, w kernels.Tensor) (kernels.Tensor, error)) ([]safetensors.Entry, [2]float64, error) {
	var sums [2]float64
	source, err := c.weight(layer, l)
	if err != nil {
		return nil, sums, err
	}
	defer c.b.Free(source)
	w, err := change(layer, l, source)
	if err != nil {
		return nil, sums, err
	}
	if w.Addr != source.Addr || unsafe.SliceData(w.Host) != unsafe.SliceData(source.Host) {
		defer c.b.Free(w)
	}
	q, err := AllocNF4(c.b, w.Rows, w.Cols, nf4Block, source.DType, o.DoubleQuant)
	if err != nil {
		return nil, sums, err
	}
	defer freeNF4(c.b, q)
	c.b.QuantizeNF4(q, w)
	if sums, err = c.difference(q, w); err != nil {
		return nil, sums, err
	}
	entries, err := quantEntries(c.b, LinearPath(layer, l)+".weight", q)
	return entries, sums, err
}

// difference is the squares of a quantised matrix's error against w and of w, each summed.
func (c *conversion) difference(q, w kernels.Tensor) (sums [2]float64, err error) {
	var scratch [3]kernels.Tensor
	for i, rows := range []int{w.Rows, w.Rows, 1} {
		cols := w.Cols
		if i == 2 {
			cols = 1
		}
		if scratch[i], err = c.b.Alloc(kernels.F32, rows, cols); err != nil {
			return sums, err
		}
		defer c.b.Free(scratch[i])
	}
	error32, w32, sum := scratch[0], scratch[1], scratch[2]
	c.b.DequantizeNF4(error32, q)
	c.b.Copy(w32, w)
	c.b.Scale(w32, -1)
	c.b.Add(error32, error32, w32)
	for i, t := range []kernels.Tensor{error32, w32} {
		var host [1]float32
		c.b.Zero(sum)
		c.b.SumSquares(sum, t)
		c.b.Download(kernels.AsBytes(host[:]), sum)
		sums[i] = float64(host[0])
	}
	return sums, c.b.Sync()
}

func relative(sums [2]float64) float64 {
	if sums[1] == 0 {
		return 0
	}
	return math.Sqrt(sums[0] / sums[1])
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

// companions are the files that go with a model's weights.
var companions = []string{"generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
	"vocab.json", "merges.txt", "added_tokens.json"}

// copyCompanions copies the generation settings and the tokenizer, as far as src has them.
func copyCompanions(src, dst string) error {
	for _, name := range companions {
		data, err := os.ReadFile(filepath.Join(src, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dst, name), data, 0o666)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

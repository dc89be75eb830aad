package model

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"quartet/kernels"
	"quartet/safetensors"
)

// shardBytes is the largest shard that is written, Hugging Face's classic limit.
const shardBytes = 5_000_000_000

// Progress is told how many bytes of a conversion's source have been read, of how many. Its error, such as a context's,
// ends the conversion.
type Progress func(done, total int64) error

// conversion makes a new model folder of another. Tensors are read, changed and written one at a time.
type conversion struct {
	b        kernels.Backend
	src, dst string
	config   Config
	raw      []byte // config.json
	ck       *safetensors.Checkpoint
	linears  map[string]place // of the weights' names
	adapter  *Adapter         // merged into the weights; nil for none
	kept     []kernels.Tensor // NF4 matrices that wait on a device to be written
	progress Progress
	done     int64
	total    int64 // bytes of the source to be read, as often as they are
}

// newConversion opens a 16- or 32-bit source, which has every linear that its configuration asks for.
func newConversion(b kernels.Backend, src, dst string, progress Progress) (*conversion, error) {
	c, err := openConversion(b, src, dst, progress)
	if err == nil && c.config.Quantized {
		c.close()
		return nil, fmt.Errorf("convert %s: it is quantised already; give the 16-bit model it was made from", src)
	}
	return c, err
}

// openConversion opens a source of any kind that Load takes.
func openConversion(b kernels.Backend, src, dst string, progress Progress) (*conversion, error) {
	c := &conversion{b: b, src: src, dst: dst, progress: progress, linears: map[string]place{}}
	if c.progress == nil {
		c.progress = func(int64, int64) error { return nil }
	}
	var err error
	if c.config, err = ReadConfig(src); err != nil {
		return nil, err
	}
	if c.raw, err = os.ReadFile(filepath.Join(src, "config.json")); err != nil {
		return nil, err
	}
	if c.ck, err = safetensors.OpenFolder(src); err != nil {
		return nil, err
	}
	for _, at := range c.config.places() {
		if at.linear == LMHead && c.config.Tied {
			continue
		}
		if _, err := c.ck.Get(at.weight()); err != nil {
			c.close()
			return nil, err
		}
		c.linears[at.weight()] = at
	}
	for _, name := range c.ck.Names() {
		if t, err := c.ck.Get(name); err == nil {
			c.total += int64(len(t.Data))
		}
	}
	return c, nil
}

func (c *conversion) close() {
	for _, q := range c.kept {
		freeNF4(c.b, q)
	}
	c.ck.Close()
	c.adapter.Free()
}

// advance tells progress that a tensor of the source has been read, and returns its error.
func (c *conversion) advance(name string) error {
	t, err := c.ck.Get(name)
	if err != nil {
		return err
	}
	c.done += int64(len(t.Data))
	return c.progress(c.done, c.total)
}

// weight brings a linear's weight into the backend's memory, dequantised where it is in NF4; the caller frees it.
func (c *conversion) weight(at place) (kernels.Tensor, error) {
	if c.config.Quantized && at.linear != LMHead {
		return c.dequantized(at)
	}
	out, in := c.config.LinearShape(at.linear)
	return importPlain(c.b, c.ck, at.weight(), out, in)
}

// entry is a tensor of the source as the new folder has it: merged where the adapter changes it, else copied.
func (c *conversion) entry(name string) (safetensors.Entry, error) {
	t, err := c.ck.Get(name)
	if err != nil {
		return safetensors.Entry{}, err
	}
	e := safetensors.Entry{Name: name, DType: t.DType, Shape: t.Shape}
	if at, ok := c.linears[name]; ok && c.adapter.Find(at.layer, at.linear) != nil {
		e.Data = func() ([]byte, error) {
			data, err := c.mergedBytes(at)
			return data, errors.Join(err, c.advance(name))
		}
	} else {
		e.Data = func() ([]byte, error) {
			return t.Data, c.advance(name)
		}
	}
	return e, nil
}

// mergedBytes is a linear's merged weight in the source's type.
func (c *conversion) mergedBytes(at place) ([]byte, error) {
	w, _, err := c.target(at, intoFP16, QuantizeOptions{})
	if err != nil {
		return nil, err
	}
	defer c.b.Free(w)
	data := make([]byte, w.Bytes())
	c.b.Download(data, w)
	if err := c.b.Sync(); err != nil {
		return nil, err
	}
	if !finite(w.DType, data) {
		return nil, errNotFinite
	}
	return data, nil
}

var errNotFinite = errors.New("a weight is not finite or too large for its type; check the base model's files and the adapter")

// finite reports whether no element is a NaN or an infinity.
func finite(d kernels.DType, data []byte) bool {
	size := d.Bytes(1)
	// The exponent's bits stand in the upper two of an element's bytes; all of them set mean a NaN or an infinity.
	mask := map[kernels.DType]uint16{kernels.F16: 0x7c00, kernels.BF16: 0x7f80, kernels.F32: 0x7f80}[d]
	for i := size - 2; i < len(data); i += size {
		if (uint16(data[i])|uint16(data[i+1])<<8)&mask == mask {
			return false
		}
	}
	return true
}

// squares adds up the squares of an NF4 matrix's errors against w, and of w. They must be finite.
func (c *conversion) squares(q, w kernels.Tensor) (sums [2]float64, err error) {
	if b, ok := c.b.(interface {
		ErrorNF4(x, w kernels.Tensor) (moved, whole float64)
	}); ok {
		sums[0], sums[1] = b.ErrorNF4(q, w)
		return sums, finiteSums(sums)
	}
	wide := w
	if w.DType != kernels.F32 {
		if wide, err = c.b.Alloc(kernels.F32, w.Rows, w.Cols); err != nil {
			return sums, err
		}
		defer c.b.Free(wide)
		c.b.Copy(wide, w)
	}
	apart, err := c.b.Alloc(kernels.F32, w.Rows, w.Cols)
	if err != nil {
		return sums, err
	}
	defer c.b.Free(apart)
	sum, err := c.b.Alloc(kernels.F32, 1, 1)
	if err != nil {
		return sums, err
	}
	defer c.b.Free(sum)
	c.b.DequantizeNF4(apart, q)
	c.b.Scale(apart, -1)
	c.b.Add(apart, apart, wide)
	for i, t := range []kernels.Tensor{apart, wide} {
		var host [1]float32
		c.b.Zero(sum)
		c.b.SumSquares(sum, t)
		c.b.Download(kernels.AsBytes(host[:]), sum)
		sums[i] = float64(host[0])
	}
	if err := c.b.Sync(); err != nil {
		return sums, err
	}
	return sums, finiteSums(sums)
}

func finiteSums(sums [2]float64) error {
	if total := sums[0] + sums[1]; math.IsNaN(total) || math.IsInf(total, 0) {
		return errNotFinite
	}
	return nil
}

// relative is the root mean square error relative to the root mean square of what it is an error of.
func relative(sums [2]float64) float64 {
	if sums[1] == 0 {
		return 0
	}
	return math.Sqrt(sums[0] / sums[1])
}

// companions are the files that go with a model's weights.
var companions = []string{"generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
	"vocab.json", "merges.txt", "added_tokens.json", "chat_template.jinja"}

// maxCompanion bounds a companion in bytes, far above any.
const maxCompanion = 1 << 28

// finish writes config.json and copies the generation settings and the tokenizer, as far as the source has them.
func (c *conversion) finish(config []byte) error {
	if err := os.WriteFile(filepath.Join(c.dst, "config.json"), config, 0o666); err != nil {
		return err
	}
	for _, name := range companions {
		data, err := readText(filepath.Join(c.src, name), maxCompanion)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(c.dst, name), data, 0o666)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

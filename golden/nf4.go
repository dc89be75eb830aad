package golden

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"quartet/kernels"
	"quartet/model"
	"quartet/safetensors"
)

var kernelTypes = map[safetensors.DType]kernels.DType{"F32": kernels.F32, "F16": kernels.F16, "BF16": kernels.BF16}

// nf4Vectors quantises each input of nf4_vectors, and dequantises bitsandbytes' bytes: the errors count elements that
// differ, blocks of zeros compared by value.
func nf4Vectors(b kernels.Backend, dir string) ([]Check, error) {
	ref, err := openVectors(dir, "phi", "nf4_vectors.safetensors")
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	var decode, encode, cases int
	for _, in := range ref.Tensors() {
		name, ok := strings.CutSuffix(in.Name, ".in")
		if !ok {
			continue
		}
		cases++
		d, e, err := nf4Vector(b, ref, name, in)
		if err != nil {
			return nil, fmt.Errorf("nf4_vectors %s: %w", name, err)
		}
		decode, encode = decode+d, encode+e
	}
	if cases == 0 {
		return nil, fmt.Errorf("nf4_vectors holds no inputs: %w", os.ErrNotExist)
	}
	return []Check{Measure("phi/nf4/decode", float64(decode), 0), Measure("phi/nf4/encode", float64(encode), 0)}, nil
}

func nf4Vector(b kernels.Backend, ref vectors, name string, in safetensors.Tensor) (decode, encode int, err error) {
	var block int
	var round string
	parts := strings.Split(name, ".")
	if len(parts) != 4 || len(in.Shape) != 2 {
		return 0, 0, fmt.Errorf("unknown layout")
	}
	round = parts[1]
	if _, err := fmt.Sscanf(parts[2], "bs%d", &block); err != nil {
		return 0, 0, err
	}
	nested := parts[3] == "dq"
	d, ok := map[string]kernels.DType{"f16": kernels.F16, "bf16": kernels.BF16, "f32": kernels.F32}[round]
	if !ok || kernelTypes[in.DType] != d {
		return 0, 0, fmt.Errorf("dtype %s for %s", in.DType, round)
	}
	rows, cols := in.Shape[0], in.Shape[1]
	var owned []kernels.Tensor
	defer func() {
		for _, t := range owned {
			b.Free(t)
		}
	}()
	own := func(t kernels.Tensor, failed error) kernels.Tensor {
		owned, err = append(owned, t), errors.Join(err, failed)
		return t
	}
	want, got := own(model.AllocNF4(b, rows, cols, block, d, nested)), own(model.AllocNF4(b, rows, cols, block, d, nested))
	out, input := own(b.Alloc(d, rows, cols)), own(b.Alloc(d, rows, cols))
	if err != nil {
		return 0, 0, err
	}
	get := func(suffix string) []byte {
		t, _ := ref.Get(name + suffix)
		return t.Data
	}
	b.Upload(input, in.Data)
	b.Upload(want, get(".packed"))
	b.Upload(want.Quant.Absmax, get(".absmax"))
	if nested {
		b.Upload(want.Quant.NestedAbsmax, get(".nested_absmax"))
		offset, err := ref.floats(name + ".nested_offset")
		if err != nil {
			return 0, 0, err
		}
		want.Quant.NestedOffset = offset[0]
	}
	b.DequantizeNF4(out, want)
	decode = differences(read(b, out), get(".dequant"), d.Bytes(1))
	b.QuantizeNF4(got, input)
	values, err := floats(in)
	if err != nil {
		return 0, 0, err
	}
	gotCodes, wantCodes := read(b, got), get(".packed")
	for i := range values {
		shift := 4 * (1 - i%2)
		if gotCodes[i/2]>>shift&15 != wantCodes[i/2]>>shift&15 && !zeroBlock(values, i/block*block, block) {
			encode++
		}
	}
	encode += differences(read(b, got.Quant.Absmax), get(".absmax"), 1)
	if nested {
		t := got.Quant.NestedAbsmax
		g := kernels.HostTensor(t.DType, t.Rows, t.Cols, read(b, t)).F32s()
		w, err := ref.floats(name + ".nested_absmax")
		if err != nil {
			return 0, 0, err
		}
		for i := range w {
			if math.Abs(float64(g[i]-w[i])) > 3e-7*math.Max(math.Abs(float64(w[i])), math.Abs(float64(want.Quant.NestedOffset))) {
				encode++
			}
		}
	}
	return decode, encode, b.Sync()
}

// read is a tensor's elements in host memory, of NF4 the codes.
func read(b kernels.Backend, t kernels.Tensor) []byte {
	data := make([]byte, t.DType.Bytes(t.Len()))
	b.Download(data, t)
	return data
}

// differences is how many of the elements of some bytes differ from those wanted.
func differences(got, want []byte, size int) (n int) {
	for at := 0; at < len(want); at += size {
		if !bytes.Equal(got[at:at+size], want[at:at+size]) {
			n++
		}
	}
	return n
}

func zeroBlock(values []float32, from, n int) bool {
	for _, v := range values[from:min(from+n, len(values))] {
		if v != 0 {
			return false
		}
	}
	return true
}

// nf4Checkpoint quantises the reference's base and compares the written folder with the one that transformers wrote:
// the error counts tensors whose name, dtype, shape or content differ, and differences of config.json.
func nf4Checkpoint(b kernels.Backend, dir string) ([]Check, error) {
	ref, err := openVectors(dir, "phi", "nf4", "model.safetensors")
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	got, out, release, err := written(func(out string) error {
		_, err := model.Quantize(b, filepath.Join(dir, "phi", "base"), out, model.QuantizeOptions{DoubleQuant: true, ComputeDType: "float16"}, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer release()
	differ := 0
	if len(got.Tensors()) != len(ref.Tensors()) {
		differ++
	}
	for _, want := range ref.Tensors() {
		t, ok := got.Get(want.Name)
		if !ok || t.DType != want.DType || !reflect.DeepEqual(t.Shape, want.Shape) || !sameContent(t, want) {
			differ++
		}
	}
	configs := make([]map[string]any, 2)
	for i, path := range []string{filepath.Join(out, "config.json"), filepath.Join(dir, "phi", "nf4", "config.json")} {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &configs[i]); err != nil {
			return nil, err
		}
	}
	if !reflect.DeepEqual(configs[0], configs[1]) {
		differ++
	}
	return []Check{Measure("phi/nf4/checkpoint", float64(differ), 0)}, nil
}

// sameContent compares a tensor of the 4-bit checkpoint: bytes exactly, the scales' mean and what is computed from it to 3e-7.
func sameContent(got, want safetensors.Tensor) bool {
	switch {
	case strings.Contains(want.Name, "quant_state."):
		var g, w map[string]any
		if json.Unmarshal(got.Data, &g) != nil || json.Unmarshal(want.Data, &w) != nil {
			return false
		}
		a, _ := g["nested_offset"].(float64)
		b, _ := w["nested_offset"].(float64)
		delete(g, "nested_offset")
		delete(w, "nested_offset")
		return reflect.DeepEqual(g, w) && math.Abs(a-b) <= 3e-7*math.Abs(b)
	case strings.HasSuffix(want.Name, ".nested_absmax"):
		g, _ := floats(got)
		w, _ := floats(want)
		d, largest := farthest(g, w)
		return d <= 1e-6*largest
	}
	return bytes.Equal(got.Data, want.Data)
}

// nf4Logits compares the logits of bitsandbytes' checkpoint: unrounded weights with fp32 logits, rounded ones with fp16 logits.
func nf4Logits(b kernels.Backend, dir string) ([]Check, error) {
	ref, err := openVectors(dir, "phi", "nf4_forward.safetensors")
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	batch, err := ref.batch()
	if err != nil {
		return nil, err
	}
	m, err := load(b, dir, "phi", "nf4")
	if err != nil {
		return nil, err
	}
	defer m.Close()
	half, err := allLogits(m, batch)
	if err != nil {
		return nil, err
	}
	for _, l := range m.Layers {
		for _, linear := range l.Linears {
			linear.Weight.Quant.Round = kernels.F32
		}
	}
	full, err := allLogits(m, batch)
	if err != nil {
		return nil, err
	}
	want32, err := ref.floats("logits_fp32_compute")
	if err != nil {
		return nil, err
	}
	want16, err := ref.floats("logits_fp16")
	if err != nil {
		return nil, err
	}
	d, largest := farthest(full, want32)
	return append([]Check{Measure("phi/nf4/logits", d/largest, limit32)}, fp16Logits("phi/nf4/logits_fp16", half, want16)...), nil
}

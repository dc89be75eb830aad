package model

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"quartet/kernels"
	"quartet/safetensors"
)

// nf4Block is how many weights share an absmax in the checkpoints written here, as by default in bitsandbytes.
const nf4Block = 64

// What bitsandbytes puts behind a weight's name; fp4 and nf4 follow.
const quantStateSuffix = ".quant_state.bitsandbytes__"

// AllocNF4 reserves an NF4 matrix and its scales: block weights share an absmax, with double quantisation in 8 bits.
func AllocNF4(b kernels.Backend, rows, cols, block int, round kernels.DType, double bool) (kernels.Tensor, error) {
	t, err := b.Alloc(kernels.NF4, rows, cols)
	if err != nil {
		return kernels.Tensor{}, err
	}
	q := kernels.NewQuant(rows*cols, block, round, double)
	for _, s := range []*kernels.Tensor{&q.Absmax, &q.NestedAbsmax} {
		if s.IsZero() {
			continue
		}
		if *s, err = b.Alloc(s.DType, s.Rows, s.Cols); err != nil {
			b.Free(t)
			return kernels.Tensor{}, err
		}
	}
	t.Quant = q
	return t, nil
}

// freeNF4 gives back an NF4 matrix and its scales.
func freeNF4(b kernels.Backend, t kernels.Tensor) {
	b.Free(t.Quant.Absmax)
	b.Free(t.Quant.NestedAbsmax)
	t.Quant = nil
	b.Free(t)
}

// quantState is the JSON that bitsandbytes keeps beside a quantised weight.
type quantState struct {
	QuantType       string   `json:"quant_type"`
	BlockSize       int      `json:"blocksize"`
	DType           string   `json:"dtype"`
	Shape           []int    `json:"shape"`
	NestedBlockSize int      `json:"nested_blocksize"`
	NestedDType     string   `json:"nested_dtype"`
	NestedOffset    *float64 `json:"nested_offset"`
}

// text is the state as Python's json.dumps writes it.
func (s quantState) text() string {
	out := fmt.Sprintf(`{"quant_type": %q, "blocksize": %d, "dtype": %q, "shape": [%d, %d]`, s.QuantType, s.BlockSize, s.DType, s.Shape[0], s.Shape[1])
	if s.NestedOffset != nil {
		out += fmt.Sprintf(`, "nested_blocksize": %d, "nested_dtype": %q, "nested_offset": %s`, s.NestedBlockSize, s.NestedDType, pythonFloat(*s.NestedOffset))
	}
	return out + "}"
}

// pythonFloat is the shortest decimal that reads back as f, as Python's repr writes it.
func pythonFloat(f float64) string {
	if size := math.Abs(f); size != 0 && (size < 1e-4 || size >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	text := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

// parseQuantState reads and checks the state of a weight of rows × cols.
func parseQuantState(data []byte, rows, cols int) (quantState, error) {
	var s quantState
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("its quant_state is not JSON: %w", err)
	}
	switch {
	case s.QuantType != "nf4":
		return s, fmt.Errorf("quant_type %q is not supported, only nf4", s.QuantType)
	case !slices.Equal(s.Shape, []int{rows, cols}):
		return s, fmt.Errorf("its quant_state has shape %v, but config.json asks for [%d %d]", s.Shape, rows, cols)
	case s.BlockSize < 16 || s.BlockSize > 1<<14 || s.BlockSize&(s.BlockSize-1) != 0:
		return s, fmt.Errorf("blocksize %d is not a power of two from 16 to 16384", s.BlockSize)
	case s.NestedOffset != nil && (s.NestedBlockSize < 1 || s.NestedBlockSize > 1<<20 || s.NestedDType != "float32"):
		return s, fmt.Errorf("nested_blocksize %d of %q is not supported, only float32", s.NestedBlockSize, s.NestedDType)
	}
	if _, ok := dtypeOf(s.DType); !ok {
		return s, fmt.Errorf("dtype %q is not float16, bfloat16 or float32", s.DType)
	}
	return s, nil
}

// dtypeOf is the floating type that torch calls name.
func dtypeOf(name string) (kernels.DType, bool) {
	for _, d := range []kernels.DType{kernels.F16, kernels.BF16, kernels.F32} {
		if d.String() == name {
			return d, true
		}
	}
	return 0, false
}

// readQuantized takes a weight of rows × cols from a bitsandbytes 4-bit checkpoint; one that was left in 16 bits is taken
// as it is.
func readQuantized(b kernels.Backend, ck *safetensors.Checkpoint, name string, rows, cols int) (kernels.Tensor, error) {
	codes, err := ck.Get(name)
	if err != nil {
		return kernels.Tensor{}, err
	}
	if codes.DType != "U8" {
		return importPlain(b, ck, name, rows, cols)
	}
	t, err := quantizedTensor(ck, codes, rows, cols)
	if err != nil {
		return kernels.Tensor{}, fmt.Errorf("tensor %s: %w", name, err)
	}
	return b.Import(t)
}

func quantizedTensor(ck *safetensors.Checkpoint, codes safetensors.Tensor, rows, cols int) (kernels.Tensor, error) {
	none := kernels.Tensor{}
	if _, err := ck.Get(codes.Name + quantStateSuffix + "fp4"); err == nil {
		return none, errors.New("quant_type fp4 is not supported, only nf4; quantise the base again")
	}
	blob, err := ck.Get(codes.Name + quantStateSuffix + "nf4")
	if err != nil {
		return none, err
	}
	s, err := parseQuantState(blob.Data, rows, cols)
	if err != nil {
		return none, err
	}
	n := rows * cols
	if len(codes.Data) != (n+1)/2 {
		return none, fmt.Errorf("%d bytes of codes for %d weights", len(codes.Data), n)
	}
	round, _ := dtypeOf(s.DType)
	q := kernels.NewQuant(n, s.BlockSize, round, s.NestedOffset != nil)
	if err := sameMap(ck, codes.Name+".quant_map", kernels.NF4Values[:]); err != nil {
		return none, err
	}
	if q.Absmax, err = scales(ck, codes.Name+".absmax", q.Absmax); err != nil {
		return none, err
	}
	if s.NestedOffset != nil {
		if err := sameMap(ck, codes.Name+".nested_quant_map", kernels.SignedMap[:]); err != nil {
			return none, err
		}
		q.NestedBlockSize, q.NestedOffset = s.NestedBlockSize, float32(*s.NestedOffset)
		q.NestedAbsmax.Cols = (q.Absmax.Cols + s.NestedBlockSize - 1) / s.NestedBlockSize
		if q.NestedAbsmax, err = scales(ck, codes.Name+".nested_absmax", q.NestedAbsmax); err != nil {
			return none, err
		}
	}
	t := kernels.HostTensor(kernels.NF4, rows, cols, codes.Data)
	t.Quant = q
	return t, nil
}

// sameMap checks that a checkpoint's table of values is the one computed with here.
func sameMap(ck *safetensors.Checkpoint, name string, want []float32) error {
	t, err := ck.Get(name)
	if err != nil {
		return err
	}
	if t.DType != "F32" || len(t.Data) != 4*len(want) {
		return fmt.Errorf("%s is not %d float32 values", name, len(want))
	}
	for i, w := range want {
		if got := math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:])); got != w {
			return fmt.Errorf("%s[%d] is %g, not the standard %g", name, i, got, w)
		}
	}
	return nil
}

// scales is a vector of the checkpoint that must have the type and length of want.
func scales(ck *safetensors.Checkpoint, name string, want kernels.Tensor) (kernels.Tensor, error) {
	t, err := ck.Get(name)
	if err != nil {
		return kernels.Tensor{}, err
	}
	if d := map[kernels.DType]safetensors.DType{kernels.F32: "F32", kernels.U8: "U8"}[want.DType]; t.DType != d || len(t.Data) != want.Bytes() {
		return kernels.Tensor{}, fmt.Errorf("%s holds %d bytes of %s, not %d values of %s", name, len(t.Data), t.DType, want.Cols, d)
	}
	return kernels.HostTensor(want.DType, 1, want.Cols, t.Data), nil
}

// quantEntries are the tensors that bitsandbytes keeps for an NF4 weight, copied to host memory.
func quantEntries(b kernels.Backend, name string, t kernels.Tensor) ([]safetensors.Entry, error) {
	q := t.Quant
	bytesOf := func(t kernels.Tensor, n int) []byte {
		data := make([]byte, n)
		b.Download(data, t)
		return data
	}
	codes := t
	codes.Quant = nil
	entry := func(suffix string, d safetensors.DType, data []byte, shape ...int) safetensors.Entry {
		return safetensors.Entry{Name: name + suffix, DType: d, Shape: shape, Data: safetensors.Bytes(data)}
	}
	packed := (t.Len() + 1) / 2
	state := quantState{QuantType: "nf4", BlockSize: q.BlockSize, DType: q.Round.String(), Shape: []int{t.Rows, t.Cols}}
	entries := []safetensors.Entry{
		entry("", "U8", bytesOf(codes, packed), packed, 1),
		entry(".quant_map", "F32", kernels.AsBytes(kernels.NF4Values[:]), 16),
	}
	if q.NestedBlockSize == 0 {
		entries = append(entries, entry(".absmax", "F32", bytesOf(q.Absmax, q.Absmax.Bytes()), q.Absmax.Cols))
	} else {
		offset := float64(q.NestedOffset)
		state.NestedBlockSize, state.NestedDType, state.NestedOffset = q.NestedBlockSize, "float32", &offset
		entries = append(entries,
			entry(".absmax", "U8", bytesOf(q.Absmax, q.Absmax.Cols), q.Absmax.Cols),
			entry(".nested_absmax", "F32", bytesOf(q.NestedAbsmax, q.NestedAbsmax.Bytes()), q.NestedAbsmax.Cols),
			entry(".nested_quant_map", "F32", kernels.AsBytes(kernels.SignedMap[:]), 256))
	}
	text := []byte(state.text())
	entries = append(entries, entry(quantStateSuffix+"nf4", "U8", text, len(text)))
	return entries, b.Sync()
}

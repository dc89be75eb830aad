package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"quartet/kernels"
)

// quantState is the JSON that bitsandbytes keeps beside a quantised weight. The nested fields belong to double
// quantisation and are absent without it.
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

// pythonFloat is the shortest decimal that reads back as the finite number f, as Python's repr writes it.
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

// maxQuantState bounds a state's text in bytes; bitsandbytes writes some two hundred.
const maxQuantState = 4096

// parseQuantState reads and checks the state of a weight of rows × cols.
func parseQuantState(data []byte, rows, cols int) (quantState, error) {
	var s quantState
	if len(data) > maxQuantState {
		return s, fmt.Errorf("quant_state has %d bytes, more than %d", len(data), maxQuantState)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("quant_state cannot be read: %.200s", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return s, errors.New("quant_state goes on after its JSON")
	}
	if s.QuantType != "nf4" {
		return s, fmt.Errorf("quant_type %.60q is not supported, only nf4; quantise the base again", s.QuantType)
	}
	if !slices.Equal(s.Shape, []int{rows, cols}) {
		return s, fmt.Errorf("quant_state has shape %v, but config.json asks for [%d %d]", s.Shape, rows, cols)
	}
	if s.BlockSize < 16 || s.BlockSize > 1<<14 || s.BlockSize&(s.BlockSize-1) != 0 {
		return s, fmt.Errorf("blocksize %d is not a power of two from 16 to 16384", s.BlockSize)
	}
	if _, ok := dtypeOf(s.DType); !ok {
		return s, fmt.Errorf("dtype %.60q is not float16, bfloat16 or float32", s.DType)
	}
	if s.NestedOffset == nil {
		if s.NestedBlockSize != 0 || s.NestedDType != "" {
			return s, errors.New("nested_offset is missing")
		}
		return s, nil
	}
	if s.NestedBlockSize < 1 || s.NestedBlockSize > 1<<20 {
		return s, fmt.Errorf("nested_blocksize %d is not from 1 to 1048576", s.NestedBlockSize)
	}
	if s.NestedDType != "float32" {
		return s, fmt.Errorf("nested_dtype %.60q is not supported, only float32", s.NestedDType)
	}
	if math.IsInf(float64(float32(*s.NestedOffset)), 0) {
		return s, fmt.Errorf("nested_offset %g is beyond float32", *s.NestedOffset)
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

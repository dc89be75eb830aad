package model

import (
	"strings"
	"testing"
)

func TestPythonFloat(t *testing.T) {
	// What Python's repr says of the float32 nearest to each, widened.
	for want, f := range map[string]float64{
		"0.0": 0, "1.0": 1, "-2.5": -2.5, "0.10000000149011612": float64(float32(0.1)), "0.0001": 1e-4,
		"9.999999747378752e-05": float64(float32(1e-4)), "1e-05": 1e-5, "-9.999999747378752e-06": float64(float32(-1e-5)),
		"1e-45": 1e-45, "1000000000000000.0": 1e15, "1e+16": 1e16, "1.234567948140544e+16": float64(float32(1.2345679e16)),
		"60000.0": 60000, "3.4028234663852886e+38": 3.4028234663852886e38,
	} {
		if got := pythonFloat(f); got != want {
			t.Errorf("%g is written %s, not %s", f, got, want)
		}
	}
}

func TestQuantStateText(t *testing.T) {
	offset := float64(float32(0.18634))
	for want, s := range map[string]quantState{
		`{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [5, 7]}`: {QuantType: "nf4", BlockSize: 64, DType: "bfloat16", Shape: []int{5, 7}},
		`{"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [5, 7], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.18634000420570374}`: {
			QuantType: "nf4", BlockSize: 64, DType: "float16", Shape: []int{5, 7}, NestedBlockSize: 256, NestedDType: "float32", NestedOffset: &offset},
	} {
		if got := s.text(); got != want {
			t.Errorf("written %s, not %s", got, want)
		}
		back, err := parseQuantState([]byte(want), 5, 7)
		if err != nil || back.text() != want {
			t.Errorf("%s reads back as %+v, %v", want, back, err)
		}
	}
}

const goodState = `{"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [5, 7], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5}`

func TestBadQuantStatesAreRefused(t *testing.T) {
	for _, c := range []struct{ old, new, err string }{
		{goodState, ``, "quant_state cannot be read: EOF"},
		{`}`, `}` + strings.Repeat(" ", maxQuantState), "quant_state has 4245 bytes, more than 4096"},
		{goodState, `[]`, "quant_state cannot be read: json: cannot unmarshal array into Go value of type model.quantState"},
		{`}`, ``, "quant_state cannot be read: unexpected EOF"},
		{`}`, `} {}`, "quant_state goes on after its JSON"},
		{`}`, `, "more": 1}`, `quant_state cannot be read: json: unknown field "more"`},
		{`"nf4"`, `"fp4"`, `quant_type "fp4" is not supported, only nf4; quantise the base again`},
		{`[5, 7]`, `[7, 5]`, "quant_state has shape [7 5], but config.json asks for [5 7]"},
		{`[5, 7]`, `[35]`, "quant_state has shape [35], but config.json asks for [5 7]"},
		{`[5, 7]`, `null`, "quant_state has shape [], but config.json asks for [5 7]"},
		{`"blocksize": 64`, `"blocksize": 0`, "blocksize 0 is not a power of two from 16 to 16384"},
		{`"blocksize": 64`, `"blocksize": 65`, "blocksize 65 is not a power of two from 16 to 16384"},
		{`"blocksize": 64`, `"blocksize": 32768`, "blocksize 32768 is not a power of two from 16 to 16384"},
		{`"float16"`, `"float64"`, `dtype "float64" is not float16, bfloat16 or float32`},
		{`256`, `-1`, "nested_blocksize -1 is not from 1 to 1048576"},
		{`256`, `1048577`, "nested_blocksize 1048577 is not from 1 to 1048576"},
		{`"float32"`, `"float16"`, `nested_dtype "float16" is not supported, only float32`},
		{`0.5`, `1e39`, "nested_offset 1e+39 is beyond float32"},
		{`, "nested_offset": 0.5`, ``, "nested_offset is missing"},
		{`0.5`, `NaN`, "quant_state cannot be read: invalid character 'N' looking for beginning of value"},
	} {
		text := strings.Replace(goodState, c.old, c.new, 1)
		if _, err := parseQuantState([]byte(text), 5, 7); err == nil || err.Error() != c.err {
			t.Errorf("%s: error %v, not %s", text, err, c.err)
		}
	}
}

// FuzzQuantState: what is accepted is a state that is written and read back as the same.
func FuzzQuantState(f *testing.F) {
	f.Add([]byte(goodState))
	f.Add([]byte(`{"quant_type": "nf4", "blocksize": 4096, "dtype": "float32", "shape": [5, 7]}`))
	f.Add([]byte(`{"nested_offset": -1e-7, "shape": [5, 7`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseQuantState(data, 5, 7)
		if err != nil {
			return
		}
		back, err := parseQuantState([]byte(s.text()), 5, 7)
		if err != nil || back.text() != s.text() {
			t.Errorf("%s reads back as %s, %v", s.text(), back.text(), err)
		}
	})
}

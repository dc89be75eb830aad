// Package golden holds a folder of reference data, computed by the Python stack that this program replaces, against
// this build: the `quartet golden` command and the tests called TestGolden… run the same checks.
//
// The folder holds phi/ (a small Phi: forward, generation, NF4, LoRA, training runs, optimiser states), tokenizer/ and
// demo/ (the four variants of the embedded model). Any other model laid out the same way can be held against the build.
package golden

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"quartet/kernels"
	"quartet/model"
	"quartet/safetensors"
)

// Check is one comparison with the reference.
type Check struct {
	Check   string  `json:"check"`
	Error   float64 `json:"error"` // measured, in the unit of Limit; -1 where the check could not be made
	Limit   float64 `json:"limit"`
	OK      bool    `json:"ok"`
	Missing bool    `json:"missing,omitempty"` // the folder lacks the data
	Note    string  `json:"note,omitempty"`    // why it could not be made
}

// Measure is a check whose error must not exceed limit.
func Measure(name string, err, limit float64) Check {
	if math.IsNaN(err) || math.IsInf(err, 0) {
		return Check{Check: name, Error: -1, Limit: limit, Note: "the measured error is not finite"}
	}
	return Check{Check: name, Error: err, Limit: limit, OK: err <= limit}
}

// Failed is a check that could not be made: the data is missing, or computing failed.
func Failed(name string, err error) Check {
	return Check{Check: name, Error: -1, Missing: errors.Is(err, fs.ErrNotExist), Note: err.Error()}
}

// part is a group of checks over the same files; its names are reported as failed when it fails as a whole.
type part struct {
	names []string
	run   func(b kernels.Backend, dir string) ([]Check, error)
}

// parts are all groups, in the order in which they are reported.
var parts = []part{
	{[]string{"phi/forward/hidden", "phi/forward/logits", "phi/forward/loss"}, forward},
	{[]string{"phi/generate/greedy", "phi/generate/repetition_penalty"}, generate},
	{[]string{"phi/nf4/decode", "phi/nf4/encode"}, nf4Vectors},
	{[]string{"phi/nf4/checkpoint"}, nf4Checkpoint},
	{[]string{"phi/nf4/logits"}, nf4Logits},
	{[]string{"phi/lora/logits"}, loraLogits},
	{[]string{"phi/lora/merge"}, loraMerge},
	{[]string{"phi/lora/gradients"}, loraGradients},
	{nil, Train},
	{[]string{"phi/adamw8bit"}, adamW8bit},
	{[]string{"tokenizer/encode", "tokenizer/decode"}, tokenizers},
	{nil, Demo},
}

// Run makes every check on a folder and tells visit of each as it is done.
func Run(b kernels.Backend, dir string, visit func(Check)) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return fmt.Errorf("golden: %s is not a folder of reference data with phi/, tokenizer/ or demo/ in it", dir)
	}
	for _, p := range parts {
		checks, err := p.run(b, dir)
		for _, name := range p.names {
			if err != nil && !slices.ContainsFunc(checks, func(c Check) bool { return c.Check == name }) {
				checks = append(checks, Failed(name, err))
			}
		}
		if err != nil && len(p.names) == 0 {
			checks = append(checks, Failed("golden", err))
		}
		for _, c := range checks {
			if c, made := fit(c, b); made {
				visit(c)
			}
		}
	}
	return nil
}

// vectors is a safetensors file of reference data.
type vectors struct{ *safetensors.File }

func openVectors(dir ...string) (vectors, error) {
	path := filepath.Join(dir...)
	if _, err := os.Stat(path); err != nil {
		return vectors{}, err
	}
	f, err := safetensors.Open(path)
	return vectors{f}, err
}

// floats reads a tensor of any floating type as float32.
func (v vectors) floats(name string) ([]float32, error) {
	t, ok := v.Get(name)
	if !ok {
		return nil, fmt.Errorf("tensor %s: %w", name, fs.ErrNotExist)
	}
	return floats(t)
}

func floats(t safetensors.Tensor) ([]float32, error) {
	n := len(t.Data) / t.DType.Size()
	out := make([]float32, n)
	for i := range out {
		switch t.DType {
		case "F32":
			out[i] = math.Float32frombits(uint32(t.Data[4*i]) | uint32(t.Data[4*i+1])<<8 | uint32(t.Data[4*i+2])<<16 | uint32(t.Data[4*i+3])<<24)
		case "F16":
			out[i] = kernels.F16ToF32(uint16(t.Data[2*i]) | uint16(t.Data[2*i+1])<<8)
		case "BF16":
			out[i] = math.Float32frombits((uint32(t.Data[2*i]) | uint32(t.Data[2*i+1])<<8) << 16)
		default:
			return nil, fmt.Errorf("tensor %s has dtype %s, not a floating one", t.Name, t.DType)
		}
	}
	return out, nil
}

// rows reads an I64 tensor (rows, columns) as token ids.
func (v vectors) rows(name string) ([][]int32, error) {
	t, ok := v.Get(name)
	if !ok {
		return nil, fmt.Errorf("tensor %s: %w", name, fs.ErrNotExist)
	}
	if t.DType != "I64" || len(t.Shape) != 2 {
		return nil, fmt.Errorf("tensor %s is not I64 with two dimensions", name)
	}
	out := make([][]int32, t.Shape[0])
	for r := range out {
		out[r] = make([]int32, t.Shape[1])
		for c := range out[r] {
			out[r][c] = int32(t.Data[8*(r*t.Shape[1]+c)]) | int32(t.Data[8*(r*t.Shape[1]+c)+1])<<8 |
				int32(t.Data[8*(r*t.Shape[1]+c)+2])<<16 | int32(t.Data[8*(r*t.Shape[1]+c)+3])<<24
		}
	}
	return out, nil
}

// batch packs input_ids, with the labels where there are some.
func (v vectors) batch() (model.Batch, error) {
	ids, err := v.rows("input_ids")
	if err != nil {
		return model.Batch{}, err
	}
	b := model.Pack(ids...)
	if _, ok := v.Get("labels"); !ok {
		return b, nil
	}
	labels, err := v.rows("labels")
	for _, l := range labels {
		b.Labels = append(b.Labels, l...)
	}
	return b, err
}

// written opens the model that write puts into a temporary folder, which is gone once release is called.
func written(write func(dir string) error) (file vectors, dir string, release func(), err error) {
	if dir, err = os.MkdirTemp("", "quartet-golden-"); err != nil {
		return vectors{}, "", nil, err
	}
	if err = write(dir); err == nil {
		file, err = openVectors(dir, "model.safetensors")
	}
	if err != nil {
		os.RemoveAll(dir)
		return vectors{}, "", nil, err
	}
	return file, dir, func() { file.Close(); os.RemoveAll(dir) }, nil
}

// farthest is the largest difference of two vectors and the largest magnitude of the reference.
func farthest(got, want []float32) (difference, largest float64) {
	if len(got) != len(want) {
		return math.Inf(1), 1
	}
	for i, w := range want {
		d := math.Abs(float64(got[i]) - float64(w))
		if !(d <= difference) {
			difference = d
		}
		largest = max(largest, math.Abs(float64(w)))
	}
	return difference, largest
}

// rms is the root mean square difference of two vectors.
func rms(got, want []float32) float64 {
	var sum float64
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		sum += d * d
	}
	return math.Sqrt(sum / float64(max(len(want), 1)))
}

// apart is ‖got-want‖/‖want‖.
func apart(got, want []float32) float64 {
	var difference, size float64
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		difference, size = difference+d*d, size+float64(w)*float64(w)
	}
	if difference == 0 {
		return 0
	}
	return math.Sqrt(difference / size)
}

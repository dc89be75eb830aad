// Package bench measures how fast a model reads a prompt, generates and trains on this machine, in 16 bits and in NF4, and
// how near that is to the floor of the time that the machine's own memory and arithmetic set.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"quartet/eval"
	"quartet/kernels"
	"quartet/model"
)

// Options name the model: either Folder or Random.
type Options struct {
	Folder string // a 16-bit or a 4-bit model in Hugging Face's layout
	Random string // a shape of Shapes; the model is written to a temporary folder and removed afterwards
}

// Hooks are how a benchmark reports. Both must be set.
type Hooks struct {
	Note     func(text string)                                  // one line worth keeping
	Progress func(label string, done, total int64, unit string) // unit is "bytes" or "rows"
}

// Report is what a benchmark found.
type Report struct {
	Machine Machine   `json:"machine"`
	Model   Model     `json:"model"`
	Rows    []Row     `json:"rows"`
	LeftOut []LeftOut `json:"left_out,omitempty"`

	PeakBytes int64 `json:"peak_memory_bytes"` // of the process so far: weights, those in mapped files included, and all else
}

// Machine is what the figures were measured on.
type Machine struct {
	eval.Machine
	Path        string   `json:"path,omitempty"` // which of its kernels the backend uses
	Cores       int      `json:"cores"`          // logical
	Features    []string `json:"features,omitempty"`
	MemoryBytes int64    `json:"memory_bytes,omitempty"`

	ReadBytesPerSecond float64 `json:"read_bytes_per_second"`    // all threads, over a buffer far beyond the caches
	RegisterFlops      float64 `json:"register_flops,omitempty"` // fp32 multiply-adds on registers or tiles alone, all threads
	ProductFlops       float64 `json:"product_flops"`            // the backend's own large fp32 product
	FlopsFrom          string  `json:"flops_from"`               // which is the floors' rate: that of "registers" or "tiles", or of the "product"
}

// Model is what was run.
type Model struct {
	Name       string `json:"name"`
	Parameters int64  `json:"parameters"`
}

// Row is one kind of work. Rates are tokens a second: of the median run, and of the lower and the upper quartile in
// Spread.
type Row struct {
	Name            string     `json:"name"`
	Work            string     `json:"work"` // what a run does, in words
	TokensPerSecond float64    `json:"tokens_per_second"`
	Floor           float64    `json:"floor_tokens_per_second"` // that the machine sets
	FloorFrom       string     `json:"floor_from"`              // "memory" or "product"
	Share           float64    `json:"share"`                   // TokensPerSecond / Floor
	Runs            int        `json:"runs"`
	Spread          [2]float64 `json:"spread"`
	Seconds         float64    `json:"seconds"` // of the median run
	BytesPerToken   float64    `json:"bytes_per_token"`
	FlopsPerToken   float64    `json:"flops_per_token"`
	WeightsBytes    int64      `json:"weights_bytes"`
	DeviceBytes     int64      `json:"device_memory_bytes,omitempty"` // the GPU's memory at the peak of the row
	Got             float64    `json:"processor_share"`               // of the time of all threads; well below 1 where other programs took the rest
	Roof            Roof       `json:"roof"`                          // the bandwidth is that of a buffer as large as the weights, up to 1 GiB

}

// LeftOut is a row that was not measured, and why.
type LeftOut struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Run measures a model on b. What it writes lies in a folder of its own under the system's folder for temporary files
// (TMPDIR), and is gone when it returns. A row that can't be measured is left out with the reason; no row at all is an error.
func Run(ctx context.Context, b kernels.Backend, o Options, h Hooks) (*Report, error) {
	return run(ctx, b, o, h, full)
}

// run measures a model for as long as l says.
func run(ctx context.Context, b kernels.Backend, o Options, h Hooks, l limits) (*Report, error) {
	r := &Report{Model: Model{Name: filepath.Base(o.Folder)}}
	read := func() (model.Config, error) { return model.ReadConfig(o.Folder) }
	if o.Random != "" {
		r.Model.Name = "random " + o.Random
		read = func() (model.Config, error) { return randomConfig(o.Random) }
	}
	c, err := read()
	if err != nil {
		return nil, err
	}
	r.Model.Parameters = c.Parameters()
	var need int64
	if o.Random != "" {
		need += 2 * c.Parameters()
	}
	if !c.Quantized {
		need += nf4Bytes(c)
	}
	temp, err := os.MkdirTemp("", "quartet-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	if err := room(temp, need); err != nil {
		return nil, err
	}
	if need > 0 {
		h.Note(fmt.Sprintf("writing %s into %s, removed afterwards", bytes(need), temp))
	}
	r.Machine = thisMachine(b)
	s := session{ctx: ctx, b: b, hooks: h, limits: l, report: r}
	if err := s.roofs(); err != nil {
		return nil, err
	}
	folder := o.Folder
	if o.Random != "" {
		folder = filepath.Join(temp, "fp16")
		if err := os.Mkdir(folder, 0o777); err != nil {
			return nil, err
		}
		err := writeRandom(ctx, folder, o.Random, func(done, total int64) { h.Progress("random "+o.Random, done, total, "bytes") })
		if err != nil {
			return nil, err
		}
	}
	if c.Quantized {
		for _, k := range kindsOf(b) {
			r.LeftOut = append(r.LeftOut, LeftOut{k.name("fp16"), "the folder holds 4-bit weights only"})
		}
	} else {
		if err := s.measure(folder); err != nil {
			return nil, err
		}
		quantised := filepath.Join(temp, "nf4")
		if err := os.Mkdir(quantised, 0o777); err != nil {
			return nil, err
		}
		_, err := model.Quantize(b, folder, quantised, model.QuantizeOptions{DoubleQuant: true, ComputeDType: "float16"}, func(done, total int64) error {
			h.Progress("quantise to NF4", done, total, "bytes")
			return ctx.Err()
		})
		if err != nil {
			return nil, err
		}
		folder = quantised
	}
	if err := s.measure(folder); err != nil {
		return nil, err
	}
	if len(s.measured) == 0 {
		return nil, errors.New("nothing could be measured: " + r.LeftOut[0].Reason)
	}
	if err := s.roofs(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(s.measured, func(a, b measured) int { return a.kind - b.kind })
	for _, m := range s.measured {
		r.Rows = append(r.Rows, m.row(r.Machine))
	}
	r.PeakBytes = peakMemory()
	return r, nil
}

// peakMemory is the most memory that the process has had, mapped files included; 0 where it can't be told.
func peakMemory() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Maxrss << 10
}

// thisMachine describes the machine at hand, but for its roofs.
func thisMachine(b kernels.Backend) Machine {
	m := Machine{Machine: eval.ThisMachine(b), Cores: runtime.NumCPU(), Features: features(), MemoryBytes: memoryBytes()}
	if b, ok := b.(interface{ Path() string }); ok {
		m.Path = b.Path()
	}
	return m
}

// roof is what floors are computed from. own is the bandwidth of a smaller buffer that stands for weights which may stay
// in a cache, 0 for memory's.
func (m Machine) roof(own float64) Roof {
	r := Roof{Bandwidth: max(own, m.ReadBytesPerSecond), Flops: m.ProductFlops}
	if m.FlopsFrom != "product" {
		r.Flops = m.RegisterFlops
	}
	return r
}

// memoryBytes is the machine's memory, 0 where it can't be told.
func memoryBytes() int64 {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kib int64
	for line := range strings.Lines(string(info)) {
		if n, _ := fmt.Sscanf(line, "MemTotal: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

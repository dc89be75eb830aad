package golden

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"quartet/kernels"
	"quartet/model"
)

// Limits of fp32 logits and hidden states against the reference, as a share of its largest value; and of fp16 ones, absolute.
const (
	limit32    = 3e-5
	limit16Max = 1.5e-2
	limit16RMS = 2e-3
	// limitRounding is for how much farther 16-bit activations may lead from the reference's fp32 logits than its own fp16 does.
	limitRounding = 1.2
)

func load(b kernels.Backend, dir ...string) (*model.Model, error) {
	path := filepath.Join(dir...)
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	w, err := model.Load(b, path)
	if err != nil {
		return nil, err
	}
	return &model.Model{Weights: w}, nil
}

// allLogits are the logits (T,V) of a batch.
func allLogits(m *model.Model, batch model.Batch) ([]float32, error) {
	p, err := m.NewPass(len(batch.IDs), model.PassOptions{})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var want []int32
	for i := range batch.IDs {
		want = append(want, int32(i))
	}
	var out []float32
	return out, p.Logits(batch, want, func(_ int, l []float32) { out = append(out, l...) })
}

func forward(b kernels.Backend, dir string) ([]Check, error) {
	ref, err := openVectors(dir, "phi", "forward.safetensors")
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	m, err := load(b, dir, "phi", "base")
	if err != nil {
		return nil, err
	}
	defer m.Close()
	batch, err := ref.batch()
	if err != nil {
		return nil, err
	}
	p, err := m.NewPass(len(batch.IDs), model.PassOptions{})
	if err != nil {
		return nil, err
	}
	defer p.Close()

	var worst float64
	var failed error
	err = p.Hidden(batch, func(layer int, hidden []float32) {
		want, err := ref.floats(fmt.Sprintf("hidden_%d", layer))
		if err != nil {
			failed = err
			return
		}
		d, largest := farthest(hidden, want)
		worst = max(worst, d/largest)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	checks := []Check{Measure("phi/forward/hidden", worst, limit32)}

	logits, err := allLogits(m, batch)
	if err != nil {
		return checks, err
	}
	want, err := ref.floats("logits_fp32")
	if err != nil {
		return checks, err
	}
	d, largest := farthest(logits, want)
	checks = append(checks, Measure("phi/forward/logits", d/largest, limit32))
	if half, err := ref.floats("logits_fp16"); err == nil {
		checks = append(checks, fp16Logits("phi/forward/logits_fp16", logits, half)...)
		if b.Activations() != kernels.F32 {
			checks = append(checks, Measure("phi/forward/rounding", rms(logits, want)/rms(half, want), limitRounding))
		}
	}

	losses, err := p.Losses(batch)
	if err != nil {
		return checks, err
	}
	var sum float64
	for _, l := range losses {
		sum += float64(l)
	}
	loss, err := ref.floats("loss_fp32")
	if err != nil {
		return checks, err
	}
	return append(checks, Measure("phi/forward/loss", math.Abs(sum/float64(batch.Targets())-float64(loss[0])), 1e-5)), nil
}

// fp16Logits compares with logits that the reference computed in fp16.
func fp16Logits(name string, got, want []float32) []Check {
	d, _ := farthest(got, want)
	return []Check{Measure(name, d, limit16Max), Measure(name+"_rms", rms(got, want), limit16RMS)}
}

func generate(b kernels.Backend, dir string) ([]Check, error) {
	data, err := os.ReadFile(filepath.Join(dir, "phi", "generate.json"))
	if err != nil {
		return nil, err
	}
	var cases []struct {
		Prompt  []int32   `json:"prompt"`
		Greedy  []int32   `json:"greedy"`
		Margin  []float64 `json:"margin"`
		Penalty []int32   `json:"greedy_repetition_penalty_1_3"`
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		return nil, fmt.Errorf("generate.json: %w", err)
	}
	m, err := load(b, dir, "phi", "base")
	if err != nil {
		return nil, err
	}
	defer m.Close()
	var greedy, penalty int
	for _, c := range cases {
		run := func(n int, s model.Sampling) ([]int32, error) {
			g, err := m.Generate(context.Background(), [][]int32{c.Prompt}, model.GenerateOptions{MaxNew: n, Sampling: s})
			if err != nil {
				return nil, err
			}
			return g[0].IDs, nil
		}
		got, err := run(len(c.Greedy), model.Sampling{})
		if err != nil {
			return nil, err
		}
		for i, id := range c.Greedy {
			if got[i] == id {
				continue
			}
			if i >= len(c.Margin) || c.Margin[i] > closeCall(b) {
				greedy++
			}
			break // from here on the texts differ
		}
		if got, err = run(len(c.Penalty), model.Sampling{RepetitionPenalty: 1.3}); err != nil {
			return nil, err
		}
		for i, id := range c.Penalty {
			if got[i] != id {
				penalty++
			}
		}
	}
	return []Check{Measure("phi/generate/greedy", float64(greedy), 0), Measure("phi/generate/repetition_penalty", float64(penalty), 0)}, nil
}

package golden

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"quartet/dataset"
	"quartet/kernels"
	"quartet/model"
	"quartet/train"
)

// trainingRuns are the reference's runs of transformers' Trainer, each with the limits of its kind.
var trainingRuns = []struct {
	name, base string
	limits     runErrors
}{
	{"fp32_adamw", "base", limitsFP32},
	{"fp32_bs2_cosine", "base", limitsFP32},
	{"fp32_adam8bit_r32", "base", limits8bit},
	{"fp16_adamw", "base", limitsFP16},
	{"fp16_adam8bit_r32", "base", limitsFP16},
	{"qlora_fp16_adam8bit_r32", "nf4", limitsFP16},
}

// runErrors is how far a replayed run is from the reference: the worst loss in nats, the worst gradient norm and learning
// rate as a share of the reference's, and the final adapter's distance as a share of the way it went from its start.
type runErrors struct{ loss, gradNorm, learningRate, adapter float64 }

var (
	limitsFP32 = runErrors{1e-5, 1e-5, 0, 2e-4}
	limits8bit = runErrors{1e-4, 1e-4, 0, 1e-2} // a moment at the border of two codes may take the other
	limitsFP16 = runErrors{2e-3, 5e-3, 0, 5e-2}
)

func (e runErrors) list() map[string]float64 {
	return map[string]float64{"loss": e.loss, "grad_norm": e.gradNorm, "learning_rate": e.learningRate, "adapter": e.adapter}
}

// Train replays the recorded training runs, each from its recorded adapter over the recorded order of the rows.
func Train(b kernels.Backend, dir string) ([]Check, error) {
	var checks []Check
	for _, r := range trainingRuns {
		measured, err := replay(b, filepath.Join(dir, "phi"), r.name, r.base)
		for _, quantity := range []string{"loss", "grad_norm", "learning_rate", "adapter"} {
			name := "phi/train/" + r.name + "/" + quantity
			if err != nil {
				checks = append(checks, Failed(name, err))
			} else {
				checks = append(checks, Measure(name, measured.list()[quantity], r.limits.list()[quantity]))
			}
		}
	}
	return checks, nil
}

// trainingRun is a recorded run: its settings and what the Trainer logged.
type trainingRun struct {
	FP16        bool       `json:"fp16"`
	Optimizer   string     `json:"optim"`
	R           int        `json:"r"`
	Alpha       float64    `json:"alpha"`
	BatchSize   int        `json:"batch_size"`
	Accum       int        `json:"accum"`
	LR          float64    `json:"lr"`
	Epochs      float64    `json:"epochs"`
	Warmup      int        `json:"warmup"`
	Schedule    string     `json:"sched"`
	MaxGradNorm float64    `json:"max_grad_norm"`
	WeightDecay float64    `json:"weight_decay"`
	Betas       [2]float64 `json:"betas"`
	Eps         float64    `json:"eps"`
	Order       []int      `json:"order"`
	Steps       []struct {
		Loss     float64 `json:"loss"`
		GradNorm float64 `json:"grad_norm"`
		LR       float64 `json:"lr"`
	} `json:"steps"`
}

func (r trainingRun) options() train.Options {
	o := train.Options{
		Epochs: r.Epochs, BatchSize: r.BatchSize, Accumulation: r.Accum, LR: r.LR, Schedule: r.Schedule, Warmup: r.Warmup,
		Optimizer: "adamw", Beta1: r.Betas[0], Beta2: r.Betas[1], Eps: r.Eps, WeightDecay: r.WeightDecay,
		MaxGradNorm: r.MaxGradNorm, FP16: r.FP16, LossPer: "token", Order: r.Order,
	}
	if r.Optimizer == "paged_adamw_8bit" {
		o.Optimizer = r.Optimizer
	}
	return o
}

func replay(b kernels.Backend, dir, name, base string) (runErrors, error) {
	var want trainingRun
	if err := readJSON(filepath.Join(dir, "train_"+name+".json"), &want); err != nil {
		return runErrors{}, err
	}
	ref, err := openVectors(dir, "train_"+name+".safetensors")
	if err != nil {
		return runErrors{}, err
	}
	defer ref.Close()
	m, err := load(b, dir, base)
	if err != nil {
		return runErrors{}, err
	}
	defer m.Close()
	rows, err := trainingRows(filepath.Join(dir, "train_rows.json"), m.Config.EOS)
	if err != nil {
		return runErrors{}, err
	}
	m.Adapter, err = model.NewAdapter(b, m.Config, model.AdapterConfig{R: want.R, Alpha: want.Alpha, Targets: []string{"q_proj", "v_proj"}}, 0, kernels.F32)
	if err != nil {
		return runErrors{}, err
	}
	defer m.Adapter.Free()
	for _, p := range m.Adapter.Parameters() {
		start, err := ref.floats("init." + p.Name)
		if err != nil {
			return runErrors{}, err
		}
		if len(start) != p.Value.Len() {
			return runErrors{}, fmt.Errorf("init.%s has %d elements, not %d", p.Name, len(start), p.Value.Len())
		}
		b.Upload(p.Value, kernels.AsBytes(start))
	}
	got, err := train.Run(context.Background(), m, rows, want.options(), train.Hooks{})
	if err != nil {
		return runErrors{}, err
	}
	if len(got.Steps) != len(want.Steps) {
		return runErrors{}, fmt.Errorf("%d steps, but the reference has %d", len(got.Steps), len(want.Steps))
	}
	var e runErrors
	for i, w := range want.Steps {
		g := got.Steps[i]
		e.loss = max(e.loss, math.Abs(g.Loss-w.Loss))
		e.gradNorm = max(e.gradNorm, math.Abs(g.GradNorm/w.GradNorm-1))
		if g.LR != w.LR {
			e.learningRate = max(e.learningRate, math.Abs(g.LR-w.LR)/want.LR)
		}
	}
	e.adapter, err = adapterError(b, m.Adapter, ref)
	return e, err
}

// adapterError is ‖trained - reference‖/‖reference - start‖ over all of the adapter.
func adapterError(b kernels.Backend, a *model.Adapter, ref vectors) (float64, error) {
	var difference, change float64
	for _, p := range a.Parameters() {
		start, err := ref.floats("init." + p.Name)
		if err != nil {
			return 0, err
		}
		final, err := ref.floats("final." + p.Name)
		if err != nil {
			return 0, err
		}
		got := make([]float32, p.Value.Len())
		b.Download(kernels.AsBytes(got), p.Value)
		if err := b.Sync(); err != nil {
			return 0, err
		}
		if len(start) != len(got) || len(final) != len(got) {
			return 0, fmt.Errorf("final.%s has %d elements, not %d", p.Name, len(final), len(got))
		}
		for i, f := range final {
			d, c := float64(got[i])-float64(f), float64(f)-float64(start[i])
			difference, change = difference+d*d, change+c*c
		}
	}
	return math.Sqrt(difference / change), nil
}

// trainingRows reads the recorded rows without their padding; like the Trainer's collator it masks every padding id.
func trainingRows(path string, pad int32) ([]dataset.Example, error) {
	var recorded []struct {
		IDs  []int32 `json:"input_ids"`
		Mask []int32 `json:"attention_mask"`
	}
	if err := readJSON(path, &recorded); err != nil {
		return nil, err
	}
	rows := make([]dataset.Example, len(recorded))
	for i, r := range recorded {
		if len(r.IDs) != len(r.Mask) {
			return nil, fmt.Errorf("%s: row %d has %d tokens but a mask of %d", path, i, len(r.IDs), len(r.Mask))
		}
		for t, id := range r.IDs {
			if r.Mask[t] == 0 {
				continue
			}
			label := id
			if id == pad {
				label = model.Ignore
			}
			rows[i].IDs, rows[i].Labels = append(rows[i].IDs, id), append(rows[i].Labels, label)
		}
	}
	return rows, nil
}

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

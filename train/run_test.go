package train

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quartet/dataset"
	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/model/modeltest"
)

// spy is the CPU backend with a look at, and a hand in, what the loop does with it.
type spy struct {
	kernels.Backend
	steps []kernels.AdamStep   // of each update, once
	spoil func(step int) []int // which gradients of a step become infinite, by their place among all
	norms int                  // how often the norm was asked for
}

func (s *spy) SumSquares(out, x kernels.Tensor) {
	if s.spoil != nil && x.Rows == 1 { // all gradients at once
		for _, at := range s.spoil(s.norms) {
			x.F32s()[at] = float32(math.Inf(1))
		}
		s.norms++
	}
	s.Backend.SumSquares(out, x)
}

// spoilAt spoils the first gradient in some steps.
func spoilAt(steps ...int) func(step int) []int {
	return func(step int) []int {
		if slices.Contains(steps, step) {
			return []int{0}
		}
		return nil
	}
}

func (s *spy) AdamW(param, grad, m, v kernels.Tensor, a kernels.AdamStep) {
	s.note(a)
	s.Backend.AdamW(param, grad, m, v, a)
}

func (s *spy) AdamW8bit(param, grad, state1, absmax1, state2, absmax2 kernels.Tensor, a kernels.AdamStep) {
	s.note(a)
	s.Backend.AdamW8bit(param, grad, state1, absmax1, state2, absmax2, a)
}

func (s *spy) note(a kernels.AdamStep) {
	if len(s.steps) == 0 || s.steps[len(s.steps)-1] != a {
		s.steps = append(s.steps, a)
	}
}

// tiny is a random model with a fresh adapter whose widest tensors are large enough for 8-bit moments.
func tiny(t *testing.T, s modeltest.Shape, dropout float64) (*model.Model, *spy) {
	t.Helper()
	dir := t.TempDir()
	if err := modeltest.Write(dir, s); err != nil {
		t.Fatal(err)
	}
	b := &spy{Backend: cpu.New()}
	w, err := model.Load(b, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	m := &model.Model{Weights: w}
	freshAdapter(t, m, dropout)
	return m, b
}

func freshAdapter(t *testing.T, m *model.Model, dropout float64) {
	t.Helper()
	a, err := model.NewAdapter(m.Backend(), m.Config,
		model.AdapterConfig{R: 60, Alpha: 60, Dropout: dropout, Targets: []string{"q_proj", "fc1"}}, 7, kernels.F16)
	if err != nil {
		t.Fatal(err)
	}
	m.Adapter = a
	t.Cleanup(a.Free)
}

// someRows are rows of different lengths, each an arithmetic sequence, which a model can learn.
func someRows(n int) []dataset.Example {
	r := rand.New(rand.NewPCG(2, 2))
	rows := make([]dataset.Example, n)
	for i := range rows {
		id, by := r.Int32N(61), 1+r.Int32N(3)
		for range 3 + r.IntN(9) {
			rows[i].IDs = append(rows[i].IDs, id)
			id = (id + by) % 61
		}
		rows[i].Labels = slices.Clone(rows[i].IDs)
		rows[i].Labels[0] = model.Ignore
	}
	return rows
}

func someOptions() Options {
	return Options{
		Epochs: 2, BatchSize: 1, Accumulation: 3, LR: 5e-3, Schedule: "linear", Warmup: 2, Optimizer: "adamw",
		Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, MaxGradNorm: 0.3, LossPer: "token", Seed: 11,
	}
}

func adapterBytes(a *model.Adapter) []byte {
	var out []byte
	for _, m := range a.Modules {
		out = append(out, m.A.Host...)
		out = append(out, m.B.Host...)
	}
	return out
}

func mustRun(t *testing.T, m *model.Model, data []dataset.Example, o Options, h Hooks) Result {
	t.Helper()
	r, err := Run(t.Context(), m, data, o, h)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLossFalls(t *testing.T) {
	m, b := tiny(t, modeltest.Shape{}, 0)
	o := someOptions()
	o.Epochs, o.LR = 6, 2e-2
	r := mustRun(t, m, someRows(12), o, Hooks{})
	first, last := r.Steps[0].Loss, r.Steps[len(r.Steps)-1].Loss
	if last > 0.7*first {
		t.Errorf("loss %g to %g in %d steps", first, last, len(r.Steps))
	}
	if len(r.Warnings) > 0 {
		t.Errorf("warnings %q", r.Warnings)
	}
	tokens := 0
	for _, e := range someRows(12) {
		tokens += 6 * len(e.IDs)
	}
	if r.Tokens != tokens || r.Rows != 12 || r.Bytes == 0 || len(r.Steps) != 24 {
		t.Errorf("%d tokens, %d rows, %d bytes, %d steps; want %d, 12, more than 0, 24", r.Tokens, r.Rows, r.Bytes, len(r.Steps), tokens)
	}
	for i, s := range r.Steps {
		a := b.steps[i]
		clip := min(1, 0.3/(s.GradNorm+1e-6))
		if a.T != i+1 || a.LR != float32(s.LR) || math.Abs(float64(a.GradScale)/clip-1) > 1e-6 {
			t.Errorf("step %d moved by %+v; its learning rate is %g and its clipping %g", i+1, a, s.LR, clip)
		}
	}
}

// TestLossIsTheGroupsMean compares the first step, which starts from the bare base, with losses computed row by row.
func TestLossIsTheGroupsMean(t *testing.T) {
	m, _ := tiny(t, modeltest.Shape{}, 0)
	data := someRows(7)
	p, err := m.NewPass(64, model.PassOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	sum := func(rows []int) (total float64, n int) {
		for _, row := range rows {
			losses, err := p.Losses(pack{rows: []int{row}}.batch(data))
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range losses {
				total += float64(l)
			}
			n += targets(data[row])
		}
		return total, n
	}
	order := []int{4, 2, 6, 1, 0, 3, 5}
	all, n := sum(order[:5])
	want := map[string]float64{"token": all / float64(n)}
	for _, rows := range [][]int{order[:2], order[2:4], order[4:5]} {
		s, n := sum(rows)
		want["micro_batch"] += s / float64(n) / 3
	}
	norms := map[string][]float64{}
	for lossPer, want := range want {
		for _, limit := range []int{0, 14, 1} {
			freshAdapter(t, m, 0)
			o := someOptions()
			o.LossPer, o.BatchSize, o.Accumulation, o.MaxSteps, o.Order, o.MaxPackedTokens = lossPer, 2, 3, 1, order[:5], limit
			o.Warmup = 0
			r := mustRun(t, m, data[:7], o, Hooks{})
			if got := r.Steps[0].Loss; math.Abs(got-want) > 1e-5 {
				t.Errorf("%s, at most %d tokens at once: loss %g, want %g", lossPer, limit, got, want)
			}
			norms[lossPer] = append(norms[lossPer], r.Steps[0].GradNorm)
		}
	}
	for lossPer, n := range norms {
		if math.Abs(n[1]/n[0]-1) > 1e-5 || math.Abs(n[2]/n[0]-1) > 1e-5 {
			t.Errorf("%s: the gradient's norm depends on the packing: %v", lossPer, n)
		}
	}
}

func TestLossScaleChangesNoBit(t *testing.T) {
	var results [][]byte
	for _, fp16 := range []bool{false, true} {
		m, _ := tiny(t, modeltest.Shape{ResidDropout: 0.1}, 0.1)
		o := someOptions()
		o.FP16, o.Optimizer = fp16, "paged_adamw_8bit"
		mustRun(t, m, someRows(7), o, Hooks{})
		results = append(results, adapterBytes(m.Adapter))
	}
	if !bytes.Equal(results[0], results[1]) {
		t.Error("scaling the loss by a power of two changed the adapter")
	}
}

func TestOverflowSkipsTheUpdateButNotTheStep(t *testing.T) {
	m, b := tiny(t, modeltest.Shape{}, 0)
	b.spoil = spoilAt(2, 3)
	o := someOptions()
	o.FP16, o.MaxSteps = true, 6
	r := mustRun(t, m, someRows(7), o, Hooks{})
	var skipped []bool
	var scales, rates []float64
	for _, s := range r.Steps {
		skipped, scales, rates = append(skipped, s.Skipped), append(scales, s.LossScale), append(rates, s.LR)
	}
	if want := []bool{false, false, true, true, false, false}; !slices.Equal(skipped, want) {
		t.Errorf("skipped %v, want %v", skipped, want)
	}
	if want := []float64{65536, 65536, 65536, 32768, 16384, 16384}; !slices.Equal(scales, want) {
		t.Errorf("loss scales %v, want %v", scales, want)
	}
	if want := []float64{0, 2.5e-3, 5e-3, 5e-3, 5e-3, 5e-3 * 0.75}; !slices.Equal(rates, want) {
		t.Errorf("learning rates %v, want %v: the schedule stands still where a step is skipped", rates, want)
	}
	if len(b.steps) != 4 || b.steps[3].T != 4 {
		t.Errorf("%d updates, the last %+v", len(b.steps), b.steps[len(b.steps)-1])
	}
}

func TestFailuresAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *model.Model, b *spy, data []dataset.Example, o *Options)
		want   string
	}{
		"overflow after overflow": {func(m *model.Model, b *spy, _ []dataset.Example, o *Options) {
			last := m.Adapter.Parameters()
			b.spoil = func(int) []int { return []int{0, last[len(last)-1].At + 7} }
			o.FP16, o.Epochs = true, 20
		}, "training step 20 of 60: the gradient overflowed 20 steps in a row, first in model.layers.1.mlp.fc1.lora_B, down to a loss scale of 0.125; set fp16 = false or lower learning_rate"},
		"infinite gradient": {func(m *model.Model, b *spy, _ []dataset.Example, _ *Options) {
			at := m.Adapter.Parameters()[2].At
			b.spoil = func(step int) []int {
				if step == 1 {
					return []int{at}
				}
				return nil
			}
		}, "training step 2 of 6: the gradient of model.layers.0.mlp.fc1.lora_A is not finite; lower learning_rate or max_grad_norm, or look for broken rows"},
		"NaN in the forward pass": {func(m *model.Model, _ *spy, _ []dataset.Example, _ *Options) {
			m.Adapter.Find(1, model.FC1).B.F32s()[5] = float32(math.NaN())
		}, "training step 1 of 6: the loss is not finite, first at layer 1, token 0 of the batch; lower learning_rate"},
		"nothing to train": {func(_ *model.Model, _ *spy, data []dataset.Example, _ *Options) {
			for i := range data {
				data[i].Labels = slices.Repeat([]int32{model.Ignore}, len(data[i].IDs))
			}
		}, "train: none of the 7 rows has a token to train on; raise max_length or set labels = \"all\""},
		"no adapter": {func(m *model.Model, _ *spy, _ []dataset.Example, _ *Options) {
			m.Adapter = nil
		}, "train: the model has no adapter, and its base weights are frozen"},
		"warmup without end": {func(_ *model.Model, _ *spy, _ []dataset.Example, o *Options) {
			o.MaxSteps = 1
		}, "nothing was learned: every lora_B is still zero after 1 steps; the learning rate was 0 throughout; set warmup_steps = 0 or train on more rows"},
		"unknown schedule": {func(_ *model.Model, _ *spy, _ []dataset.Example, o *Options) {
			o.Schedule = "step"
		}, `train: schedule is "step", not one of ["linear" "cosine" "constant"]`},
		"short order": {func(_ *model.Model, _ *spy, _ []dataset.Example, o *Options) {
			o.Order = []int{0, 1, 2, 3, 4, 5, 6}
		}, "train: the given order of 7 rows ends before step 6"},
		"token outside the vocabulary": {func(_ *model.Model, _ *spy, data []dataset.Example, _ *Options) {
			for i := range data {
				data[i].IDs[0] = 61
			}
		}, "training step 1 of 6: run the model: token id 61 is outside the vocabulary of 61"},
	} {
		t.Run(name, func(t *testing.T) {
			m, b := tiny(t, modeltest.Shape{}, 0)
			data, o := someRows(7), someOptions()
			c.change(m, b, data, &o)
			_, err := Run(t.Context(), m, data, o, Hooks{})
			if err == nil || err.Error() != c.want {
				t.Errorf("error %v\nwant  %s", err, c.want)
			}
		})
	}
}

func TestNothingLearnedCanBeAskedFor(t *testing.T) {
	m, _ := tiny(t, modeltest.Shape{}, 0)
	o := someOptions()
	o.MaxSteps = 1
	if _, err := Run(t.Context(), m, someRows(7), o, Hooks{}); !errors.Is(err, ErrNothingLearned) {
		t.Errorf("error %v", err)
	}
}

func TestWarnings(t *testing.T) {
	for name, c := range map[string]struct {
		change func(data []dataset.Example, o *Options)
		want   string
	}{
		"high rate": {func(_ []dataset.Example, o *Options) { o.LR = 0.03 }, "learning_rate 0.03 is far above"},
		"low rate":  {func(_ []dataset.Example, o *Options) { o.LR = 1e-7 }, "learning_rate 1e-07 is so low"},
		"warmup":    {func(_ []dataset.Example, o *Options) { o.Warmup = 6 }, "the run ends after 6 steps, within its warmup of 6,"},
		"masked": {func(data []dataset.Example, _ *Options) {
			data[3].Labels = make([]int32, 1)
			data[3].IDs = data[3].IDs[:1]
		}, "1 of 7 rows have no token to train on"},
		"flat": {func(_ []dataset.Example, o *Options) { o.Epochs, o.LR, o.Seed = 4, 1e-5, 12; o.Order = flatOrder }, "the loss did not fall: "},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := tiny(t, modeltest.Shape{}, 0)
			data, o := someRows(7), someOptions()
			c.change(data, &o)
			var told []string
			r := mustRun(t, m, data, o, Hooks{OnWarning: func(line string) { told = append(told, line) }})
			if len(told) == 0 || !strings.HasPrefix(told[0], c.want) || !strings.Contains(told[0], ";") || !slices.Equal(told, r.Warnings) {
				t.Errorf("warnings %q, want one that starts with %q and says what to try", told, c.want)
			}
		})
	}
}

// flatOrder ends with the group with which it starts.
var flatOrder = []int{0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 0, 1, 2}

func TestStepsAreReportedInOrder(t *testing.T) {
	m, _ := tiny(t, modeltest.Shape{}, 0)
	var told []Step
	r := mustRun(t, m, someRows(7), someOptions(), Hooks{OnStep: func(s Step) { told = append(told, s) }})
	if !slices.Equal(told, r.Steps) {
		t.Errorf("told of %v, but the result has %v", told, r.Steps)
	}
	for i, s := range told {
		if s.Step != i+1 || s.Steps != 6 || s.Epoch != 1+i/3 || s.Tokens == 0 || (s.ETA == 0) != (i == 5) {
			t.Errorf("step %d is told as %+v", i+1, s)
		}
	}
}

// cancelAfter is a context that ends when its error has been asked for n times.
type cancelAfter struct {
	context.Context
	n int
}

func (c *cancelAfter) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

func TestResumeIsBitIdentical(t *testing.T) {
	for name, c := range map[string]struct {
		shape   modeltest.Shape
		dropout float64
		change  func(o *Options)
	}{
		"plain": {change: func(*Options) {}},
		"everything": {modeltest.Shape{ResidDropout: 0.1}, 0.1, func(o *Options) {
			o.FP16, o.Optimizer, o.Recompute, o.WeightDecay, o.Schedule = true, "paged_adamw_8bit", model.RecomputeLayer, 0.01, "cosine"
		}},
		"micro-batches": {modeltest.Shape{ResidDropout: 0.2, DType: "BF16"}, 0, func(o *Options) {
			o.LossPer, o.BatchSize, o.MaxPackedTokens = "micro_batch", 2, 12
		}},
	} {
		t.Run(name, func(t *testing.T) {
			data, o := someRows(7), someOptions()
			c.change(&o)
			m, b := tiny(t, c.shape, c.dropout)
			if o.FP16 {
				b.spoil = spoilAt(2)
			}
			whole := mustRun(t, m, data, o, Hooks{})
			want := adapterBytes(m.Adapter)

			for asked := range 100 {
				freshAdapter(t, m, c.dropout)
				dir := filepath.Join(t.TempDir(), "checkpoint")
				b.norms = 0
				r, err := Run(&cancelAfter{t.Context(), asked}, m, data, o, Hooks{Checkpoint: dir})
				if err == nil {
					break
				}
				if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				done := len(r.Steps)
				b.norms = done
				freshAdapter(t, m, c.dropout)
				r = mustRun(t, m, data, o, Hooks{Checkpoint: dir})
				if !bytes.Equal(adapterBytes(m.Adapter), want) {
					t.Errorf("stopped after step %d and resumed: another adapter", done)
				}
				if r.Resumed != done || !slices.EqualFunc(r.Steps, whole.Steps, sameStep) {
					t.Errorf("stopped after step %d and resumed from %d: another history\n%v\n%v", done, r.Resumed, r.Steps, whole.Steps)
				}
			}
		})
	}
}

// sameStep compares what does not depend on the clock.
func sameStep(a, b Step) bool {
	for _, s := range []*Step{&a, &b} {
		s.Seconds, s.TokensPerSecond, s.ETA = 0, 0, 0
	}
	return a == b
}

func TestKilledRunGoesOnFromTheLastCheckpoint(t *testing.T) {
	m, _ := tiny(t, modeltest.Shape{}, 0.1)
	data, o, dir := someRows(7), someOptions(), t.TempDir()
	mustRun(t, m, data, o, Hooks{})
	want := adapterBytes(m.Adapter)

	freshAdapter(t, m, 0.1)
	killed := func() (killed bool) {
		defer func() { killed = recover() != nil }()
		mustRun(t, m, data, o, Hooks{Checkpoint: dir, CheckpointEvery: 2, OnStep: func(s Step) {
			if s.Step == 5 {
				panic("killed")
			}
		}})
		return false
	}()
	if !killed {
		t.Fatal("the run was not killed")
	}
	torn := filepath.Join(dir, "."+CheckpointFile+".0badc0de.tmp")
	if err := os.WriteFile(torn, []byte("half a checkpoint"), 0o666); err != nil {
		t.Fatal(err)
	}
	freshAdapter(t, m, 0.1)
	r := mustRun(t, m, data, o, Hooks{Checkpoint: dir, CheckpointEvery: 2})
	if r.Resumed != 4 || !bytes.Equal(adapterBytes(m.Adapter), want) {
		t.Errorf("resumed from step %d, want 4; same adapter: %v", r.Resumed, bytes.Equal(adapterBytes(m.Adapter), want))
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("the folder holds %v, want the newest checkpoint alone", files)
	}
	freshAdapter(t, m, 0.1)
	if r := mustRun(t, m, data, o, Hooks{Checkpoint: dir}); r.Resumed != 6 || !bytes.Equal(adapterBytes(m.Adapter), want) {
		t.Errorf("a finished run resumed from step %d, want 6, with the same adapter", r.Resumed)
	}
}

func TestPackingPlanIsKept(t *testing.T) {
	m, _ := tiny(t, modeltest.Shape{}, 0)
	data, o, dir := someRows(7), someOptions(), t.TempDir()
	o.MaxPackedTokens = 10
	mustRun(t, m, data, o, Hooks{})
	want := adapterBytes(m.Adapter)
	freshAdapter(t, m, 0)
	if _, err := Run(&cancelAfter{t.Context(), 5}, m, data, o, Hooks{Checkpoint: dir}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	o.MaxPackedTokens = 0
	freshAdapter(t, m, 0)
	mustRun(t, m, data, o, Hooks{Checkpoint: dir})
	if !bytes.Equal(adapterBytes(m.Adapter), want) {
		t.Error("the resumed run packed otherwise than the run it continues")
	}
}

func TestCheckpointsOfOtherRunsAreRefused(t *testing.T) {
	m, _ := tiny(t, modeltest.Shape{}, 0)
	data, o, dir := someRows(7), someOptions(), t.TempDir()
	if _, err := Run(&cancelAfter{t.Context(), 2}, m, data, o, Hooks{Checkpoint: dir}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	path := filepath.Join(dir, CheckpointFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if step, err := CheckpointStep(dir); step != 2 || err != nil {
		t.Errorf("the checkpoint is of step %d, %v; want 2", step, err)
	}
	if step, err := CheckpointStep(t.TempDir()); step != 0 || err != nil {
		t.Errorf("an empty folder has a checkpoint of step %d, %v", step, err)
	}
	for name, c := range map[string]struct {
		change func(data []dataset.Example, o *Options)
		file   []byte
		want   string
		other  bool
	}{
		"learning rate": {func(_ []dataset.Example, o *Options) { o.LR = 1e-3 }, whole, "learning_rate was 0.005 and is 0.001", true},
		"rows":          {func(data []dataset.Example, _ *Options) { data[6].IDs[0]++ }, whole, "training rows was ", true},
		"base":          {func(_ []dataset.Example, o *Options) { o.Base = "another" }, whole, "base weights was  and is another", true},
		"cut short":     {func([]dataset.Example, *Options) {}, whole[:len(whole)/2], "", false},
		"not a run's":   {func([]dataset.Example, *Options) {}, bytes.Replace(whole, []byte("quartet.training"), []byte("quartet.nonsense"), 1), "no checkpoint of a training run", false},
		"lying step":    {func([]dataset.Example, *Options) {}, bytes.Replace(whole, []byte(`\"step\":2`), []byte(`\"step\":5`), 1), "tensor history is F64[2 7], not F64[5 7]", false},
		"no update":     {func([]dataset.Example, *Options) {}, bytes.Replace(whole, []byte(`\"updates\":2`), []byte(`\"updates\":3`), 1), "step 2 with 3 updates", false},
	} {
		t.Run(name, func(t *testing.T) {
			data, o := someRows(7), o
			c.change(data, &o)
			if err := os.WriteFile(path, c.file, 0o666); err != nil {
				t.Fatal(err)
			}
			_, err := Run(t.Context(), m, data, o, Hooks{Checkpoint: dir})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasSuffix(err.Error(), "delete the file to start anew") || errors.Is(err, ErrOtherRun) != c.other {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestCancelWithoutFolder(t *testing.T) {
	m, _ := tiny(t, modeltest.Shape{}, 0)
	_, err := Run(&cancelAfter{t.Context(), 3}, m, someRows(7), someOptions(), Hooks{})
	if want := "training stopped after step 3 of 6, without a checkpoint: context canceled"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestCheckpointThatCannotBeWritten(t *testing.T) {
	m, _ := tiny(t, modeltest.Shape{}, 0)
	dir := filepath.Join(t.TempDir(), "taken")
	r, err := Run(t.Context(), m, someRows(7), someOptions(), Hooks{Checkpoint: dir, CheckpointEvery: 2, OnStep: func(s Step) {
		if s.Step == 1 {
			if err := os.WriteFile(dir, nil, 0o666); err != nil {
				t.Error(err)
			}
		}
	}})
	if err == nil || !strings.HasPrefix(err.Error(), "save checkpoint of step 2: ") || len(r.Steps) != 2 {
		t.Errorf("%d steps, error %v", len(r.Steps), err)
	}
}

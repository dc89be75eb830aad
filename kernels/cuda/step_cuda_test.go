//go:build cuda

package cuda

import (
	"math"
	"math/rand/v2"
	"testing"

	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/model/modeltest"
)

// TestStep requires a training step's loss and gradients to be the CPU's, dropout and all, up to the activations' rounding; and
// those of a pass that computes activations again to be the same to the bit.
func TestStep(t *testing.T) {
	shapes := map[string]modeltest.Shape{
		"odd":     {},
		"even":    {Hidden: 64, Heads: 4, Intermediate: 96, Vocab: 72, Rotary: 0.5},
		"grouped": {Hidden: 48, Heads: 6, KVHeads: 2, Layers: 3},
		"wide":    {Hidden: 320, Heads: 4, Intermediate: 1280, Vocab: 1000, Rotary: 0.4},
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := modeltest.Write(dir, shape); err != nil {
				t.Fatal(err)
			}
			loss, want := trainStep(t, cpu.New(), dir, model.RecomputeNothing)
			for act, limit := range map[kernels.DType]float64{kernels.F32: 2e-5, kernels.F16: 2e-2, kernels.BF16: 0.15} {
				gpuLoss, got := trainStep(t, openTest(t, act), dir, model.RecomputeNothing)
				if e := math.Abs(gpuLoss/loss - 1); !(e <= limit/10) {
					t.Errorf("%v: loss %v, want %v", act, gpuLoss, loss)
				}
				for module, g := range got {
					if e := distance(g, want[module]); !(e <= limit) {
						t.Errorf("%v: the gradient of %s is off by %.3g, the limit is %.3g", act, module, e, limit)
					}
				}
				for _, again := range []model.Recompute{model.RecomputeMLP, model.RecomputeLayer} {
					_, same := trainStep(t, openTest(t, act), dir, again)
					for module, g := range got {
						if distance(same[module], g) != 0 {
							t.Errorf("%v: recompute %s changes the gradient of %s", act, again, module)
						}
					}
				}
			}
		})
	}
}

// trainStep is the loss and the gradients of one step with dropout, by parameter, of an adapter on all linears.
func trainStep(t *testing.T, b kernels.Backend, dir string, again model.Recompute) (float64, map[string][]float32) {
	t.Helper()
	w, err := model.Load(b, dir)
	if err != nil {
		t.Fatal(err)
	}
	a, err := model.NewAdapter(b, w.Config, model.AdapterConfig{
		R: 8, Alpha: 16, Targets: []string{"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2", "lm_head"},
	}, 7, kernels.F32)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.EnableGrad(); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 3))
	for _, l := range a.Modules {
		values := make([]float32, l.B.Len())
		for i := range values {
			values[i] = float32(0.1 * r.NormFloat64())
		}
		b.Upload(l.B, kernels.AsBytes(values))
	}
	var rows [][]int32
	for _, n := range []int{7, 1, 32, 3} {
		row := make([]int32, n)
		for i := range row {
			row[i] = int32(r.IntN(w.Config.VocabSize))
		}
		rows = append(rows, row)
	}
	batch := model.Pack(rows...)
	batch.Labels = append([]int32{}, batch.IDs...)
	batch.Labels[2] = model.Ignore
	p, err := (&model.Model{Weights: w, Adapter: a}).NewPass(len(batch.IDs)+3, model.PassOptions{Train: true, Recompute: again})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	loss, _, err := p.Step(batch, 1, &model.Dropout{Seed: 99, Step: 5, LoRA: 0.1, Residual: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	gradients := map[string][]float32{}
	for _, q := range a.Parameters() {
		g := make([]float32, q.Grad.Len())
		b.Download(kernels.AsBytes(g), q.Grad)
		gradients[q.Name] = g
	}
	return loss, gradients
}

// distance is the largest difference as a share of the largest element wanted.
func distance(got, want []float32) float64 {
	worst, largest := 0.0, 1e-30
	for i, w := range want {
		largest = max(largest, math.Abs(float64(w)))
		if e := math.Abs(float64(got[i]) - float64(w)); !(e <= worst) {
			worst = e
		}
	}
	return worst / largest
}

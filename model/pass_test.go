package model_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/model/modeltest"
)

// shapes are models of awkward sizes: one head and many, grouped keys, odd widths, nothing rotated, a tied head.
var shapes = map[string]modeltest.Shape{
	"odd":     {},
	"one":     {Hidden: 9, Heads: 1, Layers: 1, Intermediate: 5, Vocab: 7, Rotary: 0.9},
	"grouped": {Hidden: 48, Heads: 6, KVHeads: 2, Layers: 3, DType: "BF16"},
	"uneven":  {Hidden: 50, Heads: 3, Rotary: 0.25, DType: "F32"},
	"tied":    {Tied: true, Rotary: 0.01},
}

func load(t *testing.T, s modeltest.Shape) *model.Model {
	t.Helper()
	dir := t.TempDir()
	if err := modeltest.Write(dir, s); err != nil {
		t.Fatal(err)
	}
	w, err := model.Load(cpu.New(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return &model.Model{Weights: w}
}

// adapt gives a model an adapter on all the linears that may have one, with B no longer zero.
func adapt(t *testing.T, m *model.Model, targets ...string) {
	t.Helper()
	a, err := model.NewAdapter(m.Backend(), m.Config, model.AdapterConfig{R: 3, Alpha: 6, Targets: targets}, 7, kernels.F32)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.EnableGrad(); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 3))
	for _, l := range a.Modules {
		for i := range l.B.F32s() {
			l.B.F32s()[i] = float32(0.1 * r.NormFloat64())
		}
	}
	m.Adapter = a
	t.Cleanup(a.Free)
}

// rows are token rows of different lengths with some labels masked.
func rows(m *model.Model) model.Batch {
	r := rand.New(rand.NewPCG(5, 5))
	var packed [][]int32
	for _, n := range []int{7, 1, 12, 3} {
		row := make([]int32, n)
		for i := range row {
			row[i] = int32(r.IntN(m.Config.VocabSize))
		}
		packed = append(packed, row)
	}
	b := model.Pack(packed...)
	b.Labels = append([]int32{}, b.IDs...)
	b.Labels[2], b.Labels[9], b.Labels[10] = model.Ignore, model.Ignore, model.Ignore
	b.Rows = []int32{4, 9, 2, 30}
	return b
}

func step(t *testing.T, m *model.Model, b model.Batch, o model.PassOptions, scale float32, drop *model.Dropout) float64 {
	t.Helper()
	p, err := m.NewPass(len(b.IDs), o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, q := range m.Adapter.Parameters() {
		m.Backend().Zero(q.Grad)
	}
	sum, _, err := p.Step(b, scale, drop)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// TestGradientsAgainstFiniteDifferences moves every adapter tensor along a random direction and compares the change of
// the loss with the gradients, with dropout on and with layers computed again.
func TestGradientsAgainstFiniteDifferences(t *testing.T) {
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			m := load(t, s)
			targets := model.LinearNames[:]
			if s.Tied {
				targets = targets[:model.LMHead]
			}
			adapt(t, m, targets...)
			b := rows(m)
			for _, o := range []model.PassOptions{{true, model.RecomputeNothing}, {true, model.RecomputeMLP}, {true, model.RecomputeLayer}} {
				for _, drop := range []*model.Dropout{nil, {Seed: 11, Step: 2, LoRA: 0.3, Residual: 0.2}} {
					step(t, m, b, o, 1, drop)
					r := rand.New(rand.NewPCG(9, 9))
					grads := map[string][]float32{}
					for _, q := range m.Adapter.Parameters() {
						grads[q.Name] = append([]float32{}, q.Grad.F32s()...)
					}
					for _, q := range m.Adapter.Parameters() {
						value, grad := q.Value.F32s(), grads[q.Name]
						direction := make([]float32, len(value))
						var want float64
						for i := range direction {
							direction[i] = float32(r.NormFloat64())
							want += float64(direction[i]) * float64(grad[i])
						}
						before := append([]float32{}, value...)
						const h = 3e-3
						loss := func(sign float32) float64 {
							for i := range value {
								value[i] = before[i] + sign*h*direction[i]
							}
							return step(t, m, b, o, 1, drop)
						}
						got := (loss(1) - loss(-1)) / (2 * h)
						copy(value, before)
						if math.Abs(got-want) > 1e-2*math.Max(1, math.Abs(want)) {
							t.Errorf("%s, %+v, dropout %v: the loss changes by %g, the gradient says %g", q.Name, o, drop != nil, got, want)
						}
					}
				}
			}
		})
	}
}

// TestRecomputeChangesNothing compares gradients bit by bit.
func TestRecomputeChangesNothing(t *testing.T) {
	m := load(t, modeltest.Shape{Layers: 3})
	adapt(t, m, "q_proj", "fc2")
	b, drop := rows(m), &model.Dropout{Seed: 1, LoRA: 0.1, Residual: 0.1}
	kept := map[string][]float32{}
	step(t, m, b, model.PassOptions{Train: true, Recompute: model.RecomputeNothing}, 0.25, drop)
	for _, q := range m.Adapter.Parameters() {
		kept[q.Name] = append([]float32{}, q.Grad.F32s()...)
	}
	for _, recompute := range []model.Recompute{model.RecomputeMLP, model.RecomputeLayer} {
		step(t, m, b, model.PassOptions{Train: true, Recompute: recompute}, 0.25, drop)
		for _, q := range m.Adapter.Parameters() {
			for i, g := range q.Grad.F32s() {
				if g != kept[q.Name][i] {
					t.Fatalf("%s[%d]: %g with %s recomputed, %g without", q.Name, i, g, recompute, kept[q.Name][i])
				}
			}
		}
	}
}

// TestPackingChangesNothing compares each row's losses alone and packed, dropout's masks included.
func TestPackingChangesNothing(t *testing.T) {
	m := load(t, modeltest.Shape{})
	adapt(t, m, "q_proj", "v_proj")
	b := rows(m)
	drop := &model.Dropout{Seed: 3, Step: 4, LoRA: 0.2, Residual: 0.1}
	together := step(t, m, b, model.PassOptions{Train: true, Recompute: model.RecomputeNothing}, 1, drop)
	var alone float64
	for s := range b.Rows {
		from, to := b.Offsets[s], b.Offsets[s+1]
		if to-from < 2 {
			continue
		}
		one := model.Pack(b.IDs[from:to])
		one.Labels, one.Rows = b.Labels[from:to], b.Rows[s:s+1]
		alone += step(t, m, one, model.PassOptions{Train: true, Recompute: model.RecomputeNothing}, 1, drop)
	}
	if math.Abs(together-alone) > 1e-4*together {
		t.Errorf("the rows' losses add up to %g alone and %g packed", alone, together)
	}
}

// TestCacheEqualsPass extends sequences piece by piece and compares with the logits of the whole.
func TestCacheEqualsPass(t *testing.T) {
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			m := load(t, s)
			b := rows(m)
			p, err := m.NewPass(len(b.IDs), model.PassOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			want := map[int][]float32{}
			if err := p.Logits(b, []int32{2, 6, 19}, func(i int, l []float32) { want[i] = append([]float32{}, l...) }); err != nil {
				t.Fatal(err)
			}
			c, err := m.NewCache(3, 12)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			first, third := b.IDs[0:7], b.IDs[8:20]
			calls := []struct {
				sequences []int
				ids       [][]int32
				compare   map[int]int // index of the call's logits: index of want
			}{
				{[]int{2, 0}, [][]int32{first[:3], third[:5]}, map[int]int{0: 0}},
				{[]int{0}, [][]int32{third[5:6]}, nil},
				{[]int{0, 2}, [][]int32{third[6:], first[3:]}, map[int]int{0: 2, 1: 1}},
			}
			for _, call := range calls {
				logits, err := c.Extend(call.sequences, call.ids)
				if err != nil {
					t.Fatal(err)
				}
				for got, ref := range call.compare {
					for i, l := range logits[got] {
						if math.Abs(float64(l-want[ref][i])) > 1e-4 {
							t.Fatalf("logit %d of sequence %d: %g from the cache, %g from the pass", i, call.sequences[got], l, want[ref][i])
						}
					}
				}
			}
			if _, err := c.Extend([]int{0}, [][]int32{{1}}); err == nil {
				t.Error("a thirteenth token went into a cache of twelve")
			}
		})
	}
}

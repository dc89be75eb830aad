//go:build cuda

package cuda

import (
	"fmt"
	"testing"
	"time"

	"quartet/kernels"
	"quartet/model"
	"quartet/model/modeltest"
)

// BenchmarkTraining is the time that a layer of phi-2's size takes forward and backward, as the difference between models of two and
// four layers, and the time of all else: the output projection, and what the lowest layer needs less.
func BenchmarkTraining(bench *testing.B) {
	const few, many = 2, 4
	dir := bench.TempDir()
	if err := modeltest.Write(dir, modeltest.Shape{Vocab: 51200, Hidden: 2560, Intermediate: 10240, Layers: many, Heads: 32, Positions: 2048, Rotary: 0.4}); err != nil {
		bench.Fatal(err)
	}
	b := openTest(bench, kernels.F16)
	w, err := model.Load(b, dir)
	if err != nil {
		bench.Fatal(err)
	}
	for _, l := range w.Layers {
		for _, linear := range l.Linears {
			b.Scale(linear.Weight, 0.1) // weights of this width, so that activations stay finite
		}
	}
	b.Scale(w.Head.Weight, 0.1)
	a, err := model.NewAdapter(b, w.Config, model.AdapterConfig{R: 8, Alpha: 16, Targets: []string{"q_proj", "v_proj"}}, 7, kernels.F32)
	if err != nil {
		bench.Fatal(err)
	}
	if err := a.EnableGrad(); err != nil {
		bench.Fatal(err)
	}
	layers := w.Layers
	for _, rows := range []int{4, 16} {
		texts := make([][]int32, rows)
		for r := range texts {
			for i := range 256 {
				texts[r] = append(texts[r], int32((r*7919+i*104729)%w.Config.VocabSize))
			}
		}
		batch := model.Pack(texts...)
		batch.Labels = batch.IDs
		for _, again := range []model.Recompute{model.RecomputeMLP, model.RecomputeNothing} {
			bench.Run(fmt.Sprintf("%dx256/%s", rows, again), func(tb *testing.B) {
				for tb.Loop() { // the two models are timed below
				}
				var each [2]float64
				for i, n := range []int{few, many} {
					w.Layers = layers[:n]
					p, err := (&model.Model{Weights: w, Adapter: a}).NewPass(len(batch.IDs), model.PassOptions{Train: true, Recompute: again})
					if err != nil {
						tb.Fatal(err)
					}
					step := func() {
						if _, _, err := p.Step(batch, 1, &model.Dropout{Seed: 9, LoRA: 0.05}); err != nil {
							tb.Fatal(err)
						}
					}
					step() // scratch is reserved
					const steps = 20
					start := time.Now()
					for range steps {
						step()
					}
					each[i] = time.Since(start).Seconds() / steps
					p.Close()
				}
				layer := (each[1] - each[0]) / (many - few)
				tb.ReportMetric(0, "ns/op")
				tb.ReportMetric(1e3*layer, "ms/layer")
				tb.ReportMetric(1e3*(each[0]-few*layer), "ms/rest")
			})
		}
	}
	w.Layers = layers
}

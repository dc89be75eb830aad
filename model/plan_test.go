package model_test

import (
	"testing"

	"quartet/kernels"
	"quartet/model"
	"quartet/model/modeltest"
)

// TestTrainingBytes requires phi-2's training to fit the GPUs that it is planned for: 8 GB, or 12 GB with sixteen rows at once.
func TestTrainingBytes(t *testing.T) {
	c := model.Config{
		VocabSize: 51200, Hidden: 2560, Intermediate: 10240, Layers: 32, Heads: 32, KVHeads: 32, MaxPositions: 2048, RotaryFactor: 0.4,
	}
	for tokens, limit := range map[int]int64{4 * 256: 6_580_000_000, 16 * 256: 12_000_000_000} {
		again := model.RecomputeFor("cuda", false, tokens)
		bytes, err := c.TrainingBytes(model.AdapterConfig{R: 8, Targets: []string{"q_proj", "v_proj"}}, tokens, again, kernels.F16)
		if err != nil {
			t.Fatal(err)
		}
		const moments = 8 // bytes of a parameter
		if all := 2*c.Parameters() + bytes + moments*2_621_440; all > limit {
			t.Errorf("%d tokens take %d bytes, the limit is %d", tokens, all, limit)
		}
	}
}

// TestPlannedBytes holds the planned memory against what is reserved.
func TestPlannedBytes(t *testing.T) {
	m := load(t, modeltest.Shape{Layers: 3})
	act := m.Backend().Activations()
	for _, recompute := range []model.Recompute{model.RecomputeNothing, model.RecomputeMLP, model.RecomputeLayer} {
		adapt(t, m, "q_proj", "fc2", "lm_head")
		planned, err := m.Config.TrainingBytes(m.Adapter.Config, 21, recompute, act)
		if err != nil {
			t.Fatal(err)
		}
		p, err := m.NewPass(21, model.PassOptions{Train: true, Recompute: recompute})
		if err != nil {
			t.Fatal(err)
		}
		if taken := p.Bytes() + int64(m.Adapter.Values.Bytes()+m.Adapter.Grads.Bytes()); planned != taken {
			t.Errorf("%s: %d bytes are planned, %d are taken", recompute, planned, taken)
		}
		p.Close()
	}
	m.Adapter = nil
	p, err := m.NewPass(9, model.PassOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if planned, err := m.Config.PassBytes(9, act); err != nil || planned != p.Bytes() {
		t.Errorf("a pass: %d bytes are planned, %d are taken, %v", planned, p.Bytes(), err)
	}
	c, err := m.NewCache(2, 17)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if planned, err := m.Config.CacheBytes(2, 17, act); err != nil || planned != c.Bytes() {
		t.Errorf("a cache: %d bytes are planned, %d are taken, %v", planned, c.Bytes(), err)
	}
	half, err := m.Config.CacheBytes(2, 17, kernels.F16)
	if err != nil || half >= c.Bytes() {
		t.Errorf("with fp16 activations a cache takes %d bytes of %d, %v", half, c.Bytes(), err)
	}
}

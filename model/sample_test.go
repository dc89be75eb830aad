package model

import (
	"math"
	"testing"
)

func pick(s Sampling, logits []float32, draw uint32) int32 {
	return s.choose(append([]float32{}, logits...), nil, nil, [2]uint32{0, draw})
}

func TestGreedyTakesTheLargestAllowed(t *testing.T) {
	logits := []float32{1, 5, 3, 4}
	if id := pick(Sampling{}, logits, 0); id != 1 {
		t.Errorf("greedy took %d, not 1", id)
	}
	odd := func(id int32) bool { return id != 1 }
	if id := (Sampling{}).choose(logits, nil, odd, [2]uint32{}); id != 3 {
		t.Errorf("greedy without token 1 took %d, not 3", id)
	}
}

func TestRepetitionPenaltyShrinksBothSigns(t *testing.T) {
	seen := map[int32]struct{}{0: {}, 1: {}}
	logits := []float32{4, -1, 2.5, -1.5}
	s := Sampling{RepetitionPenalty: 2}
	if id := s.choose(logits, seen, nil, [2]uint32{}); id != 2 {
		t.Errorf("took %d, not 2", id)
	}
	if logits[0] != 2 || logits[1] != -2 || logits[3] != -1.5 {
		t.Errorf("the penalised logits are %v", logits)
	}
}

// TestDrawsFollowTheProbabilities counts many draws against softmax, cut by top-k and top-p.
func TestDrawsFollowTheProbabilities(t *testing.T) {
	p := []float64{0.5, 0.25, 0.15, 0.1}
	logits := make([]float32, len(p))
	for i, v := range p {
		logits[i] = float32(math.Log(v))
	}
	for _, c := range []struct {
		s    Sampling
		want []float64
	}{
		{Sampling{Temperature: 1, Seed: 1}, p},
		{Sampling{Temperature: 1, TopK: 2, Seed: 2}, []float64{2. / 3, 1. / 3, 0, 0}},
		{Sampling{Temperature: 1, TopP: 0.8, Seed: 3}, []float64{0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0}},
		{Sampling{Temperature: 1, TopP: 0.75, Seed: 3}, []float64{2. / 3, 1. / 3, 0, 0}},
		{Sampling{Temperature: 1, TopP: 1e-9, Seed: 4}, []float64{1, 0, 0, 0}},
		{Sampling{Temperature: 0.5, Seed: 5}, []float64{0.25 / 0.345, 0.0625 / 0.345, 0.0225 / 0.345, 0.01 / 0.345}},
	} {
		const n = 20000
		counts := make([]float64, len(p))
		for i := range uint32(n) {
			counts[pick(c.s, logits, i)]++
		}
		for i, want := range c.want {
			if got := counts[i] / n; math.Abs(got-want) > 0.015 || want == 0 && got != 0 {
				t.Errorf("%+v: token %d came in %.3f of the draws, not %.3f", c.s, i, got, want)
			}
		}
	}
}

func TestSameSeedSameDraw(t *testing.T) {
	logits := make([]float32, 100)
	s := Sampling{Temperature: 1, Seed: 8}
	differ := false
	for i := range uint32(50) {
		a, b := pick(s, logits, i), pick(s, logits, i)
		if a != b {
			t.Fatalf("draw %d gave %d and %d", i, a, b)
		}
		differ = differ || a != pick(Sampling{Temperature: 1, Seed: 9}, logits, i)
	}
	if !differ {
		t.Error("another seed drew the same 50 tokens")
	}
}

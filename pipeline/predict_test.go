package pipeline

import (
	"testing"

	"quartet/kernels/cuda"
)

// TestGuessedGPU holds the guess for an H200 against what one was measured to do with phi-2: docs/performance.md.
func TestGuessedGPU(t *testing.T) {
	s := sizes{parameters: 2_779_683_840, linears: 2_516_582_400, trainTokens: 36_000, answerTokens: 670}
	h200 := guessed(cuda.Info{Major: 9, Processors: 132})
	for stage, measured := range map[string]float64{LoRA: 1, Evaluate: 4} { // 36 k tokens a second; 670 tokens a second of each variant
		if got := s.seconds(stage, h200); got < measured/1.5 || got > 4*measured {
			t.Errorf("%s is guessed to take %.2g s, where an H200 took %g", stage, got, measured)
		}
	}
	if got := s.seconds(Quantize, h200); got > 10 {
		t.Errorf("quantising is guessed to take %.2g s", got)
	}
}

package train

import "math"

// StepsPerEpoch is the optimiser steps of one epoch over so many rows: ceil(ceil(rows/batch)/accumulation), since a
// group never reaches into the next epoch.
func (o Options) StepsPerEpoch(rows int) int {
	microBatches := (rows + o.BatchSize - 1) / o.BatchSize
	return (microBatches + o.Accumulation - 1) / o.Accumulation
}

// Steps is the optimiser steps of a run over so many rows: MaxSteps, or the epochs' steps rounded up.
func (o Options) Steps(rows int) int {
	if o.MaxSteps > 0 {
		return o.MaxSteps
	}
	return int(math.Ceil(o.Epochs * float64(o.StepsPerEpoch(rows))))
}

// LearningRate is the rate of update s, counted from 0, in a run of so many steps. The first is 0 where there is a
// warmup. The operations stand in transformers' order, which makes the results equal to the last bit.
func (o Options) LearningRate(s, steps int) float64 {
	if s < o.Warmup {
		return o.LR * (float64(s) / float64(o.Warmup))
	}
	rest := float64(max(1, steps-o.Warmup))
	switch o.Schedule {
	case "linear":
		return o.LR * max(0, float64(steps-s)/rest)
	case "cosine":
		return o.LR * max(0, 0.5*(1+math.Cos(math.Pi*(float64(s-o.Warmup)/rest))))
	}
	return o.LR
}

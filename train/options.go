// Package train is the training loop of a LoRA adapter: the order of the rows, packed accumulation groups, loss scaling,
// clipping, the learning rate's schedule, the optimisers, and checkpoints from which a run goes on bit by bit as if it
// had never stopped. Forward and backward belong to package model.
package train

import (
	"fmt"
	"time"

	"quartet/dataset"
	"quartet/model"
)

// Options are the settings of a run. Their zero values are not defaults, except where it says so.
type Options struct {
	Epochs       float64 // passes over the rows; may be fractional
	MaxSteps     int     // if above 0, the number of steps, whatever Epochs says
	BatchSize    int     // rows in a micro-batch
	Accumulation int     // micro-batches in a group, which is one step
	LR           float64 // the schedule's highest learning rate
	Schedule     string  // "linear", "cosine" or "constant", each after a linear warmup
	Warmup       int     // steps
	Optimizer    string  // "adamw" or "paged_adamw_8bit"
	Beta1, Beta2 float64
	Eps          float64
	WeightDecay  float64         // decoupled from the gradient
	MaxGradNorm  float64         // of all gradients together; 0 for no clipping
	FP16         bool            // dynamic loss scaling
	LossPer      string          // "token": the group's mean over its tokens; "micro_batch": the mean of its micro-batches' means
	Seed         uint64          // of the rows' order and of dropout
	Recompute    model.Recompute // "" for nothing
	// MaxPackedTokens is the most tokens that run through the model at once, unless one row is longer; 0 for a whole
	// group. A run that resumes keeps the number with which it started.
	MaxPackedTokens int
	// Order, if not nil, is the rows of every epoch, one epoch after the other, in place of the shuffle.
	Order []int
	// Base names the content of the base weights, by a digest; a checkpoint made on another base is refused.
	Base string
}

// Step is what happened in one step.
type Step struct {
	Step, Steps     int     // from 1 to Steps
	Epoch           int     // from 1
	Loss            float64 // mean cross-entropy of the group in nats, as LossPer says
	GradNorm        float64 // L2 norm of all gradients before clipping; 0 where Skipped
	LR              float64 // the learning rate that this step used
	LossScale       float64 // the loss scale that this step used, 1 without FP16
	Skipped         bool    // the scaled gradients overflowed: optimiser and schedule stood still
	Tokens          int     // tokens computed
	Seconds         float64
	TokensPerSecond float64
	ETA             time.Duration // until the last step, by the pace of late
}

// Hooks are how a run reports and where it keeps its checkpoint. All fields may be left out.
type Hooks struct {
	OnStep          func(Step)
	OnWarning       func(string)                 // one line that says what to try
	OnMemory        func(byUse map[string]int64) // bytes, once all is reserved: weights, adapter, optimizer, activations
	Checkpoint      string                       // folder of the checkpoint, made when needed; a run that finds one there resumes from it
	CheckpointEvery int                          // steps between checkpoints at most; 0 for none but the one at cancellation
	CheckpointAfter time.Duration                // time between them at most, where steps are slow; 0 leaves that to CheckpointEvery
}

// Result is what a run did, the part before a resume included.
type Result struct {
	Steps           []Step
	Resumed         int     // steps that were taken from a checkpoint
	Rows            int     // rows trained on in an epoch
	Tokens          int     // tokens computed
	Seconds         float64 // spent in steps
	TokensPerSecond float64
	Bytes           int64 // memory held at the peak: weights, adapter, gradients, optimiser and activations
	Warnings        []string
}

func (o Options) check(data []dataset.Example) error {
	oneOf := func(name, value string, allowed ...string) error {
		for _, a := range allowed {
			if value == a {
				return nil
			}
		}
		return fmt.Errorf("%s is %q, not one of %q", name, value, allowed)
	}
	for _, c := range []struct {
		ok  bool
		say string
	}{
		{o.MaxSteps > 0 || o.Epochs > 0, "num_epochs must be above 0"},
		{o.MaxSteps >= 0, "max_steps must not be negative"},
		{o.BatchSize > 0, "batch_size must be above 0"},
		{o.Accumulation > 0, "gradient_accumulation_steps must be above 0"},
		{o.LR > 0, "learning_rate must be above 0"},
		{o.Warmup >= 0, "warmup_steps must not be negative"},
		{o.Beta1 >= 0 && o.Beta1 < 1 && o.Beta2 >= 0 && o.Beta2 < 1, "adam_beta1 and adam_beta2 must be from 0 to below 1"},
		{o.Eps > 0, "adam_epsilon must be above 0"},
		{o.WeightDecay >= 0 && o.MaxGradNorm >= 0, "weight_decay and max_grad_norm must not be negative"},
		{o.MaxPackedTokens >= 0, "the number of packed tokens must not be negative"},
	} {
		if !c.ok {
			return fmt.Errorf("train: %s", c.say)
		}
	}
	for _, err := range []error{
		oneOf("schedule", o.Schedule, "linear", "cosine", "constant"),
		oneOf("optim", o.Optimizer, "adamw", "paged_adamw_8bit"),
		oneOf("loss_per", o.LossPer, "token", "micro_batch"),
	} {
		if err != nil {
			return fmt.Errorf("train: %w", err)
		}
	}
	for i, e := range data {
		if len(e.IDs) != len(e.Labels) {
			return fmt.Errorf("train: row %d has %d tokens but %d labels", i, len(e.IDs), len(e.Labels))
		}
	}
	for _, row := range o.Order {
		if row < 0 || row >= len(data) {
			return fmt.Errorf("train: the given order names row %d of %d", row, len(data))
		}
	}
	return nil
}

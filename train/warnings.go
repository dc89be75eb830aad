package train

import (
	"errors"
	"fmt"
)

// ErrNothingLearned is wrapped by Run's error when training left every B of the adapter zero.
var ErrNothingLearned = errors.New("nothing was learned")

// The learning rates that are of use for LoRA.
const (
	lowLR  = 1e-6
	highLR = 2e-2
)

func (r *run) warn(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	r.result.Warnings = append(r.result.Warnings, line)
	if r.h.OnWarning != nil {
		r.h.OnWarning(line)
	}
}

// warnAtStart says what can be seen to go wrong before the first step.
func (r *run) warnAtStart() {
	if left := len(r.data) - r.result.Rows; left > 0 {
		r.warn("%d of %d rows have no token to train on and are left out; raise max_length or set labels = \"all\"", left, len(r.data))
	}
	switch {
	case r.o.LR > highLR:
		r.warn("learning_rate %g is far above what LoRA usually takes; if the loss jumps, try 1e-4 to 5e-3", r.o.LR)
	case r.o.LR < lowLR:
		r.warn("learning_rate %g is so low that the adapter will hardly change; try 1e-5 to 5e-3", r.o.LR)
	}
	if r.o.Warmup > 0 && r.o.Warmup >= r.steps {
		r.warn("the run ends after %d steps, within its warmup of %d, and never reaches the learning rate; set warmup_steps to %d or train on more rows",
			r.steps, r.o.Warmup, r.steps/10)
	}
}

// finish judges the run as a whole.
func (r *run) finish() error {
	zero := r.m.Adapter.IsZero()
	if err := r.b.Sync(); err != nil {
		return err
	}
	if zero {
		return fmt.Errorf("%w: every lora_B is still zero after %d steps; %s", ErrNothingLearned, r.steps, r.whyNothing())
	}
	r.warnOfLoss()
	return nil
}

func (r *run) whyNothing() string {
	if r.Updates == 0 {
		return "each of them overflowed; set fp16 = false"
	}
	for s := range r.Updates {
		if r.o.LearningRate(s, r.steps) > 0 {
			return "the gradients vanished; raise learning_rate or name other target modules"
		}
	}
	return "the learning rate was 0 throughout; set warmup_steps = 0 or train on more rows"
}

// warnOfLoss compares the first and the last tenth of the steps.
func (r *run) warnOfLoss() {
	tenth := len(r.result.Steps) / 10
	if tenth == 0 {
		return
	}
	mean := func(steps []Step) (sum float64) {
		for _, s := range steps {
			sum += s.Loss / float64(len(steps))
		}
		return sum
	}
	first, last := mean(r.result.Steps[:tenth]), mean(r.result.Steps[len(r.result.Steps)-tenth:])
	if last < first {
		return
	}
	advice := "more epochs, a higher rank or more target modules"
	switch {
	case r.o.LR < 1e-4:
		advice = "a higher learning_rate, such as 1e-3, or more epochs"
	case r.o.LR > 5e-3:
		advice = "a lower learning_rate, such as 1e-3"
	}
	r.warn("the loss did not fall: %.4f over the first %d steps, %.4f over the last; try %s", first, tenth, last, advice)
}

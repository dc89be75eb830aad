package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"quartet/dataset"
	"quartet/kernels"
	"quartet/model"
)

// run is a training run under way. Between steps its whole state is the position, the scaler, the history and the
// tensors of persistent.
type run struct {
	m    *model.Model
	b    kernels.Backend
	data []dataset.Example
	o    Options
	h    Hooks

	parameters []model.Parameter
	order      *order
	optimizer  *optimizer
	pass       *model.Pass
	sum        kernels.Tensor // F32 (1,1): Σ of the squares of gradients

	position
	steps  int // of the whole run
	limit  int // MaxPackedTokens of the run's start
	result Result

	kept    time.Time  // when the last checkpoint was taken
	writing chan error // tells how the checkpoint that is being written ended; nil for none
}

// position is how far a run has come.
type position struct {
	Step    int    `json:"step"`    // steps done
	Updates int    `json:"updates"` // of these, those in which the optimiser moved
	Scaler  scaler `json:"scaler"`
}

// Run trains m's adapter on the rows and leaves the result in it. It goes on from the checkpoint in h.Checkpoint if there
// is one, and then yields the adapter that an undisturbed run would have, bit by bit. When ctx is cancelled it writes a
// checkpoint there and returns an error that wraps ctx's. Rows without a trained token are left out, with a warning.
//
// The result tells what was done, also beside an error. An adapter whose every B is still zero is an error that wraps
// ErrNothingLearned; a checkpoint of other settings or rows is one that wraps ErrOtherRun.
func Run(ctx context.Context, m *model.Model, data []dataset.Example, o Options, h Hooks) (Result, error) {
	r := &run{m: m, b: m.Backend(), data: data, o: o, h: h, kept: time.Now()}
	defer r.close()
	if err := r.start(); err != nil {
		return r.result, err
	}
	for r.Step < r.steps {
		s, err := r.step(ctx)
		if err != nil {
			if cause := ctx.Err(); cause != nil && errors.Is(err, cause) {
				return r.result, r.cancel(cause)
			}
			return r.result, fmt.Errorf("training step %d of %d: %w", r.Step+1, r.steps, err)
		}
		r.Step++
		r.record(s)
		if h.OnStep != nil {
			h.OnStep(r.result.Steps[r.Step-1])
		}
		if r.due() {
			if err := r.save(); err != nil {
				return r.result, err
			}
		}
	}
	if err := r.saved(); err != nil {
		return r.result, err
	}
	return r.result, r.finish()
}

// start checks the settings, reserves all memory, and takes up a checkpoint.
func (r *run) start() error {
	if err := r.o.check(r.data); err != nil {
		return err
	}
	if r.m.Adapter == nil || len(r.m.Adapter.Modules) == 0 {
		return errors.New("train: the model has no adapter, and its base weights are frozen")
	}
	var rows []int
	for i, e := range r.data {
		if targets(e) > 0 {
			rows = append(rows, i)
		}
	}
	if len(rows) == 0 {
		return fmt.Errorf("train: none of the %d rows has a token to train on; raise max_length or set labels = \"all\"", len(r.data))
	}
	r.order, r.steps, r.limit = newOrder(r.o, rows), r.o.Steps(len(rows)), r.o.MaxPackedTokens
	r.result.Rows = len(rows)
	r.Scaler = newScaler(r.o.FP16)
	if last := r.order.group(r.steps - 1); r.o.Order != nil && len(last) == 0 {
		return fmt.Errorf("train: the given order of %d rows ends before step %d", len(r.o.Order), r.steps)
	}
	if err := r.m.Adapter.EnableGrad(); err != nil {
		return err
	}
	r.parameters = r.m.Adapter.Parameters()
	var err error
	if r.optimizer, err = newOptimizer(r.b, r.m.Adapter, r.o.Optimizer); err != nil {
		return fmt.Errorf("reserve memory for the optimiser: %w", err)
	}
	if r.sum, err = r.b.Alloc(kernels.F32, 1, 1); err != nil {
		return fmt.Errorf("reserve memory for the gradient's norm: %w", err)
	}
	if err := r.resume(); err != nil {
		return err
	}
	r.warnAtStart()
	if r.Step == r.steps {
		return nil
	}
	if r.pass, err = r.m.NewPass(r.longestPack(), model.PassOptions{Train: true, Recompute: r.o.Recompute}); err != nil {
		return err
	}
	uses := map[string]int64{
		"weights": r.m.Bytes(), "adapter": int64(r.m.Adapter.Values.Bytes() + r.m.Adapter.Grads.Bytes()),
		"optimizer": r.optimizer.bytes(), "activations": r.pass.Bytes(),
	}
	for _, n := range uses {
		r.result.Bytes += n
	}
	if r.h.OnMemory != nil {
		r.h.OnMemory(uses)
	}
	return nil
}

func (r *run) close() {
	_ = r.saved() // what it tells matters no more
	if r.pass != nil {
		r.pass.Close()
	}
	if r.optimizer != nil {
		r.optimizer.free()
	}
	r.b.Free(r.sum)
}

// longestPack is the most tokens that any step of the run packs.
func (r *run) longestPack() int {
	longest := 0
	for step := range r.steps {
		for _, p := range packs(r.data, r.order.group(step), r.o, r.limit) {
			longest = max(longest, p.tokens)
		}
	}
	return longest
}

// step runs the next group forward and backward, and updates the adapter.
func (r *run) step(ctx context.Context) (Step, error) {
	start := time.Now()
	s := Step{LossScale: r.Scaler.Scale, LR: r.o.LearningRate(r.Updates, r.steps)}
	r.b.Zero(r.m.Adapter.Grads)
	drop := r.dropout()
	for _, p := range packs(r.data, r.order.group(r.Step), r.o, r.limit) {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		sum, _, err := r.pass.Step(p.batch(r.data), float32(s.LossScale*p.share), drop)
		if err != nil {
			return s, err
		}
		if !finite(sum) {
			return s, r.lossError()
		}
		s.Loss += sum * p.share
		s.Tokens += p.tokens
	}
	norm, bad, err := r.gradNorm()
	switch {
	case err != nil:
		return s, err
	case bad == "":
		s.GradNorm = norm / s.LossScale
		r.update(s)
		r.Scaler.good()
	case !r.o.FP16:
		return s, fmt.Errorf("the gradient of %s is not finite; lower learning_rate or max_grad_norm, or look for broken rows", bad)
	default:
		s.Skipped = true
		r.Scaler.overflow()
		if r.Scaler.Overflows == maxOverflows {
			return s, fmt.Errorf("the gradient overflowed %d steps in a row, first in %s, down to a loss scale of %g; set fp16 = false or lower learning_rate", maxOverflows, bad, s.LossScale)
		}
	}
	if err := r.b.Sync(); err != nil {
		return s, err
	}
	s.Seconds = time.Since(start).Seconds()
	return s, nil
}

func (r *run) dropout() *model.Dropout {
	d := &model.Dropout{
		Seed: r.o.Seed, Step: uint32(r.Step),
		LoRA: float32(r.m.Adapter.Config.Dropout), Residual: float32(r.m.Config.ResidDropout),
	}
	if d.LoRA == 0 && d.Residual == 0 {
		return nil
	}
	return d
}

// gradNorm is the L2 norm of all gradients as they are, loss scale included. bad names the tensor in which a NaN or an
// infinity first arose, "" for none: gradients run from the last layer to the first.
func (r *run) gradNorm() (norm float64, bad string, err error) {
	square, err := r.sumSquares(r.m.Adapter.Grads)
	if err != nil || finite(square) {
		return math.Sqrt(square), "", err
	}
	for _, p := range r.parameters {
		own, err := r.sumSquares(p.Grad)
		if err != nil {
			return 0, "", err
		}
		if bad == "" || !finite(own) {
			bad = tensorName(p)
		}
	}
	return square, bad, nil
}

// sumSquares is Σ t².
func (r *run) sumSquares(t kernels.Tensor) (float64, error) {
	var host [1]float32
	r.b.Zero(r.sum)
	r.b.SumSquares(r.sum, t)
	r.b.Download(kernels.AsBytes(host[:]), r.sum)
	return float64(host[0]), r.b.Sync()
}

// update clips and unscales the gradients in one factor, and moves the adapter.
func (r *run) update(s Step) {
	clip := 1.0
	if r.o.MaxGradNorm > 0 {
		clip = min(1, r.o.MaxGradNorm/(s.GradNorm+1e-6))
	}
	r.Updates++
	r.optimizer.update(kernels.AdamStep{
		LR: float32(s.LR), Beta1: float32(r.o.Beta1), Beta2: float32(r.o.Beta2), Eps: float32(r.o.Eps),
		WeightDecay: float32(r.o.WeightDecay), GradScale: float32(clip / s.LossScale), T: r.Updates,
	})
}

// lossError says where the forward pass stopped being finite.
func (r *run) lossError() error {
	place := r.pass.NonFinite()
	if place == "" {
		place = "the output projection"
	}
	advice := "lower learning_rate"
	if r.b.Activations() == kernels.F16 {
		advice += ", or train where activations are float32"
	}
	return fmt.Errorf("the loss is not finite, first at %s; %s", place, advice)
}

// tensorName is a parameter's name without PEFT's prefix: model.layers.3.self_attn.q_proj.lora_A.
func tensorName(p model.Parameter) string {
	return strings.TrimSuffix(strings.TrimPrefix(p.Name, "base_model.model."), ".weight")
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// recent is how many steps the pace is taken from.
const recent = 20

// record adds a step to the history, with what follows from its place there.
func (r *run) record(s Step) {
	steps := &r.result.Steps
	s.Step, s.Steps = len(*steps)+1, r.steps
	s.Epoch = 1 + len(*steps)/r.o.StepsPerEpoch(r.result.Rows)
	if s.Seconds > 0 {
		s.TokensPerSecond = float64(s.Tokens) / s.Seconds
	}
	*steps = append(*steps, s)
	late := (*steps)[max(0, len(*steps)-recent):]
	var pace float64
	for _, l := range late {
		pace += l.Seconds / float64(len(late))
	}
	late[len(late)-1].ETA = time.Duration(pace * float64(r.steps-s.Step) * float64(time.Second))
	r.result.Tokens += s.Tokens
	r.result.Seconds += s.Seconds
	if r.result.Seconds > 0 {
		r.result.TokensPerSecond = float64(r.result.Tokens) / r.result.Seconds
	}
}

// cancel keeps what was done before the context was cancelled.
func (r *run) cancel(cause error) error {
	if r.h.Checkpoint == "" {
		return fmt.Errorf("training stopped after step %d of %d, without a checkpoint: %w", r.Step, r.steps, cause)
	}
	err := r.save()
	if err == nil {
		err = r.saved()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("training stopped after step %d of %d: %w", r.Step, r.steps, cause), err)
	}
	return fmt.Errorf("training stopped after step %d of %d, the next run goes on from there: %w", r.Step, r.steps, cause)
}

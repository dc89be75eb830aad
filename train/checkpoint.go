package train

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"quartet/kernels"
	"quartet/safetensors"
)

// CheckpointFile is the checkpoint's name in its folder. It holds the adapter, the optimiser's moments and the history
// as tensors, and the position as JSON in its metadata; the former one stays until the next is whole.
const CheckpointFile = "training.safetensors"

// ErrOtherRun is wrapped by Run's error when the checkpoint was made with other settings, rows or weights.
var ErrOtherRun = errors.New("it belongs to another run")

const (
	metadataKey       = "quartet.training"
	checkpointVersion = 1
	historyTensor     = "history"
	historyColumns    = 7 // the fields of historyRow
)

// checkpoint is the metadata of a checkpoint.
type checkpoint struct {
	Version  int       `json:"version"`
	Identity []setting `json:"identity"`
	Position position  `json:"position"`
	Plan     struct {
		MaxPackedTokens int `json:"max_packed_tokens"`
	} `json:"plan"`
}

// setting is one of the things that must be the same for a run to go on.
type setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// identity is everything that determines the run's result besides its position and plan.
func (r *run) identity() []setting {
	o, a := r.o, r.m.Adapter.Config
	var out []setting
	add := func(name string, value any) { out = append(out, setting{name, fmt.Sprint(value)}) }
	add("backend", fmt.Sprint(r.b.Name(), " ", r.b.Activations()))
	add("base weights", o.Base)
	add("model configuration", fmt.Sprintf("%+v", r.m.Config))
	add("rank", a.R)
	add("alpha", a.Alpha)
	add("dropout", a.Dropout)
	add("rslora", a.RSLoRA)
	add("target modules", a.Targets)
	add("num_epochs", o.Epochs)
	add("max_steps", o.MaxSteps)
	add("batch_size", o.BatchSize)
	add("gradient_accumulation_steps", o.Accumulation)
	add("learning_rate", o.LR)
	add("schedule", o.Schedule)
	add("warmup_steps", o.Warmup)
	add("optim", o.Optimizer)
	add("adam_beta1", o.Beta1)
	add("adam_beta2", o.Beta2)
	add("adam_epsilon", o.Eps)
	add("weight_decay", o.WeightDecay)
	add("max_grad_norm", o.MaxGradNorm)
	add("fp16", o.FP16)
	add("loss_per", o.LossPer)
	add("gradient_checkpointing", o.Recompute)
	add("seed", o.Seed)
	add("training rows", r.dataDigest())
	return out
}

// dataDigest names the rows and their given order.
func (r *run) dataDigest() string {
	h := sha256.New()
	number := func(n int) { binary.Write(h, binary.LittleEndian, int64(n)) }
	number(len(r.data))
	for _, e := range r.data {
		number(len(e.IDs))
		binary.Write(h, binary.LittleEndian, e.IDs)
		binary.Write(h, binary.LittleEndian, e.Labels)
	}
	for _, row := range r.o.Order {
		number(row)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// named is a tensor of a checkpoint.
type named struct {
	name   string
	tensor kernels.Tensor
}

// persistent is the tensors that make up a run's state between steps.
func (r *run) persistent() []named {
	var out []named
	for _, s := range r.optimizer.moments {
		name := s.parameter.Name
		out = append(out, named{"adapter." + name, s.parameter.Value}, named{"m." + name, s.m}, named{"v." + name, s.v})
		if !s.absmax1.IsZero() {
			out = append(out, named{"m_absmax." + name, s.absmax1}, named{"v_absmax." + name, s.absmax2})
		}
	}
	return out
}

var fileTypes = map[kernels.DType]safetensors.DType{kernels.F32: safetensors.F32, kernels.U8: safetensors.U8}

// due reports whether it is time for a checkpoint.
func (r *run) due() bool {
	h := r.h
	if h.Checkpoint == "" || h.CheckpointEvery == 0 {
		return false
	}
	return r.Step%h.CheckpointEvery == 0 || h.CheckpointAfter > 0 && time.Since(r.kept) >= h.CheckpointAfter
}

// save takes the state after the last whole step, and has it written while training goes on.
func (r *run) save() error {
	if err := r.saved(); err != nil {
		return err
	}
	r.kept = time.Now()
	path := filepath.Join(r.h.Checkpoint, CheckpointFile)
	if err := os.MkdirAll(r.h.Checkpoint, 0o777); err != nil {
		return fmt.Errorf("save checkpoint of step %d: %w", r.Step, err)
	}
	c := checkpoint{Version: checkpointVersion, Identity: r.identity(), Position: r.position}
	c.Plan.MaxPackedTokens = r.limit
	metadata, err := json.Marshal(c)
	if err != nil {
		return err
	}
	entries := []safetensors.Entry{{
		Name: historyTensor, DType: safetensors.F64, Shape: []int{len(r.result.Steps), historyColumns},
		Data: safetensors.Bytes(encodeHistory(r.result.Steps)),
	}}
	for _, n := range r.persistent() {
		data := make([]byte, n.tensor.Bytes())
		r.b.Download(data, n.tensor)
		entries = append(entries, safetensors.Entry{Name: n.name, DType: fileTypes[n.tensor.DType], Shape: []int{n.tensor.Rows, n.tensor.Cols}, Data: safetensors.Bytes(data)})
	}
	if err := r.b.Sync(); err != nil {
		return fmt.Errorf("save checkpoint of step %d: %w", r.Step, err)
	}
	step, writing := r.Step, make(chan error, 1)
	r.writing = writing
	go func() {
		err := safetensors.Write(path, map[string]string{metadataKey: string(metadata)}, entries)
		if err != nil {
			err = fmt.Errorf("save checkpoint of step %d: %w", step, err)
		}
		writing <- err
	}()
	return nil
}

// saved waits until the checkpoint that was taken last is written.
func (r *run) saved() error {
	if r.writing == nil {
		return nil
	}
	err := <-r.writing
	r.writing = nil
	return err
}

// openCheckpoint opens the checkpoint in a folder; the file is nil where there is none.
func openCheckpoint(dir string) (*safetensors.File, checkpoint, error) {
	path := filepath.Join(dir, CheckpointFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, checkpoint{}, nil
	}
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, checkpoint{}, fmt.Errorf("%w; delete the file to start anew", err)
	}
	var c checkpoint
	if err = json.Unmarshal([]byte(f.Metadata[metadataKey]), &c); err != nil {
		err = errors.New("it is no checkpoint of a training run")
	} else if c.Version != checkpointVersion {
		err = fmt.Errorf("its version is %d, not %d", c.Version, checkpointVersion)
	}
	if err != nil {
		f.Close()
		return nil, checkpoint{}, fmt.Errorf("%s: %w; delete the file to start anew", path, err)
	}
	return f, c, nil
}

// resume takes up the checkpoint in the folder, if there is one.
func (r *run) resume() error {
	if r.h.Checkpoint == "" {
		return nil
	}
	torn, err := filepath.Glob(filepath.Join(r.h.Checkpoint, "."+CheckpointFile+".*.tmp"))
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	for _, path := range torn { // a save that was killed
		os.Remove(path)
	}
	f, c, err := openCheckpoint(r.h.Checkpoint)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if f == nil {
		return nil
	}
	defer f.Close()
	if err := r.restore(f, c); err != nil {
		return fmt.Errorf("resume: %s: %w; delete the file to start anew", filepath.Join(r.h.Checkpoint, CheckpointFile), err)
	}
	return nil
}

func (r *run) restore(f *safetensors.File, c checkpoint) error {
	now := r.identity()
	if len(c.Identity) != len(now) {
		return ErrOtherRun
	}
	for i, was := range c.Identity {
		if was != now[i] {
			return fmt.Errorf("%w: %s was %s and is %s", ErrOtherRun, now[i].Name, was.Value, now[i].Value)
		}
	}
	if p := c.Position; p.Step < 0 || p.Step > r.steps || p.Updates < 0 || p.Updates > p.Step || !(p.Scaler.Scale > 0) || c.Plan.MaxPackedTokens < 0 {
		return fmt.Errorf("step %d with %d updates and a loss scale of %g cannot be", p.Step, p.Updates, p.Scaler.Scale)
	}
	history, err := tensorData(f, historyTensor, safetensors.F64, c.Position.Step, historyColumns)
	if err != nil {
		return err
	}
	state := r.persistent()
	contents := make([][]byte, len(state))
	for i, n := range state {
		if contents[i], err = tensorData(f, n.name, fileTypes[n.tensor.DType], n.tensor.Rows, n.tensor.Cols); err != nil {
			return err
		}
	}
	for i, n := range state {
		r.b.Upload(n.tensor, contents[i])
	}
	if err := r.b.Sync(); err != nil {
		return err
	}
	for row := range c.Position.Step {
		r.record(decodeHistory(history[row*historyColumns*8:]))
	}
	r.position, r.limit, r.result.Resumed = c.Position, c.Plan.MaxPackedTokens, c.Position.Step
	return nil
}

func tensorData(f *safetensors.File, name string, d safetensors.DType, rows, cols int) ([]byte, error) {
	t, ok := f.Get(name)
	if !ok {
		return nil, fmt.Errorf("tensor %s is missing", name)
	}
	if t.DType != d || len(t.Shape) != 2 || t.Shape[0] != rows || t.Shape[1] != cols {
		return nil, fmt.Errorf("tensor %s is %s%v, not %s[%d %d]", name, t.DType, t.Shape, d, rows, cols)
	}
	return t.Data, nil
}

// historyRow is what is kept of a step; the rest follows from its place.
func historyRow(s *Step) [historyColumns - 2]*float64 {
	return [...]*float64{&s.Loss, &s.GradNorm, &s.LR, &s.LossScale, &s.Seconds}
}

func encodeHistory(steps []Step) []byte {
	var out []byte
	add := func(v float64) { out = binary.LittleEndian.AppendUint64(out, math.Float64bits(v)) }
	for i := range steps {
		s := &steps[i]
		for _, v := range historyRow(s) {
			add(*v)
		}
		add(float64(s.Tokens))
		if s.Skipped {
			add(1)
		} else {
			add(0)
		}
	}
	return out
}

func decodeHistory(data []byte) (s Step) {
	next := func() float64 {
		v := math.Float64frombits(binary.LittleEndian.Uint64(data))
		data = data[8:]
		return v
	}
	for _, v := range historyRow(&s) {
		*v = next()
	}
	s.Tokens, s.Skipped = int(next()), next() != 0
	return s
}

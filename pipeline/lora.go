package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"quartet/config"
	"quartet/dataset"
	"quartet/eval"
	"quartet/event"
	"quartet/kernels"
	"quartet/model"
	"quartet/tokenizer"
	"quartet/train"
)

// maxPacked is the most tokens that training runs through the model at once, unless one row is longer. It bounds the
// activations of large groups; being a constant, it does not make results depend on the machine's memory.
const maxPacked = 4096

// packedTokens is the most tokens that a step of the configured training packs, as long as no row is longer than maxPacked.
func packedTokens(c *config.Config) int {
	return min(maxPacked, c.Training.BatchSize*c.Training.GradientAccumulationSteps*c.Dataset.MaxLength)
}

// trainingLog is training.json: how an adapter came about.
type trainingLog struct {
	Loss            []eval.Figure   `json:"loss"`
	GradNorm        []eval.Figure   `json:"grad_norm"`
	LearningRate    []eval.Figure   `json:"learning_rate"`
	Seconds         float64         `json:"seconds"`
	Tokens          int             `json:"tokens"`
	TokensPerSecond float64         `json:"tokens_per_second"`
	ResumedAt       int             `json:"resumed_at,omitempty"` // the last step of an interrupted run that it went on from
	Data            dataStats       `json:"data"`
	Settings        json.RawMessage `json:"settings"`
	Warnings        []string        `json:"warnings,omitempty"`
}

// dataStats is dataset.Stats as training.json spells it.
type dataStats struct {
	Rows         int     `json:"rows"`
	Tokens       int     `json:"tokens"`
	Trained      int     `json:"trained_tokens"`
	Masked       int     `json:"masked_tokens"`
	Truncated    int     `json:"truncated_rows"`
	EOSTargets   int     `json:"eos_targets"`
	PaddingShare float64 `json:"padding_share"`
	Longest      int     `json:"longest_row"`
}

func makeLoRA(ctx context.Context, j *job) error {
	b, err := j.device()
	if err != nil {
		return err
	}
	c := j.w.Config
	base := j.path(j.needs[0])
	w, err := model.Load(b, base)
	if err != nil {
		return err
	}
	defer w.Close()
	w.Between = j.between(ctx)
	examples, stats, err := j.examples(base, w.Config)
	if err != nil {
		return err
	}
	m := &model.Model{Weights: w}
	id, revision := baseID(c.Model, j.path(Base))
	adapter := model.AdapterConfig{BaseModel: id, Revision: revision, R: c.LoRA.R, Alpha: c.LoRA.Alpha, Dropout: c.LoRA.Dropout, Targets: c.LoRA.TargetModules}
	result, err := j.train(ctx, m, adapter, examples)
	defer func() { m.Adapter.Free() }()
	if err != nil {
		return err
	}
	if err := m.Adapter.Save(j.temp); err != nil {
		return err
	}
	if err := copyTokenizer(base, j.temp); err != nil {
		return err
	}
	j.figures["steps"], j.figures["training_seconds"] = float64(len(result.Steps)), result.Seconds
	j.figures["tokens_per_second"], j.figures["memory_bytes"] = result.TokensPerSecond, float64(result.Bytes)
	log := trainingLog{
		Seconds: result.Seconds, Tokens: result.Tokens, TokensPerSecond: result.TokensPerSecond, ResumedAt: result.Resumed,
		Data: dataStats(stats), Settings: j.config, Warnings: result.Warnings,
	}
	for _, s := range result.Steps {
		log.Loss = append(log.Loss, eval.Figure(s.Loss))
		log.GradNorm = append(log.GradNorm, eval.Figure(s.GradNorm))
		log.LearningRate = append(log.LearningRate, eval.Figure(s.LR))
	}
	if n := len(result.Steps); n > 0 {
		j.figures["first_loss"], j.figures["final_loss"] = result.Steps[0].Loss, result.Steps[n-1].Loss
	}
	return writeJSON(filepath.Join(j.temp, trainingName), log)
}

// examples reads, draws and encodes the rows to train on, and shows one.
func (j *job) examples(dir string, mc model.Config) ([]dataset.Example, dataset.Stats, error) {
	var none dataset.Stats
	c := j.w.Config.Dataset
	if c.MaxLength > mc.MaxPositions {
		return nil, none, fmt.Errorf("encode rows: max_length is %d, but the model has %d positions; lower max_length", c.MaxLength, mc.MaxPositions)
	}
	rows, err := dataset.Read(j.w.DatasetFile())
	if err != nil {
		return nil, none, err
	}
	heldOut := c.HeldOut
	if c.HeldOutFile != "" {
		heldOut = 0
	}
	rows, _, err = dataset.Split(rows, c.NumSamples, heldOut, j.w.Config.Seed)
	if err != nil {
		return nil, none, err
	}
	t, err := tokenizer.Load(dir)
	if err != nil {
		return nil, none, err
	}
	eos, err := endOfText(t, mc)
	if err != nil {
		return nil, none, err
	}
	examples, stats, err := dataset.Encode(t, j.w.Template(), rows, eos, dataset.Options{MaxLength: c.MaxLength, Truncate: c.Truncation, Labels: dataset.Labels(c.Labels)})
	if err != nil {
		return nil, none, err
	}
	if len(examples) == 0 {
		return nil, none, fmt.Errorf("read %s: there are no rows to train on; lower held_out or add rows", c.Name)
	}
	j.preview(t, examples[:min(len(examples), j.w.Config.Training.BatchSize, previewRows)], stats)
	return examples, stats, nil
}

// endOfText is the token that ends a row.
func endOfText(t *tokenizer.Tokenizer, c model.Config) (int32, error) {
	if c.EOS >= 0 {
		return c.EOS, nil
	}
	if id, ok := t.ID("<|endoftext|>"); ok {
		return id, nil
	}
	return 0, errors.New("encode rows: the model names no end-of-text token; set eos_token_id in its config.json")
}

// previewRows bounds the rows of the batch that is shown before training.
const previewRows = 4

// preview shows a batch with trained and masked tokens told apart, and the figures of all rows.
func (j *job) preview(t *tokenizer.Tokenizer, batch []dataset.Example, s dataset.Stats) {
	p := &event.PreviewPart{
		Rows: s.Rows, Tokens: s.Tokens, Trained: s.Trained, Masked: s.Masked, Truncated: s.Truncated, EOSTargets: s.EOSTargets, PaddingShare: s.PaddingShare,
	}
	for i, e := range batch {
		if i > 0 {
			p.Pieces = append(p.Pieces, event.Piece{Text: "\n\n"})
		}
		for _, piece := range dataset.Pieces(t, e) {
			p.Pieces = append(p.Pieces, event.Piece(piece))
		}
	}
	j.emit(event.Event{Kind: event.Preview, Preview: p})
	if s.EOSTargets == 0 {
		j.warn(`end-of-text is never a target, so the model will not learn to stop; set labels = "all" or "response", or raise max_length`)
	}
}

// train trains a new adapter, from the checkpoint of an interrupted run where there is one of the same settings.
func (j *job) train(ctx context.Context, m *model.Model, ac model.AdapterConfig, rows []dataset.Example) (train.Result, error) {
	if _, err := train.CheckpointStep(j.w.checkpoint()); err != nil {
		j.warn(fmt.Sprintf("training starts over: %v", err))
		if err := j.w.dropCheckpoint(); err != nil {
			return train.Result{}, err
		}
	}
	for {
		var err error
		m.Adapter.Free()
		if m.Adapter, err = model.NewAdapter(m.Backend(), m.Config, ac, j.w.Config.Seed, m.DType()); err != nil {
			return train.Result{}, err
		}
		result, err := train.Run(ctx, m, rows, j.trainOptions(m.Backend()), j.trainHooks())
		if !errors.Is(err, train.ErrOtherRun) {
			return result, err
		}
		j.log("training starts over: the checkpoint of the interrupted run cannot be used, %v", err)
		if err := j.w.dropCheckpoint(); err != nil {
			return result, err
		}
	}
}

func (j *job) trainOptions(b kernels.Backend) train.Options {
	t := j.w.Config.Training
	return train.Options{
		Epochs: t.NumEpochs, BatchSize: t.BatchSize, Accumulation: t.GradientAccumulationSteps,
		LR: t.LearningRate, Schedule: t.Schedule, Warmup: t.WarmupSteps,
		Optimizer: t.Optim, Beta1: t.AdamBeta1, Beta2: t.AdamBeta2, Eps: t.AdamEpsilon, WeightDecay: t.WeightDecay,
		MaxGradNorm: t.MaxGradNorm, FP16: t.FP16, LossPer: t.LossPer,
		Seed: j.w.Config.Seed, Recompute: model.RecomputeFor(b.Name(), t.GradientCheckpointing, packedTokens(j.w.Config)), MaxPackedTokens: maxPacked,
		Base: j.inputs[j.needs[0]].tree.digest(),
	}
}

func (j *job) trainHooks() train.Hooks {
	return train.Hooks{
		OnStep: func(s train.Step) {
			j.emit(event.Event{Kind: event.TrainStep, Train: &event.TrainPart{
				Step: s.Step, Steps: s.Steps, Epoch: s.Epoch, Loss: event.Float(s.Loss), GradNorm: event.Float(s.GradNorm), LR: event.Float(s.LR),
				LossScale: event.Float(s.LossScale), Tokens: s.Tokens, Skipped: s.Skipped, TokensPerSecond: s.TokensPerSecond, ETA: s.ETA.Seconds(),
			}})
			j.crashAt(fmt.Sprintf("step %d", s.Step))
		},
		OnWarning: j.warn, OnMemory: j.reserved, Checkpoint: j.w.checkpoint(), CheckpointEvery: j.checkpointEvery(), CheckpointAfter: 10 * time.Second,
	}
}

// checkpointEvery is after how many steps training writes a checkpoint though they took less than ten seconds.
func (j *job) checkpointEvery() int {
	const most = 25
	if t := j.w.Config.Training; t.SaveStrategy == "steps" {
		return min(most, t.SaveSteps)
	}
	return most
}

func (w *Workspace) checkpoint() string { return w.state("checkpoints", LoRA) }

// checkpointStep is the step that an interrupted training goes on from, 0 where it starts over.
func (w *Workspace) checkpointStep() int {
	step, err := train.CheckpointStep(w.checkpoint())
	if err != nil {
		return 0
	}
	return step
}

func (w *Workspace) dropCheckpoint() error {
	if err := os.RemoveAll(w.checkpoint()); err != nil {
		return fmt.Errorf("remove the checkpoint of the training: %w", obstacle(err))
	}
	return nil
}

// tokenizerFiles are what a tokenizer may consist of.
var tokenizerFiles = []string{"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"}

func copyTokenizer(from, to string) error {
	for _, name := range tokenizerFiles {
		source := filepath.Join(from, name)
		if !exists(source) {
			continue
		}
		if err := copyFile(source, filepath.Join(to, name), func(int64) {}); err != nil {
			return err
		}
	}
	return nil
}

var hubID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// baseID is the hub id and revision of the base model, for the adapter's base_model_name_or_path. For a local folder it is
// the id that its config.json remembers, else the folder's name; never a path of this machine.
func baseID(m config.Model, dir string) (id, revision string) {
	switch m.Source() {
	case config.Hub:
		return m.Name, m.Revision
	case config.Embedded:
		return "quartet/phi-tiny", ""
	}
	var c struct {
		Name string `json:"_name_or_path"`
	}
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err == nil && json.Unmarshal(data, &c) == nil && hubID.MatchString(c.Name) {
		return c.Name, ""
	}
	return filepath.Base(m.Name), ""
}

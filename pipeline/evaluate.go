package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"quartet/dataset"
	"quartet/eval"
	"quartet/event"
	"quartet/model"
	"quartet/tokenizer"
)

// Variants are the four variants of the workspace, whether they exist or not.
func (w *Workspace) Variants() []eval.Variant {
	path := func(stage string) string { return w.Path(w.folder(stage)) }
	return []eval.Variant{
		{Name: eval.Base, Weights: path(Base)},
		{Name: "quantized", Weights: path(Quantize)},
		{Name: "lora", Weights: path(w.needs(LoRA)[0]), Adapter: path(LoRA)},
		{Name: "lora_quantized", Weights: path(LoRAQuantize)},
	}
}

// Template is the text around a row's instruction, by the configuration.
func (w *Workspace) Template() dataset.Template {
	return dataset.Template{Prompt: w.Config.Prompt.Template, Context: w.Config.Prompt.Context}
}

// Sampling is how answers are drawn, by the configuration.
func (w *Workspace) Sampling() model.Sampling {
	e := w.Config.Evaluation
	return model.Sampling{Temperature: e.Temperature, TopK: e.TopK, TopP: e.TopP, RepetitionPenalty: e.RepetitionPenalty, Seed: w.Config.Seed}
}

// units are what the phases of an evaluation count.
var units = map[string]string{"load": "variants", "speed": "steps", "likelihood": "rows", "answers": "answers"}

func evaluate(ctx context.Context, j *job) error {
	results, err := j.measure(ctx, j.w.Variants())
	if err != nil {
		return err
	}
	if results.Training, err = j.training(); err != nil {
		return err
	}
	if err := results.Write(filepath.Join(j.temp, resultsName)); err != nil {
		return err
	}
	return j.writeReports(results)
}

// Measure evaluates variants of the workspace as they lie there, all of them without names, and writes nothing. The
// results hold no training. Base is measured too, since the others' divergence is from it. sink is told the progress. Of the
// options Backend, Turn and Others count.
func Measure(ctx context.Context, w *Workspace, o Options, names []string, sink event.Sink) (*eval.Results, error) {
	variants := w.Variants()
	for _, name := range names {
		if !slices.ContainsFunc(variants, func(v eval.Variant) bool { return v.Name == name }) {
			return nil, fmt.Errorf("no variant %q; the variants are base, quantized, lora, lora_quantized", name)
		}
	}
	if len(names) > 0 {
		variants = slices.DeleteFunc(variants, func(v eval.Variant) bool { return v.Name != eval.Base && !slices.Contains(names, v.Name) })
	}
	j := &job{runner: &runner{w: w, o: o, sink: sink}, facts: facts{stage: Evaluate}}
	defer j.leave()
	results, err := j.measure(ctx, variants)
	if closed := j.close(); err == nil {
		err = closed
	}
	return results, err
}

// measure evaluates variants on the held-out rows and the test prompts.
func (j *job) measure(ctx context.Context, variants []eval.Variant) (*eval.Results, error) {
	b, err := j.device()
	if err != nil {
		return nil, err
	}
	c := j.w.Config
	t, err := tokenizer.Load(j.path(Base))
	if err != nil {
		return nil, err
	}
	rows, err := j.heldOut()
	if err != nil {
		return nil, err
	}
	meters := map[string]*event.Meter{}
	results, err := eval.Evaluate(ctx, b, variants,
		eval.Data{Tokenizer: t, Template: j.w.Template(), HeldOut: rows, Prompts: c.Evaluation.TestPrompts},
		eval.Options{MaxNew: c.Evaluation.MaxNewTokens, Batch: c.Evaluation.Batch, Sampling: j.w.Sampling()},
		eval.Hooks{OnWarning: j.warn, OnMemory: j.reserved, Between: j.between(ctx), Others: j.o.Others, OnProgress: func(p eval.Progress) {
			label, key := strings.TrimSpace(p.Phase+" "+p.Variant), p.Phase
			if p.Phase == "answers" { // counted for each variant
				key = label
			}
			if meters[key] == nil {
				meters[key] = j.meter(units[p.Phase])
			}
			meters[key].Label(label, int64(p.Done), int64(p.Total))
		}})
	if err != nil {
		return nil, err
	}
	results.Settings, err = j.settings()
	return results, err
}

// heldOut is the rows that training never sees.
func (j *job) heldOut() ([]dataset.Row, error) {
	c, seed := j.w.Config.Dataset, j.w.Config.Seed
	if c.HeldOutFile == "" {
		rows, err := dataset.Read(j.w.DatasetFile())
		if err != nil {
			return nil, err
		}
		_, held, err := dataset.Split(rows, c.NumSamples, c.HeldOut, seed)
		return held, err
	}
	rows, err := dataset.Read(j.w.Path(c.HeldOutFile))
	switch {
	case err != nil:
		return nil, err
	case c.HeldOut > len(rows):
		return nil, fmt.Errorf("read %s: it has %d rows, but held_out is %d; lower held_out, or set 0 for all", c.HeldOutFile, len(rows), c.HeldOut)
	}
	if c.HeldOut > 0 && c.HeldOut < len(rows) {
		if _, rows, err = dataset.Split(rows, 0, c.HeldOut, seed); err != nil {
			return nil, err
		}
	}
	j.warnOfOverlap(rows)
	return rows, nil
}

// warnOfOverlap tells when rows of the held-out file are rows of the training data.
func (j *job) warnOfOverlap(held []dataset.Row) {
	rows, err := dataset.Read(j.w.DatasetFile())
	if err != nil {
		return // the dataset has been cleared away since the training
	}
	trained := map[dataset.Row]bool{}
	for _, r := range rows {
		trained[r] = true
	}
	n := 0
	for _, r := range held {
		if trained[r] {
			n++
		}
	}
	if n > 0 {
		j.warn(fmt.Sprintf("%d of the %d held-out rows are in the training data too, so their figures say little about new rows; take them out of one of the files", n, len(held)))
	}
}

// training is the curve of the adapter's training.
func (j *job) training() (*eval.Training, error) {
	path := filepath.Join(j.path(LoRA), trainingName)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, absent(err))
	}
	var t eval.Training
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, fmt.Errorf("read %s: %w; run stage lora again with --force", path, err)
	}
	return &t, nil
}

// settings is the parts of the configuration that the variants were made with.
func (j *job) settings() (map[string]any, error) {
	all := map[string]any{}
	for _, stage := range Stages {
		part, err := j.w.Config.Part(stage)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(part, &all); err != nil {
			return nil, err
		}
	}
	delete(all, "model.name")
	all["model"], _ = baseID(j.w.Config.Model, j.path(Base))
	return all, nil
}

package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"quartet/config"
	"quartet/demo"
	"quartet/event"
	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/tokenizer"
)

// works are what the stages do: each writes its artefact into the job's temporary folder.
var works = map[string]func(context.Context, *job) error{
	Base: makeBase, Quantize: makeQuantized, LoRA: makeLoRA, LoRAQuantize: makeLoRAQuantized, Evaluate: evaluate, Upload: upload,
}

// adopts reports whether the base model is taken as it lies there: a model of the hub that the user put in place.
func (f facts) adopts() bool {
	return f.adopt && f.there && (f.manifest == nil || f.manifest.Adopted && len(changedKeys(f.manifest.Config, f.config)) == 0)
}

func makeBase(ctx context.Context, j *job) error {
	m := j.w.Config.Model
	var err error
	switch m.Source() {
	case config.Embedded:
		err = demo.WriteModel(j.temp)
	case config.Folder:
		err = j.takeFolder(ctx, j.w.Path(m.Name), j.meter("bytes"))
	default:
		err = j.fetchModel(ctx)
	}
	if err != nil {
		return err
	}
	return verify(j.temp)
}

// takeFolder links or copies a local model's files. The model is checked first, so that a wrong folder costs nothing.
func (j *job) takeFolder(ctx context.Context, source string, progress *event.Meter) error {
	if err := verify(source); err != nil {
		return err
	}
	entries, err := os.ReadDir(source)
	if err != nil {
		return fmt.Errorf("read %s: %w", source, obstacle(err))
	}
	var names []string
	var total, done int64
	for _, e := range entries {
		if info, err := os.Stat(filepath.Join(source, e.Name())); travels(e.Name()) && err == nil && info.Mode().IsRegular() {
			names, total = append(names, e.Name()), total+info.Size()
		}
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := place(filepath.Join(source, name), filepath.Join(j.temp, name), func(n int64) {
			done += n
			progress.At(done, total)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// travels tells by its name whether a file of a local model goes into the workspace: all that weighs, and what its author
// asks to keep with it.
func travels(name string) bool {
	stem, _, _ := strings.Cut(strings.ToUpper(name), ".")
	return weighs(name) || stem == "LICENSE" || stem == "NOTICE" || stem == "README"
}

// verify holds a model folder against its own config.json: every tensor there with the right type and shape, and a
// tokenizer whose tokens have a row.
func verify(dir string) error {
	w, err := model.Load(cpu.New(), dir)
	if err != nil {
		return err
	}
	defer w.Close()
	if w.Config.Quantized {
		return fmt.Errorf("check %s: the model is quantised already; the base must be a 16- or 32-bit model", dir)
	}
	t, err := tokenizer.Load(dir)
	if err != nil {
		return err
	}
	if t.Len() > w.Config.VocabSize {
		return fmt.Errorf("check %s: the tokenizer has tokens up to id %d, but the model has %d rows; take both from the same model", dir, t.Len()-1, w.Config.VocabSize)
	}
	return nil
}

func (j *job) quantizeOptions() model.QuantizeOptions {
	q := j.w.Config.Quantization
	return model.QuantizeOptions{DoubleQuant: q.DoubleQuant, ComputeDType: q.ComputeDType}
}

func makeQuantized(ctx context.Context, j *job) error {
	b, err := j.device()
	if err != nil {
		return err
	}
	stats, err := model.Quantize(b, j.path(Base), j.temp, j.quantizeOptions(), j.steady(ctx))
	if err != nil {
		return err
	}
	j.record(stats)
	return nil
}

func makeLoRAQuantized(ctx context.Context, j *job) error {
	b, err := j.device()
	if err != nil {
		return err
	}
	stats, err := model.MergeQuantize(b, j.path(Base), j.path(LoRA), j.temp, j.quantizeOptions(), j.w.Config.LoRA.Merge, j.steady(ctx))
	if err != nil {
		return err
	}
	j.record(stats)
	return nil
}

// record takes a stage's statistics, a struct of numbers, as its figures.
func (j *job) record(stats any) {
	data, err := json.Marshal(stats)
	if err == nil {
		json.Unmarshal(data, &j.figures)
	}
}

// announce reports what other programs want to have of a finished stage.
func (j *job) announce() error {
	if j.stage != Evaluate {
		return nil
	}
	data, err := os.ReadFile(j.w.ResultsFile())
	if err != nil {
		return fmt.Errorf("read %s: %w", j.w.ResultsFile(), obstacle(err))
	}
	j.emit(event.Event{Kind: event.Results, Results: data})
	return nil
}

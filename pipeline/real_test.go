package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quartet/config"
	"quartet/demo"
	"quartet/eval"
	"quartet/event"
	"quartet/safetensors"
)

// demoWorkspace is the demo's workspace with so little to do that all stages take seconds.
func demoWorkspace(t *testing.T) *Workspace {
	t.Helper()
	dir := t.TempDir()
	if err := demo.WriteWorkspace(dir); err != nil {
		t.Fatal(err)
	}
	w, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := w.Config
	c.Dataset.NumSamples, c.Dataset.HeldOut, c.Dataset.MaxLength = 12, 2, 48
	c.Training.NumEpochs, c.Training.GradientAccumulationSteps, c.Training.WarmupSteps = 1, 2, 1
	c.Training.SaveStrategy, c.Training.SaveSteps = "steps", 2
	c.Evaluation.TestPrompts, c.Evaluation.MaxNewTokens = c.Evaluation.TestPrompts[:1], 3
	return w
}

func contents(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestDemoStages runs the real stages from the embedded model to the results.
func TestDemoStages(t *testing.T) {
	w := demoWorkspace(t)
	var results json.RawMessage
	var preview *event.PreviewPart
	steps := 0
	planned, reserved := map[string]event.Uses{}, map[string]event.Uses{}
	err := Run(context.Background(), w, Options{}, func(e event.Event) {
		switch e.Kind {
		case event.Plan:
			for _, p := range e.Plan {
				planned[p.Stage] = p.Memory
			}
		case event.Memory:
			reserved[e.Stage] = e.Memory
		case event.Results:
			results = e.Results
		case event.Preview:
			preview = e.Preview
		case event.TrainStep:
			steps++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for stage, uses := range map[string][]string{LoRA: {"weights", "adapter", "optimizer", "activations"}, Evaluate: {"weights", "adapter", "cache", "activations"}} {
		for _, use := range uses {
			if reserved[stage][use] <= 0 {
				t.Errorf("%s reserved %v, nothing for %s", stage, reserved[stage], use)
			}
		}
		if have, most := reserved[stage].Total(), planned[stage].Total(); have > 2*most || have < most/20 {
			t.Errorf("%s reserved %v where %v was predicted", stage, reserved[stage], planned[stage])
		}
	}
	var r eval.Results
	if err := json.Unmarshal(results, &r); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range r.Variants {
		names = append(names, v.Name)
		if v.Missing != "" || !v.NLLPerToken.Known() || len(v.Answers) != 1 {
			t.Errorf("%+v", v)
		}
	}
	equal(t, "variants", names, []string{"base", "quantized", "lora", "lora_quantized"})
	if steps != 6 || len(r.Training.Loss) != 6 || r.Settings["training.learning_rate"] != 0.005 || r.Settings["model"] != "quartet/phi-tiny" {
		t.Errorf("%d steps, training %+v, settings %v", steps, r.Training, r.Settings)
	}
	if preview == nil || preview.Rows != 12 || preview.EOSTargets == 0 || len(preview.Pieces) < 2 {
		t.Errorf("preview %+v", preview)
	}
	var adapter struct {
		Base string `json:"base_model_name_or_path"`
	}
	if err := json.Unmarshal([]byte(contents(t, w.Path(w.Config.Paths.LoRA)+"/adapter_config.json")), &adapter); err != nil || adapter.Base != "quartet/phi-tiny" {
		t.Errorf("base model %q, %v", adapter.Base, err)
	}
	equal(t, "a second run", runAll(t, w, Options{}), nil)
	equal(t, "leftovers", leftovers(t, w), nil)
	if exists(w.checkpoint()) {
		t.Error("the checkpoint of a finished training stays")
	}
}

// TestKilledTrainingGivesTheSameAdapter ends the training after each of its steps, in turn, until it is through.
func TestKilledTrainingGivesTheSameAdapter(t *testing.T) {
	undisturbed, w := demoWorkspace(t), demoWorkspace(t)
	runAll(t, undisturbed, Options{Stages: []string{LoRA}})
	resumed := 0
	for kill := 1; kill <= 6; kill++ {
		parts, err := Status(w)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(parts[2].Reason, "goes on from step") {
			resumed++
		}
		func() {
			defer func() {
				if r := recover(); r != nil && r != errCrash {
					panic(r)
				}
			}()
			err := Run(context.Background(), w, Options{Stages: []string{LoRA}, crash: func(step string) {
				if step == "lora: step "+string(rune('0'+kill)) {
					panic(errCrash)
				}
			}}, func(event.Event) {})
			t.Errorf("kill %d: the run ended, %v", kill, err)
		}()
	}
	ctx, cancel := context.WithCancel(context.Background())
	err := Run(ctx, w, Options{Stages: []string{LoRA}}, func(e event.Event) {
		if e.Kind == event.TrainStep {
			cancel()
		}
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	runAll(t, w, Options{Stages: []string{LoRA}})
	name := "adapter_model.safetensors"
	if contents(t, filepath.Join(w.Path(w.Config.Paths.LoRA), name)) != contents(t, filepath.Join(undisturbed.Path(w.Config.Paths.LoRA), name)) {
		t.Error("the adapters differ")
	}
	if resumed < 3 {
		t.Errorf("only %d of the killed runs went on from a checkpoint", resumed)
	}
}

// TestCheckpointOfOtherSettingsIsDropped changes the learning rate between a stopped run and the next.
func TestCheckpointOfOtherSettingsIsDropped(t *testing.T) {
	w := demoWorkspace(t)
	ctx, cancel := context.WithCancel(context.Background())
	err := Run(ctx, w, Options{Stages: []string{LoRA}}, func(e event.Event) {
		if e.Kind == event.TrainStep && e.Train.Step == 3 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || w.checkpointStep() != 3 {
		t.Fatalf("%v, checkpoint of step %d", err, w.checkpointStep())
	}
	w.Config.Training.LearningRate = 0.001
	var first int
	var log string
	err = Run(context.Background(), w, Options{Stages: []string{LoRA}}, func(e event.Event) {
		switch {
		case e.Kind == event.TrainStep && first == 0:
			first = e.Train.Step
		case e.Kind == event.Log:
			log = e.Text
		}
	})
	if err != nil || first != 1 || !strings.Contains(log, "learning_rate was 0.005 and is 0.001") {
		t.Errorf("%v; first step %d; %q", err, first, log)
	}
}

func TestBaseFromAFolder(t *testing.T) {
	source := t.TempDir()
	if err := demo.WriteModel(source); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(source, "LICENSE.txt"), "free")
	write(t, filepath.Join(source, "pytorch_model.bin"), "a pickle")
	w := demoWorkspace(t)
	w.Config.Model.Name = source
	equal(t, "from a folder", runAll(t, w, Options{Stages: []string{Base}}), []string{Base})
	base := w.Path(w.Config.Paths.Base)
	original, err := os.Stat(filepath.Join(source, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	linked, err := os.Stat(filepath.Join(base, "model.safetensors"))
	if err != nil || !os.SameFile(original, linked) {
		t.Errorf("the weights were copied, %v", err)
	}
	if !exists(filepath.Join(base, "LICENSE.txt")) || exists(filepath.Join(base, "pytorch_model.bin")) {
		t.Error("the licence should be there, and the pickle not")
	}
	equal(t, "again", runAll(t, w, Options{Stages: []string{Base}}), nil)
	remove(t, source)
	equal(t, "without the source", runAll(t, w, Options{Stages: []string{Base}}), nil)

	id, _ := baseID(w.Config.Model, base)
	if id != filepath.Base(source) {
		t.Errorf("base model id %q", id)
	}
	write(t, filepath.Join(base, "config.json"), `{"_name_or_path": "microsoft/phi-2"}`)
	if id, _ = baseID(w.Config.Model, base); id != "microsoft/phi-2" {
		t.Errorf("base model id %q", id)
	}
}

func TestBasePutThereByHand(t *testing.T) {
	w := demoWorkspace(t)
	w.Config.Model.Name = config.Default().Model.Name
	base := w.Path(w.Config.Paths.Base)
	if err := demo.WriteModel(base); err != nil {
		t.Fatal(err)
	}
	before := contents(t, filepath.Join(base, "model.safetensors"))
	equal(t, "adopted", runAll(t, w, Options{Stages: []string{Base}}), []string{Base})
	equal(t, "again", runAll(t, w, Options{Stages: []string{Base}}), nil)
	if contents(t, filepath.Join(base, "model.safetensors")) != before {
		t.Error("the model changed")
	}
	if left := leftovers(t, w); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBrokenBaseIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(dir string)
		want   string
	}{
		"cut off":      {func(dir string) { cut(t, filepath.Join(dir, "model.safetensors")) }, "model.safetensors"},
		"no tokenizer": {func(dir string) { remove(t, filepath.Join(dir, "tokenizer.json")) }, "tokenizer"},
		"no config":    {func(dir string) { remove(t, filepath.Join(dir, "config.json")) }, "config.json"},
		"no folder":    {func(dir string) { remove(t, dir) }, "not there"},
		"wrong shape": {func(dir string) {
			path := filepath.Join(dir, "config.json")
			write(t, path, strings.Replace(contents(t, path), `"intermediate_size": `, `"intermediate_size": 1`, 1))
		}, "shape"},
	} {
		t.Run(name, func(t *testing.T) {
			w := demoWorkspace(t)
			source := t.TempDir()
			if err := demo.WriteModel(source); err != nil {
				t.Fatal(err)
			}
			w.Config.Model.Name = source
			c.damage(source)
			err := Run(context.Background(), w, Options{}, func(event.Event) {})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			if exists(w.Path(w.Config.Paths.Base)) {
				t.Error("a base was made")
			}
		})
	}
}

func cut(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 1_000_000); err != nil {
		t.Fatal(err)
	}
}

// TestQLoRA trains on the quantised variant, which the lora stage then depends on in the base's place.
func TestQLoRA(t *testing.T) {
	w := demoWorkspace(t)
	w.Config.LoRA.Base, w.Config.LoRA.Merge = "nf4", "dequantized"
	equal(t, "stages", runAll(t, w, Options{Stages: []string{LoRAQuantize}}), Stages[:4])
	lora := w.Variants()[2]
	if lora.Weights != w.Path(w.Config.Paths.Quantized) {
		t.Errorf("the variant lora lies on %s", lora.Weights)
	}
	m, err := w.manifest(LoRAQuantize)
	if err != nil || m.Figures["merged_dequantized_error"] <= 0 || m.Figures["merged_fp16_error"] <= 0 {
		t.Errorf("%+v, %v", m.Figures, err)
	}
	f, err := safetensors.Open(filepath.Join(lora.Adapter, "adapter_model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zero := slices.IndexFunc(f.Tensors(), func(s safetensors.Tensor) bool {
		return strings.Contains(s.Name, "lora_B") && strings.Trim(string(s.Data), "\x00") == ""
	})
	if zero >= 0 {
		t.Errorf("%s is zero", f.Tensors()[zero].Name)
	}
}

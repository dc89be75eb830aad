package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"quartet/config"
)

// finished is the facts of a workspace in which every stage is fresh.
func finished(t *testing.T, c *config.Config) map[string]*facts {
	t.Helper()
	w := &Workspace{Dir: "/nowhere", Config: c}
	made := map[string]Tree{}
	for _, stage := range Stages {
		made[stage] = Tree{{"model.safetensors", 9, "digest of " + stage}}
	}
	all := map[string]*facts{}
	for _, stage := range Stages {
		part, err := c.Part(stage)
		if err != nil {
			t.Fatal(err)
		}
		f := &facts{stage: stage, folder: w.folder(stage), format: 1, config: part, there: true, found: made[stage], needs: w.needs(stage), inputs: map[string]input{}}
		for _, need := range f.needs {
			f.inputs[need] = input{label: w.folder(need), tree: made[need]}
		}
		if stage == LoRA || stage == Evaluate {
			f.inputs["dataset"] = input{label: "rows.jsonl", tree: Tree{{"rows.jsonl", 1, "rows"}}}
		}
		f.manifest = &Manifest{Format: 1, Stage: stage, Config: part, Folder: f.folder, Outputs: made[stage], Inputs: map[string]Tree{}}
		for name, in := range f.inputs {
			f.manifest.Inputs[name] = in.tree
		}
		all[stage] = f
	}
	return all
}

func inOrder(m map[string]*facts) (all []facts) {
	for _, stage := range Stages {
		all = append(all, *m[stage])
	}
	return all
}

func changed(t *testing.T, m map[string]*facts, c *config.Config) {
	t.Helper()
	w := &Workspace{Dir: "/nowhere", Config: c}
	for _, f := range m {
		part, err := c.Part(f.stage)
		if err != nil {
			t.Fatal(err)
		}
		f.config, f.needs = part, w.needs(f.stage)
	}
}

func TestWhatRunsAndWhy(t *testing.T) {
	set := func(change func(*config.Config)) func(*testing.T, map[string]*facts) {
		return func(t *testing.T, m map[string]*facts) {
			c := config.Default()
			change(c)
			changed(t, m, c)
		}
	}
	for _, c := range []struct {
		name   string
		change func(*testing.T, map[string]*facts)
		asked  []string
		force  bool
		runs   string // stages
		reason map[string]string
	}{
		{name: "nothing", change: func(*testing.T, map[string]*facts) {}, runs: ""},
		{
			name: "learning rate", change: set(func(c *config.Config) { c.Training.LearningRate = 0.001 }),
			runs:   "lora lora_quantize evaluate",
			reason: map[string]string{LoRA: "learning_rate changed from 0.00005 to 0.001", LoRAQuantize: "lora runs again", Evaluate: "lora runs again, lora_quantize runs again"},
		},
		{
			name: "test prompt", change: set(func(c *config.Config) { c.Evaluation.TestPrompts = []string{"Why?"} }),
			runs: "evaluate",
		},
		{
			name: "double quantisation", change: set(func(c *config.Config) { c.Quantization.DoubleQuant = false }),
			runs:   "quantize lora_quantize evaluate",
			reason: map[string]string{Quantize: "double_quant changed from true to false"},
		},
		{
			name: "seed", change: set(func(c *config.Config) { c.Seed = 7 }),
			runs: "lora lora_quantize evaluate", reason: map[string]string{LoRA: "seed changed from 42 to 7"},
		},
		{
			name: "device and history", change: set(func(c *config.Config) { c.Device = "cpu"; c.History.Keep = 0; c.Training.SaveStrategy = "steps" }),
			runs: "",
		},
		{
			name: "base of lora", change: func(t *testing.T, m map[string]*facts) {
				c := config.Default()
				c.LoRA.Base = "nf4"
				changed(t, m, c)
				f := m[LoRA]
				f.inputs[Quantize] = input{label: "models/phi-2-quantized", tree: m[Quantize].found}
				delete(f.inputs, Base)
			},
			runs:   "lora lora_quantize evaluate",
			reason: map[string]string{LoRA: `base changed from "fp16" to "nf4", models/phi-2-quantized is a new input`},
		},
		{
			name: "deleted artefact", change: func(_ *testing.T, m map[string]*facts) {
				m[Quantize].there, m[Quantize].found = false, nil
			},
			runs: "quantize evaluate", reason: map[string]string{Quantize: "models/phi-2-quantized is gone", Evaluate: "quantize runs again"},
		},
		{
			name: "artefact changed by hand", change: func(_ *testing.T, m map[string]*facts) {
				m[LoRA].found = Tree{{"model.safetensors", 9, "other"}}
				for _, stage := range []string{LoRAQuantize, Evaluate} {
					m[stage].inputs[LoRA] = input{label: "models/phi-2-lora", tree: m[LoRA].found}
				}
			},
			runs: "lora lora_quantize evaluate", reason: map[string]string{LoRA: "models/phi-2-lora/model.safetensors changed"},
		},
		{
			name: "rows changed", change: func(_ *testing.T, m map[string]*facts) {
				for _, stage := range []string{LoRA, Evaluate} {
					m[stage].inputs["dataset"] = input{label: "data/rows.jsonl", tree: Tree{{"rows.jsonl", 2, "more rows"}}}
				}
			},
			runs: "lora lora_quantize evaluate", reason: map[string]string{LoRA: "data/rows.jsonl changed"},
		},
		{
			name: "new version of the program", change: func(_ *testing.T, m map[string]*facts) { m[Evaluate].format = 2 },
			runs: "evaluate", reason: map[string]string{Evaluate: "another version of the program made it"},
		},
		{
			name: "a file more in an input", change: func(_ *testing.T, m map[string]*facts) {
				tree := append(slices.Clone(m[Base].found), File{"tokenizer.json", 1, "t"})
				m[Quantize].inputs[Base] = input{label: "models/phi-2-base", tree: tree}
			},
			runs: "quantize evaluate", reason: map[string]string{Quantize: "models/phi-2-base/tokenizer.json is new"},
		},
		{name: "force one", change: func(*testing.T, map[string]*facts) {}, asked: []string{Quantize}, force: true, runs: "quantize"},
		{name: "force all", change: func(*testing.T, map[string]*facts) {}, force: true, runs: "base quantize lora lora_quantize evaluate"},
		{
			name: "asked with what it needs", change: set(func(c *config.Config) { c.Training.LearningRate = 0.001 }),
			asked: []string{LoRAQuantize}, runs: "lora lora_quantize",
		},
		{
			name: "asked without what it does not need", change: set(func(c *config.Config) { c.Training.LearningRate = 0.001 }),
			asked: []string{Quantize}, runs: "",
		},
		{
			name: "nothing there", change: func(_ *testing.T, m map[string]*facts) {
				for _, f := range m {
					f.there, f.manifest, f.found = false, nil, nil
				}
			},
			asked: []string{LoRA}, runs: "base lora", reason: map[string]string{Base: "not made yet"},
		},
		{
			name: "put there by hand", change: func(_ *testing.T, m map[string]*facts) {
				m[Base].manifest, m[Base].adopt = nil, true
				m[Quantize].manifest = nil
			},
			asked: []string{Base}, runs: "base",
			reason: map[string]string{
				Base:     "models/phi-2-base was put there by hand; it will be checked and used",
				Quantize: "models/phi-2-quantized holds something that this workspace did not make; it will be kept aside",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := finished(t, config.Default())
			c.change(t, m)
			var runs []string
			reasons := map[string]string{}
			for _, s := range decide(inOrder(m), c.asked, c.force) {
				reasons[s.Stage] = s.Reason
				if s.Run {
					runs = append(runs, s.Stage)
				}
			}
			if got := strings.Join(runs, " "); got != c.runs {
				t.Errorf("runs %q, not %q; reasons %v", got, c.runs, reasons)
			}
			for stage, want := range c.reason {
				if reasons[stage] != want {
					t.Errorf("%s: %q, not %q", stage, reasons[stage], want)
				}
			}
		})
	}
}

func TestStateOfAnUnfinishedRun(t *testing.T) {
	started := time.Now()
	for _, c := range []struct {
		name    string
		mark    mark
		running bool
		step    int
		fresh   bool
		want    State
	}{
		{"at work", mark{Started: started}, true, 0, false, Running},
		{"killed", mark{Started: started}, false, 0, false, Interrupted},
		{"killed with a checkpoint", mark{Started: started}, false, 31, false, Interrupted},
		{"stopped", mark{Error: "stopped", Stopped: true}, false, 31, false, Interrupted},
		{"failed", mark{Error: "disk is full"}, false, 0, false, Failed},
		{"failed, another stage runs", mark{Error: "disk is full"}, true, 0, false, Failed},
		{"forced rerun killed", mark{Started: started}, false, 0, true, Fresh},
	} {
		m := finished(t, config.Default())
		f := m[LoRA]
		f.mark, f.running, f.resumeAt = &c.mark, c.running, c.step
		if !c.fresh {
			f.format = 2
		}
		state, reason := f.judge(map[string]bool{})
		if state != c.want {
			t.Errorf("%s: %s, not %s", c.name, state, c.want)
		}
		if c.step > 0 && reason != fmt.Sprintf("goes on from step %d", c.step) {
			t.Errorf("%s: %q", c.name, reason)
		}
	}
}

func TestReasonOfAnInterruptedFetch(t *testing.T) {
	for fetch, want := range map[string]string{"": "starts over", "microsoft/phi-2": "what has been fetched is not fetched again"} {
		f := facts{stage: Base, mark: &mark{Started: time.Now()}, fetch: fetch}
		if state, reason := f.judge(map[string]bool{}); state != Interrupted || reason != want {
			t.Errorf("%q: %s, %q, not %q", fetch, state, reason, want)
		}
	}
}

func TestUnreadableInputIsAReason(t *testing.T) {
	m := finished(t, config.Default())
	m[LoRA].inputs["dataset"] = input{label: "rows.jsonl", err: errors.New("read rows.jsonl: not there")}
	if state, reason := m[LoRA].judge(nil); state != Stale || reason != "read rows.jsonl: not there" {
		t.Errorf("%s, %q", state, reason)
	}
}

func TestManyReasonsStayShort(t *testing.T) {
	was, is := map[string]any{}, map[string]any{}
	for i := range 9 {
		was[fmt.Sprint("training.k", i)], is[fmt.Sprint("training.k", i)] = i, strings.Repeat("long ", 40)
	}
	a, _ := json.Marshal(was)
	b, _ := json.Marshal(is)
	line := join(changedKeys(a, b))
	if !strings.HasPrefix(line, `k0 changed from 0 to "long long`) || !strings.HasSuffix(line, ", 6 more changes") || len(line) > 300 {
		t.Errorf("%q", line)
	}
}

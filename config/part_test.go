package config

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// stale are the stages whose part differs between two configurations.
func stale(t *testing.T, a, b *Config) string {
	t.Helper()
	var stages []string
	for _, s := range Stages {
		x, err := a.Part(s)
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.Part(s)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(x, y) {
			stages = append(stages, s)
		}
	}
	return strings.Join(stages, " ")
}

func TestPartOfAChangedKey(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", ""},
		{"device = 'cpu'", ""},
		{"seed = 7", "lora evaluate"},
		{"[model]\nname = 'embedded'", "base"},
		{"[model]\nrevision = 'v1'", "base"},
		{"[paths]\nlora = 'elsewhere'", ""},
		{"[quantization]\ndouble_quant = false", "quantize lora_quantize"},
		{"[quantization]\ncompute_dtype = 'bfloat16'", "quantize lora_quantize"},
		{"[lora]\nr = 16", "lora"},
		{"[lora]\ntarget_modules = ['fc1']", "lora"},
		{"[lora]\nbase = 'nf4'", "lora"},
		{"[lora]\nmerge = 'dequantized'", "lora_quantize"},
		{"[dataset]\nname = 'a.jsonl'", "lora evaluate"},
		{"[dataset]\nheld_out = 7", "lora evaluate"},
		{"[dataset]\nlabels = 'seed'", "lora"},
		{"[dataset]\npadding = 'longest'", ""},
		{"[prompt]\ntemplate = '{instruction}'", "lora evaluate"},
		{"[training]\nlearning_rate = 1e-4", "lora"},
		{"[training]\nlearning_rate = 0.00005", ""},
		{"[training]\nnum_epochs = 1.0", ""},
		{"[training]\noptim = 'adamw'", "lora"},
		{"[training]\nsave_strategy = 'steps'\nsave_steps = 5\ngradient_checkpointing = true", ""},
		{"[evaluation]\ntest_prompts = ['Hello?']", "evaluate"},
		{"[evaluation]\ntemperature = 0.7", "evaluate"},
		{"[history]\nkeep = 1", ""},
	}
	for _, test := range tests {
		c, err := Parse("config.toml", []byte(test.text))
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
		} else if got := stale(t, Default(), c); got != test.want {
			t.Errorf("%q changes the parts of %q, want %q", test.text, got, test.want)
		}
	}
}

func TestHeldOutRowsOfTheirOwnFileDoNotTouchTraining(t *testing.T) {
	a, b := Default(), Default()
	a.Dataset.HeldOutFile, b.Dataset.HeldOutFile = "test.jsonl", "test.jsonl"
	b.Dataset.HeldOut = 7
	if got := stale(t, a, b); got != "evaluate" {
		t.Errorf("held_out changes the parts of %q, want only evaluate", got)
	}
}

// TestEveryKeyHasItsStages makes whoever adds a key decide which stages depend on it.
func TestEveryKeyHasItsStages(t *testing.T) {
	var without []string
	for _, f := range Default().fields() {
		if len(f.stages) == 0 {
			without = append(without, f.key)
		}
		for _, s := range f.stages {
			if !slices.Contains(Stages, s) {
				t.Errorf("%s names the stage %q, which does not exist", f.key, s)
			}
		}
	}
	want := []string{
		"device", "paths.base", "paths.quantized", "paths.lora", "paths.lora_quantized", "paths.results", "dataset.padding",
		"training.save_strategy", "training.save_steps", "training.gradient_checkpointing", "history.keep",
		"worker.idle_minutes", "workbench.theme", "workbench.ascii", "workbench.mouse", "workbench.notify",
	}
	if !reflect.DeepEqual(without, want) {
		t.Errorf("the keys that no stage depends on are\n%q, want\n%q", without, want)
	}
}

func TestPartText(t *testing.T) {
	got, err := Default().Part("quantize")
	want := `{"quantization.compute_dtype":"float16","quantization.double_quant":true,"quantization.load_in_4bit":true,"quantization.quant_type":"nf4"}`
	if err != nil || string(got) != want {
		t.Errorf("got %s (%v), want %s", got, err, want)
	}
	_, err = Default().Part("merge")
	if want := `there is no stage "merge"; allowed: base, quantize, lora, lora_quantize, evaluate, upload`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

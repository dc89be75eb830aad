package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestRootFileIsTheDefault(t *testing.T) {
	c, err := Load("../config.toml")
	if err != nil {
		t.Fatal(err)
	}
	if want := Default(); !reflect.DeepEqual(c, want) {
		t.Errorf("config.toml decodes to\n%+v\nwant Default()\n%+v", c, want)
	}
}

func TestRootFileSpellsOutEveryKey(t *testing.T) {
	data, err := os.ReadFile("../config.toml")
	if err != nil {
		t.Fatal(err)
	}
	places, _ := locate(string(data))
	for _, f := range Default().fields() {
		if _, ok := places[f.key]; !ok {
			t.Errorf("config.toml does not have the key %s", f.key)
		}
		if f.python == "" {
			continue
		}
		commented := false
		for line := range strings.Lines(string(data)) {
			commented = commented || strings.HasPrefix(line, "# Python:") && strings.Contains(line, f.python)
		}
		if !commented {
			t.Errorf("config.toml does not say that %s replaces Python's %s", f.key, f.python)
		}
	}
}

func TestEmptyFileIsTheDefault(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "[lora]\n", "\uFEFF[lora]\r\nr = 8\r\n"} {
		c, err := Parse("config.toml", []byte(text))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if !reflect.DeepEqual(c, Default()) {
			t.Errorf("%q: got %+v, want Default()", text, c)
		}
	}
}

// TestPythonVariables holds the list of the Python pipeline's variables against config.toml: each is a key, or is accounted for.
func TestPythonVariables(t *testing.T) {
	data, err := os.ReadFile("../config.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(`models['base'] models['quantized'] models['lora'] models['lora_quantized']
		num_samples num_epochs batch_size learning_rate r lora_alpha target_modules lora_dropout
		load_in_4bit bnb_4bit_use_double_quant bnb_4bit_quant_type bnb_4bit_compute_dtype
		dataset_name max_length padding truncation save_strategy fp16 optim max_grad_norm gradient_accumulation_steps
		warmup_steps device total_memory supports_tf32 pad_token eos_token_id gradient_checkpointing lora_rank
		self.paths self.models self.test_prompts results`) {
		if !strings.Contains(string(data), name) {
			t.Errorf("config.toml does not account for %s", name)
		}
	}
}

package model

import (
	"reflect"
	"strings"
	"testing"
)

const goodAdapter = `{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "fc1"], "bias": "none", "future": 1}`

func TestAdapterConfigs(t *testing.T) {
	plain := AdapterConfig{R: 4, Alpha: 8, Targets: []string{"q_proj", "fc1"}}
	with := func(change func(*AdapterConfig)) AdapterConfig {
		ac := plain
		change(&ac)
		return ac
	}
	for _, c := range []struct {
		old, new string
		want     AdapterConfig
	}{
		{``, ``, plain},
		{`"future": 1`, `"use_dora": false, "rank_pattern": {}, "modules_to_save": null, "layer_replication": null, "init_lora_weights": "gaussian", "loftq_config": {}`, plain},
		{`"future": 1`, `"exclude_modules": [], "layers_to_transform": null, "revision": null, "base_model_name_or_path": null, "use_bdlora": null, "megatron_core": "megatron.core"`, plain},
		{`8`, `2.5`, with(func(ac *AdapterConfig) { ac.Alpha = 2.5 })},
		{`"future": 1`, `"lora_dropout": 0.25, "use_rslora": true`, with(func(ac *AdapterConfig) { ac.Dropout, ac.RSLoRA = 0.25, true })},
		{`"future": 1`, `"base_model_name_or_path": "a/b", "revision": "main"`, with(func(ac *AdapterConfig) { ac.BaseModel, ac.Revision = "a/b", "main" })},
		{`"future": 1`, `"layers_to_transform": [0, 2]`, with(func(ac *AdapterConfig) { ac.Layers = []int{0, 2} })},
		{`"future": 1`, `"layers_to_transform": 1`, with(func(ac *AdapterConfig) { ac.Layers = []int{1} })},
		{`["q_proj", "fc1"]`, `"fc2"`, with(func(ac *AdapterConfig) { ac.Targets = []string{"fc2"} })},
		{`["q_proj", "fc1"]`, `["self_attn.q_proj"]`, with(func(ac *AdapterConfig) { ac.Targets = []string{"self_attn.q_proj"} })},
		{`["q_proj", "fc1"]`, `"all-linear"`, with(func(ac *AdapterConfig) {
			ac.Targets = []string{"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"}
		})},
	} {
		got, err := parseAdapterConfig([]byte(strings.Replace(goodAdapter, c.old, c.new, 1)))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("with %s: %+v, %v, not %+v", c.new, got, err, c.want)
		}
	}
}

func TestAdaptersThatComputeOtherwiseAreRefused(t *testing.T) {
	for _, c := range []struct{ old, new, err string }{
		{`{`, `[`, "not an adapter configuration: invalid character ':' after array element"},
		{`"LORA"`, `"IA3"`, `peft_type "IA3" is not supported, only LORA`},
		{`"peft_type": "LORA", `, ``, `peft_type "" is not supported, only LORA`},
		{`"r": 4`, `"r": 0`, "r is 0, not 1 or more"},
		{`"lora_alpha": 8, `, ``, "lora_alpha is missing"},
		{`"lora_alpha": 8`, `"lora_alpha": -1e40`, "lora_alpha -1e+40 is beyond float32"},
		{`"future": 1`, `"lora_dropout": 0.99999999999`, "lora_dropout is 0.99999999999, not from 0 to below 1"},
		{`"future": 1`, `"lora_dropout": 1`, "lora_dropout is 1, not from 0 to below 1"},
		{`"future": 1`, `"use_dora": true`, "use_dora is not supported; train an adapter without it"},
		{`"future": 1`, `"use_qalora": true`, "use_qalora is not supported; train an adapter without it"},
		{`"future": 1`, `"use_bdlora": {"nblocks": 2}`, "use_bdlora is not supported; train an adapter without it"},
		{`"future": 1`, `"lora_bias": true`, "lora_bias is not supported; train an adapter without it"},
		{`"future": 1`, `"fan_in_fan_out": true`, "fan_in_fan_out is not supported; train an adapter without it"},
		{`"future": 1`, `"modules_to_save": ["lm_head"]`, "modules_to_save is not supported; train an adapter without it"},
		{`"future": 1`, `"rank_pattern": {"q_proj": 2}`, "rank_pattern is not supported; train an adapter without it"},
		{`"future": 1`, `"alpha_pattern": {"q_proj": 2}`, "alpha_pattern is not supported; train an adapter without it"},
		{`"future": 1`, `"layer_replication": [[0, 2]]`, "layer_replication is not supported; train an adapter without it"},
		{`"future": 1`, `"exclude_modules": "fc1"`, "exclude_modules is not supported; train an adapter without it"},
		{`"future": 1`, `"target_parameters": ["x"]`, "target_parameters is not supported; train an adapter without it"},
		{`"future": 1`, `"trainable_token_indices": [0]`, "trainable_token_indices is not supported; train an adapter without it"},
		{`"future": 1`, `"alora_invocation_tokens": [3]`, "alora_invocation_tokens is not supported; train an adapter without it"},
		{`"none"`, `"all"`, `bias "all" is not supported, only "none"`},
		{`"future": 1`, `"init_lora_weights": "pissa_niter_4"`, `init_lora_weights "pissa_niter_4" changes the base model; convert the adapter to plain LoRA with PEFT`},
		{`["q_proj", "fc1"]`, `".*_proj"`, `target_modules ".*_proj" is a pattern, and only names and "all-linear" are supported; list the names`},
		{`["q_proj", "fc1"]`, `["q_proj", "all-linear"]`, `target_modules "all-linear" is a pattern, and only names and "all-linear" are supported; list the names`},
		{`["q_proj", "fc1"]`, `[]`, "target_modules is missing"},
		{`["q_proj", "fc1"]`, `null`, "target_modules is missing"},
		{`"target_modules": ["q_proj", "fc1"], `, ``, "target_modules is missing"},
	} {
		text := strings.Replace(goodAdapter, c.old, c.new, 1)
		if _, err := parseAdapterConfig([]byte(text)); err == nil || err.Error() != c.err {
			t.Errorf("%s: error %v, not %s", text, err, c.err)
		}
	}
}

// TestAdapterConfigText holds the text that is written against the keys and layout of PEFT's own files.
func TestAdapterConfigText(t *testing.T) {
	ac := AdapterConfig{BaseModel: "microsoft/phi-2", Revision: "main", R: 8, Alpha: 16, Dropout: 0.1, Targets: []string{"q_proj", "v_proj"}}
	const want = `{
  "alpha_pattern": {},
  "auto_mapping": null,
  "base_model_name_or_path": "microsoft/phi-2",
  "bias": "none",
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "layers_pattern": null,
  "layers_to_transform": null,
  "lora_alpha": 16,
  "lora_dropout": 0.1,
  "modules_to_save": null,
  "peft_type": "LORA",
  "r": 8,
  "rank_pattern": {},
  "revision": "main",
  "target_modules": [
    "q_proj",
    "v_proj"
  ],
  "task_type": "CAUSAL_LM"
}`
	if got, err := ac.text(); err != nil || string(got) != want {
		t.Errorf("written\n%s\n%v, not\n%s", got, err, want)
	}
}

func TestOnlyHubIDsNameTheBase(t *testing.T) {
	for name, stays := range map[string]bool{
		"microsoft/phi-2": true, "gpt2": true, "org/a_b.c-1": true, "": false, "/srv/models/phi-2": false, "./phi-2": false,
		"../phi": false, "~/phi-2": false, "models/phi-2/base": false, `C:\phi-2`: false, "org/phi 2": false, "org/..": false,
	} {
		text, err := AdapterConfig{BaseModel: name, Revision: "abc", R: 1, Targets: []string{"q_proj"}}.text()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(text), "abc"); got != stays || !stays && !strings.Contains(string(text), `"base_model_name_or_path": null`) {
			t.Errorf("base model %q: kept is %t, not %t", name, got, stays)
		}
	}
}

// FuzzAdapterConfig: what is accepted is written and read back as the same.
func FuzzAdapterConfig(f *testing.F) {
	f.Add([]byte(goodAdapter))
	f.Add([]byte(strings.Replace(goodAdapter, `"future": 1`, `"layers_to_transform": [0, 2], "use_rslora": true, "lora_dropout": 0.5`, 1)))
	f.Add([]byte(`{"peft_type": "LORA", "r": 1e9, "lora_alpha": null, "target_modules": "all-linear"`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ac, err := parseAdapterConfig(data)
		if err != nil {
			return
		}
		text, err := ac.text()
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseAdapterConfig(text)
		if err != nil {
			t.Fatalf("%+v is written as %s, which is refused: %v", ac, text, err)
		}
		if !hubID.MatchString(ac.BaseModel) {
			ac.BaseModel, ac.Revision = "", ""
		}
		if !reflect.DeepEqual(back, ac) {
			t.Errorf("%+v reads back as %+v", ac, back)
		}
	})
}

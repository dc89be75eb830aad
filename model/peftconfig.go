package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
)

// hubID is what may stand in base_model_name_or_path: a model of the hub, with or without its organisation.
var hubID = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9_.-]*/)?[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// text is adapter_config.json with the keys that all versions of PEFT know, as PEFT lays them out.
func (ac AdapterConfig) text() ([]byte, error) {
	config := map[string]any{
		"alpha_pattern": map[string]any{}, "auto_mapping": nil, "base_model_name_or_path": nil, "bias": "none",
		"fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true, "layers_pattern": nil,
		"layers_to_transform": nil, "lora_alpha": ac.Alpha, "lora_dropout": ac.Dropout, "modules_to_save": nil,
		"peft_type": "LORA", "r": ac.R, "rank_pattern": map[string]any{}, "revision": nil,
		"target_modules": ac.Targets, "task_type": "CAUSAL_LM",
	}
	if hubID.MatchString(ac.BaseModel) {
		config["base_model_name_or_path"] = ac.BaseModel
		if ac.Revision != "" {
			config["revision"] = ac.Revision
		}
	}
	if ac.Layers != nil {
		config["layers_to_transform"] = ac.Layers
	}
	if ac.RSLoRA {
		config["use_rslora"] = true
	}
	text, err := sortedJSON(config)
	return bytes.TrimSuffix(text, []byte("\n")), err
}

// sortedJSON is JSON as Python's json.dumps(indent=2, sort_keys=True) writes it, with a final newline.
func sortedJSON(v map[string]any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return out.Bytes(), err
}

// adapterFile is adapter_config.json: what this program uses, and what would change the computation.
type adapterFile struct {
	PeftType          string         `json:"peft_type"`
	BaseModel         string         `json:"base_model_name_or_path"`
	Revision          string         `json:"revision"`
	R                 int            `json:"r"`
	Alpha             *float64       `json:"lora_alpha"`
	Dropout           float64        `json:"lora_dropout"`
	Targets           nameList       `json:"target_modules"`
	Layers            layerList      `json:"layers_to_transform"`
	RSLoRA            bool           `json:"use_rslora"`
	Bias              string         `json:"bias"`
	LoRABias          bool           `json:"lora_bias"`
	FanInFanOut       bool           `json:"fan_in_fan_out"`
	DoRA              bool           `json:"use_dora"`
	QALoRA            bool           `json:"use_qalora"`
	Init              any            `json:"init_lora_weights"`
	ModulesToSave     []string       `json:"modules_to_save"`
	RankPattern       map[string]any `json:"rank_pattern"`
	AlphaPattern      map[string]any `json:"alpha_pattern"`
	LayerReplication  any            `json:"layer_replication"`
	ExcludeModules    any            `json:"exclude_modules"`
	TargetParameters  any            `json:"target_parameters"`
	TrainableTokens   any            `json:"trainable_token_indices"`
	InvocationTokens  any            `json:"alora_invocation_tokens"`
	BlockDiagonalLoRA any            `json:"use_bdlora"`
}

// nameList is a list of names, or one alone.
type nameList []string

func (n *nameList) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil && one != "" {
		*n = nameList{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(n))
}

// layerList is a list of layers, or one alone.
type layerList []int

func (l *layerList) UnmarshalJSON(b []byte) error {
	var one *int
	if json.Unmarshal(b, &one) == nil && one != nil {
		*l = layerList{*one}
		return nil
	}
	return json.Unmarshal(b, (*[]int)(l))
}

// allLinear is PEFT's name for every linear but the output projection.
const allLinear = "all-linear"

var plainName = regexp.MustCompile(`^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$`)

// parseAdapterConfig reads adapter_config.json. Unknown keys are ignored, but what would change the computation is refused.
func parseAdapterConfig(data []byte) (AdapterConfig, error) {
	none := AdapterConfig{}
	var f adapterFile
	if err := json.Unmarshal(data, &f); err != nil {
		return none, fmt.Errorf("not an adapter configuration: %.200s", err)
	}
	if f.PeftType != "LORA" {
		return none, fmt.Errorf("peft_type %.60q is not supported, only LORA", f.PeftType)
	}
	if f.R < 1 {
		return none, fmt.Errorf("r is %d, not 1 or more", f.R)
	}
	if f.Alpha == nil {
		return none, errors.New("lora_alpha is missing")
	}
	if math.Abs(*f.Alpha) > math.MaxFloat32 {
		return none, fmt.Errorf("lora_alpha %g is beyond float32", *f.Alpha)
	}
	if !(f.Dropout >= 0 && float32(f.Dropout) < 1) {
		return none, fmt.Errorf("lora_dropout is %g, not from 0 to below 1", f.Dropout)
	}
	init, _ := f.Init.(string)
	for _, refused := range []struct {
		key string
		set bool
	}{
		{"use_dora", f.DoRA},
		{"use_qalora", f.QALoRA},
		{"use_bdlora", given(f.BlockDiagonalLoRA)},
		{"lora_bias", f.LoRABias},
		{"fan_in_fan_out", f.FanInFanOut},
		{"modules_to_save", len(f.ModulesToSave) > 0},
		{"rank_pattern", len(f.RankPattern) > 0},
		{"alpha_pattern", len(f.AlphaPattern) > 0},
		{"layer_replication", given(f.LayerReplication)},
		{"exclude_modules", given(f.ExcludeModules)},
		{"target_parameters", given(f.TargetParameters)},
		{"trainable_token_indices", given(f.TrainableTokens)},
		{"alora_invocation_tokens", given(f.InvocationTokens)},
	} {
		if refused.set {
			return none, fmt.Errorf("%s is not supported; train an adapter without it", refused.key)
		}
	}
	if f.Bias != "" && f.Bias != "none" {
		return none, fmt.Errorf("bias %.60q is not supported, only \"none\"", f.Bias)
	}
	// These starts change the base's weights too, which PEFT repeats when it loads the adapter.
	for _, start := range []string{"pissa", "olora", "corda", "loftq", "lora_ga"} {
		if strings.HasPrefix(init, start) {
			return none, fmt.Errorf("init_lora_weights %.60q changes the base model; convert the adapter to plain LoRA with PEFT", init)
		}
	}
	ac := AdapterConfig{BaseModel: f.BaseModel, Revision: f.Revision, R: f.R, Alpha: *f.Alpha, Dropout: f.Dropout, Layers: f.Layers, RSLoRA: f.RSLoRA}
	for _, name := range f.Targets {
		switch {
		case name == allLinear && len(f.Targets) == 1:
			ac.Targets = slices.Clone(LinearNames[:LinearsPerLayer])
		case plainName.MatchString(name):
			ac.Targets = append(ac.Targets, name)
		default:
			return none, fmt.Errorf("target_modules %.60q is a pattern, and only names and %q are supported; list the names", name, allLinear)
		}
	}
	if len(ac.Targets) == 0 {
		return none, errors.New("target_modules is missing")
	}
	return ac, nil
}

// given tells whether a value of JSON says anything: null, false and what is empty do not.
func given(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return true
}

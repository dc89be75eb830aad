package model

import (
	"encoding/json"
	"maps"
	"os"
	"strings"
	"testing"
)

// phi2 is phi-2's config.json in the spelling of transformers 4.
func phi2() map[string]any {
	return map[string]any{
		"model_type": "phi", "vocab_size": 51200, "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32,
		"num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 2048, "hidden_act": "gelu_new",
		"layer_norm_eps": 1e-5, "partial_rotary_factor": 0.4, "rope_theta": 10000.0, "rope_scaling": nil, "qk_layernorm": false,
		"resid_pdrop": 0.1, "embd_pdrop": 0.0, "attention_dropout": 0.0, "tie_word_embeddings": false,
		"bos_token_id": 50256, "eos_token_id": 50256, "torch_dtype": "float16",
	}
}

func parse(t *testing.T, change map[string]any) (Config, error) {
	t.Helper()
	m := phi2()
	maps.Copy(m, change)
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return ParseConfig(data)
}

func TestPhi2(t *testing.T) {
	c, err := parse(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.HeadDim() != 80 || c.RotaryDim() != 32 || c.ResidDropout != 0.1 || c.EOS != 50256 {
		t.Errorf("phi-2 is read as %+v", c)
	}
	if n := c.Parameters(); n != 2779683840 {
		t.Errorf("phi-2 has %d parameters, not 2,779,683,840", n)
	}
}

func TestBothSpellingsMeanTheSame(t *testing.T) {
	old, err := parse(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := phi2()
	delete(m, "rope_theta")
	delete(m, "torch_dtype")
	m["dtype"] = "float16"
	m["rope_parameters"] = map[string]any{"rope_theta": 10000.0, "partial_rotary_factor": 0.4, "rope_type": "default"}
	m["eos_token_id"] = []int{50256, 50257}
	delete(m, "num_key_value_heads")
	data, _ := json.Marshal(m)
	if now, err := ParseConfig(data); err != nil || now != old {
		t.Errorf("transformers 5 spells %+v (%v), transformers 4 %+v", now, err, old)
	}
}

func TestWhatIsComputedDifferentlyIsRefused(t *testing.T) {
	for want, change := range map[string]map[string]any{
		`model_type "mixformer-sequential" is the layout of 2023`:       {"model_type": "mixformer-sequential"},
		`model_type "llama" is not supported`:                           {"model_type": "llama"},
		`rope_scaling is not supported`:                                 {"rope_scaling": map[string]any{"type": "linear"}},
		`rope_type "yarn" is not supported`:                             {"rope_parameters": map[string]any{"rope_type": "yarn"}},
		`qk_layernorm true is not supported`:                            {"qk_layernorm": true},
		`hidden_act "gelu" is not supported`:                            {"hidden_act": "gelu"},
		`attention_dropout are not supported`:                           {"attention_dropout": 0.1},
		`quant_method "gptq" is not supported`:                          {"quantization_config": map[string]any{"quant_method": "gptq"}},
		`vocab_size is missing`:                                         {"vocab_size": nil},
		`vocab_size is -3, which is not within 1 and 4194304`:           {"vocab_size": -3},
		`hidden_size is 1099511627776, which is not within 1 and 65536`: {"hidden_size": 1 << 40},
		`partial_rotary_factor is missing`:                              {"partial_rotary_factor": nil},
		`partial_rotary_factor is 1.5, which is not within 0 and 1`:     {"partial_rotary_factor": 1.5},
		`rope_theta is 1e-300, which is not within 1 and 1e+30`:         {"rope_theta": 1e-300},
		`layer_norm_eps is +Inf, which is not within 0 and 1`:           {"layer_norm_eps": 1e300},
		`resid_pdrop is 0.9999999999, which is not within 0 and 0.999`:  {"resid_pdrop": 0.9999999999},
		`rotates 33 elements of a head of 80, an odd number`:            {"partial_rotary_factor": 0.42},
		`num_attention_heads 32 is not a multiple of`:                   {"num_key_value_heads": 5},
		`token id 60000 is outside the vocabulary of 51200`:             {"eos_token_id": 60000},
		`not a model configuration`:                                     {"vocab_size": "many"},
	} {
		if _, err := parse(t, change); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: got %v, want one line with %s", change, err, want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	data, _ := json.Marshal(phi2())
	f.Add(data)
	f.Add([]byte(`{"model_type":"phi","eos_token_id":[]}`))
	golden, err := os.ReadFile("../testdata/golden/phi/nf4/config.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err == nil && (c.HeadDim() < 1 || c.RotaryDim() > c.HeadDim() || c.Parameters() <= 0) {
			t.Errorf("accepted %+v", c)
		}
	})
}

package eval

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// sample is results of four variants, one of them missing.
func sample() *Results {
	variant := func(name string, disk int64, speed, nll, match Figure, answer string) VariantResult {
		return VariantResult{
			Name: name, DiskBytes: disk, ResidentBytes: disk + 1_000_000, LoadSeconds: speed / 10000, TTFTSeconds: speed / 1000,
			PrefillTokensPerSecond: 3000 / speed, DecodeTokensPerSecond: 500 / speed, NLLPerToken: nll, Perplexity: perplexity(float64(nll)),
			ExactMatch: match, RougeL: match + 0.1, KLToBase: nll / 10, Answers: []Answer{{"What kind of animal is a bear?", answer}},
		}
	}
	r := &Results{
		Variants: []VariantResult{
			variant("base", 5_115_329, 3, 1.8948, 0, "A bear lives in a sea.\n\n\"What?\""),
			variant("quantized", 2_104_000, 4, 1.8692, 0, "A | bear"),
			variant("lora", 5_262_000, 3.1, 0.2783, 0.66, "A bear is a mammal."),
			{Name: "lora_quantized", LoadSeconds: Unknown, TTFTSeconds: Unknown, PrefillTokensPerSecond: Unknown, DecodeTokensPerSecond: Unknown,
				NLLPerToken: Unknown, Perplexity: Unknown, ExactMatch: Unknown, RougeL: Unknown, KLToBase: Unknown, Answers: []Answer{},
				Missing: "models/phi-tiny-lora-quantized is not there"},
		},
		Training: &Training{Loss: Figures([]float64{7.2, 5, 3, 0.4}), GradNorm: []Figure{1, Unknown, 1, 1}, LearningRate: Figures([]float64{0, 1, 0.5, 0.1}), Seconds: 12.34},
		Machine:  Machine{Device: "cpu", Processor: "A Processor", Threads: 2, OS: "linux", Arch: "amd64", Go: "go1.26"},
		Settings: map[string]any{"learning_rate": 5e-3, "optim": "paged_adamw_8bit"},
		HeldOut: HeldOut{Rows: 150, ResponseTokens: 1441, Examples: []Example{{Instruction: "Q", Reference: "A", Variants: []Response{
			{Variant: "base", Answer: "B", NLLPerToken: 1, RougeL: 0}}}}},
	}
	r.Variants[0].KLToBase = 0
	r.Variants[2].AdapterBytes = 147_000
	return r
}

// same compares through JSON, where a figure that is unknown equals itself.
func same(t *testing.T, a, b *Results) bool {
	t.Helper()
	var texts [2]string
	for i, r := range []*Results{a, b} {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(text)
	}
	return texts[0] == texts[1]
}

func TestResultsAreReadBackAsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results", "results.json")
	r := sample()
	r.Variants[0].Perplexity = Figure(math.Inf(1))
	if err := r.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if !same(t, r, got) {
		t.Errorf("read back %+v, not %+v", got, r)
	}
	if got.Variants[0].Perplexity.Known() || got.Variants[3].NLLPerToken.Known() {
		t.Error("null was read as a number")
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("the folder holds %v, %v", left, err)
	}
}

func TestResultsSchema(t *testing.T) {
	text, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Variants []map[string]any `json:"variants"`
		Training map[string]any   `json:"training"`
		HeldOut  map[string]any   `json:"heldout"`
	}
	var top map[string]any
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &top); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"variants", "training", "machine", "settings", "heldout"} {
		if _, ok := top[key]; !ok {
			t.Errorf("results have no %q", key)
		}
	}
	want := strings.Fields(`name disk_bytes resident_bytes load_seconds ttft_seconds prefill_tokens_per_second decode_tokens_per_second
		nll_per_token perplexity exact_match rouge_l kl_to_base answers`)
	for _, key := range want {
		if _, ok := r.Variants[0][key]; !ok {
			t.Errorf("a variant has no %q", key)
		}
	}
	if len(r.Variants[0]) != len(want) {
		t.Errorf("a variant has the fields %v", r.Variants[0])
	}
	if r.Variants[3]["missing"] == nil || r.Variants[3]["nll_per_token"] != nil {
		t.Errorf("the missing variant is %v", r.Variants[3])
	}
	if norms := r.Training["grad_norm"]; !reflect.DeepEqual(norms, []any{1.0, nil, 1.0, 1.0}) {
		t.Errorf("grad_norm is %v", norms)
	}
	if r.Training["seconds"] != 12.34 {
		t.Errorf("seconds is %v", r.Training["seconds"])
	}
}

func TestReadNamesABrokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	if err := os.WriteFile(path, []byte("{"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "not a results file") {
		t.Errorf("a broken file gives %v", err)
	}
}

package golden

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"quartet/dataset"
	"quartet/demo"
	"quartet/eval"
	"quartet/kernels"
	"quartet/model"
	"quartet/tokenizer"
)

// Limits of the demo's likelihood against the reference, which computed in fp16: of the mean over all tokens, of the
// worst row's mean, and of how many of the rows more or fewer are answered word for word.
const (
	limitMeanNLL = 1e-3
	limitRowNLL  = 1.5e-2
	limitMatches = 2
)

// demoVariants are the demo's variants, in the order in which they are reported.
var demoVariants = []string{"base", "quantized", "lora", "lora_quantized"}

// demoTemplate is the prompt with which the reference was trained and measured.
var demoTemplate = dataset.Template{
	Prompt:  "### Instruction:\n{instruction}\n\n{context}### Response:\n",
	Context: "### Context:\n{context}\n\n",
}

// demoNewTokens is how many tokens the reference answered with at most.
const demoNewTokens = 48

// Demo makes the four variants of the embedded model with the reference's adapter, evaluates them on the test rows, and
// compares the likelihood of the reference answers and the exact matches: checks demo/VARIANT/{nll,nll_row,exact_match}.
func Demo(b kernels.Backend, dir string) ([]Check, error) {
	checks, err := demoChecks(b, filepath.Join(dir, "demo"))
	if err != nil {
		checks = nil
		for _, v := range demoVariants {
			checks = append(checks, Failed("demo/"+v+"/nll", err), Failed("demo/"+v+"/exact_match", err))
		}
	}
	return checks, nil
}

func demoChecks(b kernels.Backend, dir string) ([]Check, error) {
	data, err := os.ReadFile(filepath.Join(dir, "reference.json"))
	if err != nil {
		return nil, err
	}
	var reference struct {
		Variants map[string]struct {
			NLL        float64   `json:"response_nll_per_token"`
			Tokens     int       `json:"response_tokens"`
			RowNLL     []float64 `json:"row_nll"`
			ExactMatch float64   `json:"exact_match"`
		} `json:"variants"`
	}
	if err := json.Unmarshal(data, &reference); err != nil {
		return nil, fmt.Errorf("demo/reference.json: %w", err)
	}
	results, err := evaluateDemo(b, filepath.Join(dir, "adapter"))
	if err != nil {
		return nil, err
	}
	var checks []Check
	for i, v := range results.Variants {
		name := "demo/" + v.Name
		want, ok := reference.Variants[v.Name]
		if !ok {
			checks = append(checks, Failed(name+"/nll", os.ErrNotExist), Failed(name+"/exact_match", os.ErrNotExist))
			continue
		}
		rows := results.HeldOut.Examples
		if len(rows) != len(want.RowNLL) || results.HeldOut.ResponseTokens != want.Tokens {
			err := fmt.Errorf("%d rows with %d tokens of answers, but the reference measured %d with %d", len(rows), results.HeldOut.ResponseTokens, len(want.RowNLL), want.Tokens)
			checks = append(checks, Failed(name+"/nll", err), Failed(name+"/exact_match", err))
			continue
		}
		var worst float64
		for n, row := range rows {
			if d := math.Abs(float64(row.Variants[i].NLLPerToken) - want.RowNLL[n]); !(d <= worst) {
				worst = d
			}
		}
		matches := math.Round(math.Abs(float64(v.ExactMatch)-want.ExactMatch) * float64(len(rows)))
		checks = append(checks,
			Measure(name+"/nll", math.Abs(float64(v.NLLPerToken)-want.NLL), limitMeanNLL),
			Measure(name+"/nll_row", worst, limitRowNLL),
			Measure(name+"/exact_match", matches, limitMatches))
	}
	return checks, nil
}

// evaluateDemo makes the variants in a temporary folder and evaluates them.
func evaluateDemo(b kernels.Backend, adapter string) (_ *eval.Results, err error) {
	if _, err := os.Stat(adapter); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "quartet-golden-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	base, quantized, merged := filepath.Join(dir, "base"), filepath.Join(dir, "quantized"), filepath.Join(dir, "lora_quantized")
	for _, folder := range []string{base, quantized, merged} {
		if err := os.Mkdir(folder, 0o777); err != nil {
			return nil, err
		}
	}
	if err := demo.WriteModel(base); err != nil {
		return nil, err
	}
	if err := demo.WriteWorkspace(dir); err != nil {
		return nil, err
	}
	o := model.QuantizeOptions{DoubleQuant: true, ComputeDType: "float16"}
	if _, err := model.Quantize(b, base, quantized, o, nil); err != nil {
		return nil, err
	}
	if _, err := model.MergeQuantize(b, base, adapter, merged, o, "fp16", nil); err != nil {
		return nil, err
	}
	t, err := tokenizer.Load(base)
	if err != nil {
		return nil, err
	}
	rows, err := dataset.ReadJSONL(filepath.Join(dir, "data", "test.jsonl"))
	if err != nil {
		return nil, err
	}
	variants := []eval.Variant{{Name: "base", Weights: base}, {Name: "quantized", Weights: quantized},
		{Name: "lora", Weights: base, Adapter: adapter}, {Name: "lora_quantized", Weights: merged}}
	return eval.Evaluate(context.Background(), b, variants, eval.Data{Tokenizer: t, Template: demoTemplate, HeldOut: rows},
		eval.Options{MaxNew: demoNewTokens, Batch: 16, SkipSpeed: true}, eval.Hooks{})
}

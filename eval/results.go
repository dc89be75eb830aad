package eval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Results is results.json: what was measured of each variant, and under which circumstances.
type Results struct {
	Variants []VariantResult `json:"variants"` // in the order in which they were given
	Training *Training       `json:"training"` // of the adapter; nil where it is not known
	Machine  Machine         `json:"machine"`
	Settings map[string]any  `json:"settings"` // the run's settings, as the caller names them
	HeldOut  HeldOut         `json:"heldout"`
	Warnings []string        `json:"warnings,omitempty"`
}

// VariantResult is one variant's figures. Sizes and memory are those that the variant needs when it is used alone.
type VariantResult struct {
	Name                   string   `json:"name"`
	DiskBytes              int64    `json:"disk_bytes"`     // all files of its folders; an adapter's base included
	ResidentBytes          int64    `json:"resident_bytes"` // weights, adapter, and a KV cache for one sequence
	LoadSeconds            Figure   `json:"load_seconds"`
	TTFTSeconds            Figure   `json:"ttft_seconds"` // to the first token of a warm model, one sequence
	PrefillTokensPerSecond Figure   `json:"prefill_tokens_per_second"`
	DecodeTokensPerSecond  Figure   `json:"decode_tokens_per_second"` // after the first token, one sequence
	NLLPerToken            Figure   `json:"nll_per_token"`            // of the held-out reference answers and their end-of-text, in nats
	Perplexity             Figure   `json:"perplexity"`
	ExactMatch             Figure   `json:"exact_match"`             // share of the held-out rows, 0 to 1
	RougeL                 Figure   `json:"rouge_l"`                 // mean F1 over the held-out rows, 0 to 1
	KLToBase               Figure   `json:"kl_to_base"`              // mean KL(base ‖ variant) a token of the reference answers, in nats
	SharedDevice           bool     `json:"shared_device,omitempty"` // others, such as a chat, had the device while the timings were taken
	Answers                []Answer `json:"answers"`                 // to the test prompts
	AdapterBytes           int64    `json:"adapter_bytes,omitempty"` // of DiskBytes, the adapter's folder
	Missing                string   `json:"missing,omitempty"`       // why the variant was not measured
}

// Answer is a variant's answer to a test prompt.
type Answer struct {
	Prompt string `json:"prompt"`
	Answer string `json:"answer"`
}

// Training is the curve of the adapter's training: one figure a step.
type Training struct {
	Loss         []Figure `json:"loss"`
	GradNorm     []Figure `json:"grad_norm"`
	LearningRate []Figure `json:"learning_rate"`
	Seconds      Figure   `json:"seconds"`
}

// HeldOut is how the variants did on each row that training never saw.
type HeldOut struct {
	Rows           int       `json:"rows"`            // rows that were evaluated
	ResponseTokens int       `json:"response_tokens"` // tokens of their reference answers, end-of-text included
	Examples       []Example `json:"examples"`
}

// Example is one held-out row and the variants' greedy answers to it.
type Example struct {
	Instruction string     `json:"instruction"`
	Context     string     `json:"context,omitempty"`
	Reference   string     `json:"reference"`
	Category    string     `json:"category,omitempty"`
	Variants    []Response `json:"variants"` // of the variants that are not missing
}

// Response is one variant's answer to a held-out row, held against the reference answer.
type Response struct {
	Variant     string `json:"variant"`
	Answer      string `json:"answer"`
	NLLPerToken Figure `json:"nll_per_token"`
	ExactMatch  bool   `json:"exact_match"`
	RougeL      Figure `json:"rouge_l"`
}

// shared are the variants during whose timings others had the device.
func (r *Results) shared() (names []string) {
	for _, v := range r.Variants {
		if v.SharedDevice {
			names = append(names, v.Name)
		}
	}
	return names
}

// Variant is the figures of a variant by name, nil for none.
func (r *Results) Variant(name string) *VariantResult {
	for i := range r.Variants {
		if r.Variants[i].Name == name {
			return &r.Variants[i]
		}
	}
	return nil
}

// Write writes the results as JSON. The file is replaced as a whole or not at all.
func (r *Results) Write(path string) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return writeFile(path, text.Bytes())
}

// Read reads what Write wrote.
func Read(path string) (*Results, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r Results
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read %s: not a results file: %w; evaluate again", path, err)
	}
	return &r, nil
}

// writeFile puts a file beside its place, syncs it and renames it there.
func writeFile(path string, data []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone once renamed
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

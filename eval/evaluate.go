// Package eval measures and compares variants of one model: size, memory, speed, the likelihood of reference answers and
// the answers themselves. It writes results.json, the table and the report, and answers prompts side by side.
package eval

import (
	"context"
	"fmt"
	"math"

	"quartet/dataset"
	"quartet/kernels"
	"quartet/model"
	"quartet/tokenizer"
)

// Data is what the variants are asked. One tokenizer serves all of them.
type Data struct {
	Tokenizer *tokenizer.Tokenizer
	Template  dataset.Template
	HeldOut   []dataset.Row // with reference answers; answered greedily
	Prompts   []string      // test prompts: instructions, without reference answers
}

// Options say how the variants are asked.
type Options struct {
	MaxNew    int            // tokens of an answer at most
	Batch     int            // rows answered at once, at least 1
	Sampling  model.Sampling // of the answers to the test prompts
	SkipSpeed bool           // leave the speed figures unknown
}

// Progress is how far a phase of the evaluation is. Done counts up to Total.
type Progress struct {
	Variant     string // the one at work
	Phase       string // "load", "speed" and "likelihood", where the variants take turns and count together, or "answers"
	Done, Total int    // variants, runs, rows, answers
}

// Hooks are told how the evaluation goes, on its goroutine. Each may be nil.
type Hooks struct {
	OnProgress func(Progress)
	OnWarning  func(string)
	OnMemory   func(byUse map[string]int64) // bytes, once the variants are loaded: weights, adapter, and for the answers cache, activations
	Between    func() error                 // called between layers, as model.Weights says
	Others     func() int                   // how often others have had the device between two layers so far; nil where there are none
}

// evaluation is an evaluation at work.
type evaluation struct {
	ctx      context.Context
	data     Data
	options  Options
	hooks    Hooks
	variants []*opened // those that are there
	results  []*VariantResult
	out      *Results
	rows     []row     // the held-out rows that fit the model
	prompts  []int     // the test prompts that fit, as indexes into data.Prompts
	asked    [][]int32 // their tokens
	limits   model.Config
}

// Evaluate measures variants of one model on a backend. A variant whose folder does not exist is reported as missing; any
// other failure ends the evaluation, and so does the context, with its error.
//
// The likelihood of the reference answers and the divergence from base are measured a few rows at a time over all
// variants, so that no more than these rows' logits are ever held.
func Evaluate(ctx context.Context, b kernels.Backend, variants []Variant, data Data, o Options, h Hooks) (*Results, error) {
	if h.OnProgress == nil {
		h.OnProgress = func(Progress) {}
	}
	if h.OnMemory == nil {
		h.OnMemory = func(map[string]int64) {}
	}
	if h.Others == nil {
		h.Others = func() int { return 0 }
	}
	if h.OnWarning == nil {
		h.OnWarning = func(string) {}
	}
	e := &evaluation{ctx: ctx, data: data, options: o, hooks: h}
	loading := 0
	all, release, err := open(ctx, b, variants, func(variant string) {
		h.OnProgress(Progress{variant, "load", loading, len(variants)})
		loading++
	})
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	defer release()
	for _, v := range all {
		if v.model != nil {
			v.model.Between = h.Between
		}
	}

	e.out = &Results{Machine: ThisMachine(b), Settings: map[string]any{}}
	for _, v := range all {
		e.out.Variants = append(e.out.Variants, VariantResult{
			Name: v.Name, DiskBytes: v.disk, AdapterBytes: v.adapterBytes, Missing: v.missing, LoadSeconds: Unknown, TTFTSeconds: Unknown,
			PrefillTokensPerSecond: Unknown, DecodeTokensPerSecond: Unknown, NLLPerToken: Unknown, Perplexity: Unknown,
			ExactMatch: Unknown, RougeL: Unknown, KLToBase: Unknown, Answers: []Answer{},
		})
	}
	for i, v := range all {
		if v.missing != "" {
			e.warn("variant %s is missing: %s", v.Name, v.missing)
			continue
		}
		e.variants, e.results = append(e.variants, v), append(e.results, &e.out.Variants[i])
	}
	if len(e.variants) == 0 {
		return e.out, nil
	}
	if err := e.encode(); err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	for _, phase := range []func() error{e.sizes, e.speed, e.likelihood, e.answers} {
		if err := phase(); err != nil {
			return nil, fmt.Errorf("evaluate: %w", err)
		}
	}
	e.checkFinite()
	return e.out, nil
}

func (e *evaluation) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	e.out.Warnings = append(e.out.Warnings, text)
	e.hooks.OnWarning(text)
}

// sizes fills in the time to load, and the memory of each variant with a cache for one sequence.
func (e *evaluation) sizes() error {
	for i, v := range e.variants {
		r := e.results[i]
		r.LoadSeconds = Figure(v.load.Seconds())
		r.ResidentBytes = v.model.Bytes()
		if v.model.Adapter != nil {
			r.ResidentBytes += v.model.Adapter.Bytes()
		}
		cache, err := v.model.NewCache(1, e.longest()+e.options.MaxNew)
		if err != nil {
			return fmt.Errorf("variant %s: %w", v.Name, err)
		}
		r.ResidentBytes += cache.Bytes()
		cache.Close()
	}
	return e.memory()
}

// memory tells what the evaluation holds while the variants answer. Weights that variants share count once.
func (e *evaluation) memory() error {
	uses := map[string]int64{}
	var weights []*model.Weights
	for _, v := range e.variants {
		weights = append(weights, v.model.Weights)
		if v.model.Adapter != nil {
			uses["adapter"] += v.model.Adapter.Bytes()
		}
	}
	uses["weights"] = model.BytesOf(weights...)
	m := e.variants[0].model
	sequences, capacity, act := max(e.options.Batch, 1), e.longest()+e.options.MaxNew, m.Backend().Activations()
	all, err := m.Config.CacheBytes(sequences, capacity, act)
	if err != nil {
		return fmt.Errorf("variant %s: %w", e.variants[0].Name, err)
	}
	uses["cache"] = int64(2 * m.Config.Layers * act.Bytes(sequences*capacity*m.Config.KVHeads*m.Config.HeadDim()))
	uses["activations"] = all - uses["cache"]
	e.hooks.OnMemory(uses)
	return nil
}

// checkFinite warns of figures that were computed and are no numbers.
func (e *evaluation) checkFinite() {
	for _, r := range e.results {
		for _, f := range []struct {
			name  string
			value Figure
		}{{"nll_per_token", r.NLLPerToken}, {"perplexity", r.Perplexity}, {"kl_to_base", r.KLToBase}} {
			if len(e.rows) > 0 && !f.value.Known() && (f.name != "kl_to_base" || e.base() >= 0) {
				e.warn("variant %s: %s is not finite: the model's logits overflow; its answers mean nothing", r.Name, f.name)
			}
		}
	}
}

// base is the index of the base variant, -1 where it is missing.
func (e *evaluation) base() int {
	for i, v := range e.variants {
		if v.Name == Base {
			return i
		}
	}
	return -1
}

func perplexity(nllPerToken float64) Figure { return Figure(math.Exp(nllPerToken)) }

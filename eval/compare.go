package eval

import (
	"context"
	"fmt"

	"quartet/dataset"
	"quartet/kernels"
	"quartet/model"
	"quartet/tokenizer"
)

// CompareOptions say how the variants of Compare answer.
type CompareOptions struct {
	Tokenizer *tokenizer.Tokenizer
	Template  dataset.Template
	MaxNew    int // tokens of an answer at most
	Sampling  model.Sampling
}

// CompareHooks are told how a comparison goes, on its goroutine. Each may be nil.
type CompareHooks struct {
	OnText func(prompt int, variant, text string) // another piece of an answer, always whole characters; untrusted
	OnDone func(prompt int, a Answered)           // an answer is complete
}

// Comparison is the variants' answers to one prompt.
type Comparison struct {
	Prompt  string     `json:"prompt"`
	Answers []Answered `json:"answers"` // in the order of the variants
}

// Answered is one variant's answer with its timings, taken one sequence at a time on a warm model.
type Answered struct {
	Variant                string `json:"variant"`
	Answer                 string `json:"answer"`
	PromptTokens           int    `json:"prompt_tokens"`
	Tokens                 int    `json:"tokens"`   // of the answer, without end-of-text
	Complete               bool   `json:"complete"` // end-of-text ended it, not MaxNew
	TTFTSeconds            Figure `json:"ttft_seconds"`
	PrefillTokensPerSecond Figure `json:"prefill_tokens_per_second"`
	DecodeTokensPerSecond  Figure `json:"decode_tokens_per_second"`
	Missing                string `json:"missing,omitempty"` // why there is no answer
}

// Compare lets each variant answer each prompt, which is the instruction of the template. A variant whose folder does not
// exist is reported as missing; any other failure ends the comparison, and so does the context, with its error.
func Compare(ctx context.Context, b kernels.Backend, variants []Variant, prompts []string, o CompareOptions, h CompareHooks) ([]Comparison, error) {
	if h.OnText == nil {
		h.OnText = func(int, string, string) {}
	}
	if h.OnDone == nil {
		h.OnDone = func(int, Answered) {}
	}
	all, release, err := open(ctx, b, variants, func(string) {})
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	defer release()
	warm := map[string]bool{}
	out := make([]Comparison, len(prompts))
	for n, prompt := range prompts {
		ids := o.Tokenizer.Encode(o.Template.Render(dataset.Row{Instruction: prompt}))
		out[n].Prompt = prompt
		for _, v := range all {
			a := Answered{Variant: v.Name, Missing: v.missing, PromptTokens: len(ids), TTFTSeconds: Unknown, PrefillTokensPerSecond: Unknown, DecodeTokensPerSecond: Unknown}
			if v.model != nil {
				if !warm[v.Name] {
					if _, err := v.model.Generate(ctx, [][]int32{ids}, model.GenerateOptions{MaxNew: 1, Batch: 1}); err != nil {
						return out[:n], fmt.Errorf("compare: variant %s: %w", v.Name, err)
					}
					warm[v.Name] = true
				}
				if err := a.answer(ctx, v.model, ids, o, func(text string) { h.OnText(n, v.Name, text) }); err != nil {
					return out[:n], fmt.Errorf("compare: variant %s: %w", v.Name, err)
				}
			}
			out[n].Answers = append(out[n].Answers, a)
			h.OnDone(n, a)
		}
	}
	return out, nil
}

// answer fills in a model's answer to a prompt's tokens.
func (a *Answered) answer(ctx context.Context, m *model.Model, ids []int32, o CompareOptions, onText func(string)) error {
	stream := o.Tokenizer.Stream(true)
	g := model.GenerateOptions{
		MaxNew: o.MaxNew, Batch: 1, Sampling: o.Sampling, Allowed: o.Tokenizer.Has,
		OnToken: func(_ int, id int32) bool {
			if text := stream.Push(id); text != "" {
				onText(text)
			}
			return true
		},
	}
	if m.Config.EOS >= 0 {
		g.Stop = []int32{m.Config.EOS}
	}
	done, err := m.Generate(ctx, [][]int32{ids}, g)
	if err != nil {
		return err
	}
	if text := stream.Flush(); text != "" {
		onText(text)
	}
	got := done[0]
	steps := len(got.IDs) - 1
	if got.Stopped {
		steps++ // the step that produced end-of-text
	}
	a.Answer, a.Tokens, a.Complete = o.Tokenizer.Decode(got.IDs, true), len(got.IDs), got.Stopped
	a.TTFTSeconds = Figure(got.First.Seconds())
	a.PrefillTokensPerSecond = rate(len(ids), got.First.Seconds())
	a.DecodeTokensPerSecond = rate(steps, got.Decode.Seconds())
	return nil
}

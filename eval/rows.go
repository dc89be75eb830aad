package eval

import (
	"fmt"

	"quartet/dataset"
)

// row is a held-out row as tokens.
type row struct {
	dataset.Row
	ids    []int32 // prompt, reference answer, end-of-text
	asked  []int32 // the prompt, encoded by itself
	prompt int     // how many of ids are the prompt's alone
}

// targets is the number of tokens of the reference answer, end-of-text included.
func (r row) targets() int { return len(r.ids) - r.prompt }

// encode turns rows and prompts into tokens. What the model has no positions for is left out with a warning.
func (e *evaluation) encode() error {
	e.limits = e.variants[0].model.Config
	for _, v := range e.variants {
		if v.model.Config.VocabSize != e.limits.VocabSize {
			return fmt.Errorf("variant %s has a vocabulary of %d and %s one of %d; they are not variants of one model",
				v.Name, v.model.Config.VocabSize, e.variants[0].Name, e.limits.VocabSize)
		}
		e.limits.MaxPositions = min(e.limits.MaxPositions, v.model.Config.MaxPositions)
	}
	if e.options.MaxNew < 1 || e.options.MaxNew >= e.limits.MaxPositions {
		return fmt.Errorf("max_new_tokens is %d, which is not within 1 and %d, the model's positions less one", e.options.MaxNew, e.limits.MaxPositions-1)
	}
	t := e.data.Tokenizer
	for i, d := range e.data.HeldOut {
		prompt := e.data.Template.Render(d)
		r := row{Row: d, ids: t.Encode(prompt + d.Response), asked: t.Encode(prompt)}
		r.prompt = dataset.PromptTokens(r.asked, r.ids)
		if e.limits.EOS >= 0 {
			r.ids = append(r.ids, e.limits.EOS)
		}
		if reason := e.unfit(len(r.asked), len(r.ids)); reason != "" {
			e.warn("held-out row %d is left out: %s", i+1, reason)
			continue
		}
		e.rows = append(e.rows, r)
		e.out.HeldOut.ResponseTokens += r.targets()
		e.out.HeldOut.Examples = append(e.out.HeldOut.Examples, Example{
			Instruction: d.Instruction, Context: d.Context, Reference: d.Response, Category: d.Category, Variants: make([]Response, len(e.variants)),
		})
	}
	e.out.HeldOut.Rows = len(e.rows)
	for i, p := range e.data.Prompts {
		ids := t.Encode(e.data.Template.Render(dataset.Row{Instruction: p}))
		if reason := e.unfit(len(ids), len(ids)+1); reason != "" {
			e.warn("test prompt %d is left out: %s", i+1, reason)
			continue
		}
		e.prompts, e.asked = append(e.prompts, i), append(e.asked, ids)
	}
	return nil
}

// unfit says why a row can't be evaluated, "" if it can.
func (e *evaluation) unfit(prompt, all int) string {
	switch {
	case prompt == 0:
		return "its prompt has no tokens"
	case all <= prompt:
		return "its reference answer has no tokens"
	case max(prompt+e.options.MaxNew, all) > e.limits.MaxPositions:
		return fmt.Sprintf("its %d tokens and an answer of %d do not fit max_position_embeddings %d", all, e.options.MaxNew, e.limits.MaxPositions)
	}
	return ""
}

// longest is the tokens of the longest prompt.
func (e *evaluation) longest() int {
	n := 1
	for _, r := range e.rows {
		n = max(n, len(r.asked))
	}
	for _, ids := range e.asked {
		n = max(n, len(ids))
	}
	return min(n, e.limits.MaxPositions-e.options.MaxNew)
}

package eval

import (
	"fmt"

	"quartet/model"
)

// answers lets each variant answer the held-out rows greedily, and the test prompts as the options say.
func (e *evaluation) answers() error {
	prompts := make([][]int32, len(e.rows))
	for n, r := range e.rows {
		prompts[n] = r.asked
	}
	for i, v := range e.variants {
		r, done, total := e.results[i], 0, len(prompts)+len(e.asked)
		e.hooks.OnProgress(Progress{v.Name, "answers", done, total})
		o := model.GenerateOptions{
			MaxNew: e.options.MaxNew, Batch: e.options.Batch, Stop: e.stop(), Allowed: e.data.Tokenizer.Has,
			OnDone: func(int, model.Generation) {
				done++
				e.hooks.OnProgress(Progress{v.Name, "answers", done, total})
			},
		}
		greedy, err := v.model.Generate(e.ctx, prompts, o)
		if err != nil {
			return fmt.Errorf("variant %s: answer the held-out rows: %w", v.Name, err)
		}
		var matches, rouge float64
		for n, g := range greedy {
			response := &e.out.HeldOut.Examples[n].Variants[i]
			response.Answer = e.data.Tokenizer.Decode(g.IDs, true)
			response.ExactMatch = ExactMatch(response.Answer, e.rows[n].Response)
			score := RougeL(response.Answer, e.rows[n].Response)
			response.RougeL = Figure(score)
			rouge += score
			if response.ExactMatch {
				matches++
			}
		}
		if n := float64(len(e.rows)); n > 0 {
			r.ExactMatch, r.RougeL = Figure(matches/n), Figure(rouge/n)
		}

		o.Sampling = e.options.Sampling
		free, err := v.model.Generate(e.ctx, e.asked, o)
		if err != nil {
			return fmt.Errorf("variant %s: answer the test prompts: %w", v.Name, err)
		}
		for n, g := range free {
			r.Answers = append(r.Answers, Answer{e.data.Prompts[e.prompts[n]], e.data.Tokenizer.Decode(g.IDs, true)})
		}
	}
	return nil
}

// stop is the tokens that end an answer.
func (e *evaluation) stop() []int32 {
	if e.limits.EOS < 0 {
		return nil
	}
	return []int32{e.limits.EOS}
}

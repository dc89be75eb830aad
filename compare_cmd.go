package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quartet/console"
	"quartet/eval"
	"quartet/event"
	"quartet/model"
	"quartet/pipeline"
	"quartet/tokenizer"
	"quartet/worker/client"
)

// runCompare is `quartet compare "PROMPT"…`.
func runCompare(ctx context.Context, args []string, std streams) error {
	f := flags("compare", "\"PROMPT\"…", std)
	dir := workspaceFlag(f)
	asJSON := f.Bool("json", false, "print the answers and timings as JSON")
	foreground := f.Bool("foreground", false, foregroundHelp)
	maxNew := f.Int("max-new-tokens", 0, "the longest answer in `tokens`; 0 takes config.toml's")
	temperature := f.Float64("temperature", -1, "0 always takes the likeliest token; below 0 takes config.toml's")
	seed := f.Uint64("seed", 0, "the seed of the draws; 0 takes config.toml's")
	prompts, err := parse(f, args)
	if err != nil {
		return err
	}
	if len(prompts) == 0 {
		return errUsage{errors.New("give a prompt, in quotes")}
	}
	w, err := pipeline.Open(*dir)
	if err != nil {
		return err
	}
	sampling, longest := w.Sampling(), w.Config.Evaluation.MaxNewTokens
	if *maxNew > 0 {
		longest = *maxNew
	}
	if *temperature >= 0 {
		sampling.Temperature = *temperature
	}
	if *seed > 0 {
		sampling.Seed = *seed
	}
	show := console.New(std.err, console.ModeFor(std.err, false), console.Color(std.err))
	variants := w.Variants()
	done := 0
	told := func(variant string) {
		done++
		show(event.Event{Time: time.Now(), Kind: event.Progress, Progress: &event.ProgressPart{
			Label: variant, Done: int64(done), Total: int64(len(prompts) * len(variants)), Unit: "answers"}})
	}
	c, err := findWorker(ctx, *dir, *foreground, false)
	if err != nil {
		return err
	}
	var answers []eval.Comparison
	if c == nil {
		answers, err = compareHere(ctx, w, prompts, longest, sampling, told, std)
	} else {
		answers, err = compareThere(ctx, c, prompts, longest, sampling, told)
	}
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, answers)
	}
	for i, c := range answers {
		if i > 0 {
			fmt.Fprintln(std.out)
		}
		fmt.Fprint(std.out, c.Text(console.Width(std.out), console.Color(std.out)))
	}
	return nil
}

// compareHere lets the variants answer in this process.
func compareHere(ctx context.Context, w *pipeline.Workspace, prompts []string, longest int, sampling model.Sampling, told func(variant string), std streams) ([]eval.Comparison, error) {
	b, note, err := pipeline.OpenBackend(w.Config.Device)
	if err != nil {
		return nil, err
	}
	defer pipeline.CloseBackend(b)
	if note != "" {
		fmt.Fprintln(std.err, note)
	}
	t, err := tokenizer.Load(w.Path(w.Config.Paths.Base))
	if err != nil {
		return nil, fmt.Errorf("%w; `quartet run base` makes the base model", err)
	}
	o := eval.CompareOptions{Tokenizer: t, Template: w.Template(), MaxNew: longest, Sampling: sampling}
	return eval.Compare(ctx, b, w.Variants(), prompts, o, eval.CompareHooks{OnDone: func(_ int, a eval.Answered) { told(a.Variant) }})
}

// compareThere has the worker let the variants answer.
func compareThere(ctx context.Context, c *client.Client, prompts []string, longest int, s model.Sampling, told func(variant string)) (all []eval.Comparison, err error) {
	for _, prompt := range prompts {
		r := client.ChatRequest{Prompt: prompt, Sampling: &client.Sampling{
			Temperature: s.Temperature, TopK: s.TopK, TopP: s.TopP, RepetitionPenalty: s.RepetitionPenalty, MaxNewTokens: longest, Seed: s.Seed,
		}}
		answers := eval.Comparison{Prompt: prompt}
		text := map[string]string{}
		err := c.Chat(ctx, r, func(e client.ChatEvent) {
			text[e.Variant] += e.Text
			if e.State != "done" && e.State != "failed" && e.State != "canceled" {
				return
			}
			a := eval.Answered{Variant: e.Variant, Answer: text[e.Variant], Missing: e.Reason, TTFTSeconds: eval.Unknown, PrefillTokensPerSecond: eval.Unknown, DecodeTokensPerSecond: eval.Unknown}
			if t := e.Timing; t != nil {
				a.PromptTokens, a.Tokens, a.Complete = t.PromptTokens, t.Tokens, t.Complete
				a.TTFTSeconds, a.PrefillTokensPerSecond = eval.Figure(t.TTFT), eval.Figure(t.Prefill)
				if t.Decode > 0 {
					a.DecodeTokensPerSecond = eval.Figure(t.Decode)
				}
			}
			answers.Answers = append(answers.Answers, a)
			told(e.Variant)
		})
		if err != nil {
			return nil, err
		}
		all = append(all, answers)
	}
	return all, nil
}

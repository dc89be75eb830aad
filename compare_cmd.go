package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quartet/console"
	"quartet/dataset"
	"quartet/eval"
	"quartet/event"
	"quartet/pipeline"
	"quartet/tokenizer"
)

// runCompare is `quartet compare "PROMPT"…`.
func runCompare(ctx context.Context, args []string, std streams) error {
	f := flags("compare", "\"PROMPT\"…", std)
	dir := workspaceFlag(f)
	asJSON := f.Bool("json", false, "print the answers and timings as JSON")
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
	b, note, err := pipeline.OpenBackend(w.Config.Device)
	if err != nil {
		return err
	}
	if note != "" {
		fmt.Fprintln(std.err, note)
	}
	t, err := tokenizer.Load(w.Path(w.Config.Paths.Base))
	if err != nil {
		return fmt.Errorf("%w; `quartet run base` makes the base model", err)
	}
	o := eval.CompareOptions{
		Tokenizer: t, Template: dataset.Template{Prompt: w.Config.Prompt.Template, Context: w.Config.Prompt.Context},
		MaxNew: w.Config.Evaluation.MaxNewTokens, Sampling: w.Sampling(),
	}
	if *maxNew > 0 {
		o.MaxNew = *maxNew
	}
	if *temperature >= 0 {
		o.Sampling.Temperature = *temperature
	}
	if *seed > 0 {
		o.Sampling.Seed = *seed
	}
	show := console.New(std.err, console.ModeFor(std.err, false), console.Color(std.err))
	variants := w.Variants()
	done := 0
	answers, err := eval.Compare(ctx, b, variants, prompts, o, eval.CompareHooks{OnDone: func(_ int, a eval.Answered) {
		done++
		show(event.Event{Time: time.Now(), Kind: event.Progress, Progress: &event.ProgressPart{
			Label: a.Variant, Done: int64(done), Total: int64(len(prompts) * len(variants)), Unit: "answers"}})
	}})
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

package main

import (
	"context"
	"encoding/json"
	"fmt"

	"quartet/console"
	"quartet/eval"
	"quartet/pipeline"
)

// runEval is `quartet eval [VARIANT…]`: it measures the variants as they lie there and changes nothing on disk.
func runEval(ctx context.Context, args []string, std streams) error {
	f := flags("eval", "[VARIANT…]", std)
	dir := workspaceFlag(f)
	asJSON := f.Bool("json", false, "print the results as JSON, as in results.json")
	foreground := f.Bool("foreground", false, foregroundHelp)
	names, err := parse(f, args)
	if err != nil {
		return err
	}
	w, err := pipeline.Open(*dir)
	if err != nil {
		return err
	}
	c, err := findWorker(ctx, *dir, *foreground, false)
	if err != nil {
		return err
	}
	show := console.New(std.err, console.ModeFor(std.err, false), console.Color(std.err))
	var results *eval.Results
	if c == nil {
		results, err = pipeline.Measure(ctx, w, pipeline.Options{}, names, show)
	} else {
		var text json.RawMessage
		if text, err = c.Measure(ctx, names, show); err == nil {
			err = json.Unmarshal(text, &results)
		}
	}
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, results)
	}
	fmt.Fprint(std.out, results.Table(console.Width(std.out), console.Color(std.out)))
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"quartet/bench"
	"quartet/console"
	"quartet/event"
	"quartet/pipeline"
	"quartet/visible"
)

// runBench is `quartet bench [MODEL | --random SHAPE]`.
func runBench(ctx context.Context, args []string, std streams) error {
	f := flags("bench", "[MODEL]", std)
	asJSON := f.Bool("json", false, "print the machine and the rows as JSON")
	shape := f.String("random", "", "measure a random model of a `shape`: "+strings.Join(bench.Shapes(), " or "))
	rest, err := parse(f, args)
	if err != nil {
		return err
	}
	o := bench.Options{Random: *shape}
	switch {
	case len(rest) > 1 || len(rest) == 1 && *shape != "":
		return errUsage{errors.New("give either one model folder or --random")}
	case len(rest) == 1:
		o.Folder = rest[0]
	case *shape == "":
		o.Random = "tiny"
	}
	b, note, err := pipeline.OpenBackend("auto")
	if err != nil {
		return err
	}
	show := console.New(std.err, console.ModeFor(std.err, false), console.Color(std.err))
	say := func(text string) { show(event.Event{Time: time.Now(), Kind: event.Log, Text: text}) }
	if note != "" {
		say(note)
	}
	report, err := bench.Run(ctx, b, o, bench.Hooks{Note: say, Progress: func(label string, done, total int64, unit string) {
		show(event.Event{Time: time.Now(), Kind: event.Progress, Progress: &event.ProgressPart{Label: label, Done: done, Total: total, Unit: unit}})
	}})
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, report)
	}
	_, err = fmt.Fprint(std.out, visible.Text(report.Text()))
	return err
}

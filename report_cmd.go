package main

import (
	"context"
	"errors"
	"fmt"

	"quartet/pipeline"
	"quartet/visible"
	"quartet/worker/client"
)

// runReport is `quartet report`: it writes the reports of the last evaluation anew.
func runReport(ctx context.Context, args []string, std streams) error {
	f := flags("report", "", std)
	dir := workspaceFlag(f)
	history := f.Bool("history", false, "compare with the former runs in .quartet/history: loss curves, settings that differ, figures")
	if err := noArguments(f, args); err != nil {
		return err
	}
	w, err := pipeline.Open(*dir)
	if err != nil {
		return err
	}
	var written []string
	c, err := client.Dial(*dir)
	switch {
	case errors.Is(err, client.ErrNone):
		written, err = pipeline.Report(w, nil, *history)
	case err == nil: // it holds the workspace
		written, err = c.Report(ctx, *history)
	}
	for _, path := range written {
		fmt.Fprintln(std.out, visible.Line(path))
	}
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"

	"quartet/pipeline"
	"quartet/visible"
)

// runReport is `quartet report`: it writes the reports of the last evaluation anew.
func runReport(_ context.Context, args []string, std streams) error {
	f := flags("report", "", std)
	dir := workspaceFlag(f)
	history := f.Bool("history", false, "compare with the former runs in .quartet/history: loss curves, settings that differ, figures")
	rest, err := parse(f, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return errUsage{errors.New("report takes no arguments; -C names the workspace")}
	}
	w, err := pipeline.Open(*dir)
	if err != nil {
		return err
	}
	written, err := pipeline.Report(w, *history)
	for _, path := range written {
		fmt.Fprintln(std.out, visible.Line(path))
	}
	return err
}

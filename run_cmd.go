package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"quartet/console"
	"quartet/eval"
	"quartet/event"
	"quartet/hub"
	"quartet/pipeline"
)

// workspaceFlag adds -C, the folder that holds config.toml.
func workspaceFlag(f *flag.FlagSet) *string {
	return f.String("C", ".", "the workspace: the `folder` that holds config.toml")
}

// checkStages refuses names that are no stages.
func checkStages(names []string) error {
	for _, s := range names {
		if !slices.Contains(pipeline.Stages, s) {
			return errUsage{fmt.Errorf("no stage %q; the stages are %s", s, strings.Join(pipeline.Stages, ", "))}
		}
	}
	return nil
}

// runPipeline is `quartet run [STAGE…]`.
func runPipeline(ctx context.Context, args []string, std streams) error {
	f := flags("run", "[STAGE…]", std)
	dir := workspaceFlag(f)
	asJSON := f.Bool("json", false, "print one event a line, as JSON")
	force := f.Bool("force", false, "run the stages even if they are fresh")
	stages, err := parse(f, args)
	if err != nil {
		return err
	}
	if err := checkStages(stages); err != nil {
		return err
	}
	return work(ctx, *dir, stages, *force, *asJSON, std)
}

// work runs a workspace's stages in the foreground and shows them.
func work(ctx context.Context, dir string, stages []string, force, asJSON bool, std streams) error {
	w, err := pipeline.Open(dir)
	if err != nil {
		return err
	}
	mode := console.ModeFor(std.out, asJSON)
	failed, results := false, len(stages) > 0 && !slices.Contains(stages, pipeline.Evaluate)
	show := console.New(std.out, mode, console.Color(std.out))
	options := pipeline.Options{Stages: stages, Force: force, Source: hub.New(hub.Environment(os.Getenv))}
	err = pipeline.Run(ctx, w, options, func(e event.Event) {
		failed, results = failed || e.Kind == event.StageFailed, results || e.Kind == event.Results
		show(e)
	})
	if err != nil && failed && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", errReported, err) // the stage's line has said it
	}
	if err == nil && !results && mode != console.JSON {
		former, err := eval.Read(w.ResultsFile())
		if err != nil {
			return err
		}
		fmt.Fprintf(std.out, "\n%s", former.Table(console.Width(std.out), console.Color(std.out)))
	}
	return err
}

// runPlan is `quartet plan`.
func runPlan(_ context.Context, args []string, std streams) error {
	return showStages("plan", args, std, func(w *pipeline.Workspace, stages []string) ([]event.PlanPart, error) {
		return pipeline.Predict(w, pipeline.Options{Stages: stages})
	})
}

// runStatus is `quartet status`.
func runStatus(_ context.Context, args []string, std streams) error {
	return showStages("status", args, std, func(w *pipeline.Workspace, _ []string) ([]event.PlanPart, error) {
		return pipeline.Status(w)
	})
}

func showStages(name string, args []string, std streams, read func(*pipeline.Workspace, []string) ([]event.PlanPart, error)) error {
	f := flags(name, "", std)
	dir := workspaceFlag(f)
	asJSON := f.Bool("json", false, "print a list of stages, as JSON")
	stages, err := parse(f, args)
	if err != nil {
		return err
	}
	if name == "status" && len(stages) > 0 {
		return errUsage{errors.New("status takes no arguments")}
	}
	if err := checkStages(stages); err != nil {
		return err
	}
	w, err := pipeline.Open(*dir)
	if err != nil {
		return err
	}
	parts, err := read(w, stages)
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, parts)
	}
	fmt.Fprint(std.out, console.PlanText(parts))
	return nil
}

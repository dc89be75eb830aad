package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"quartet/console"
	"quartet/eval"
	"quartet/event"
	"quartet/hub"
	"quartet/pipeline"
	"quartet/worker/client"
)

// workspaceFlag adds -C, the folder that holds config.toml.
func workspaceFlag(f *flag.FlagSet) *string {
	return f.String("C", ".", "the workspace: the `folder` that holds config.toml")
}

// runPipeline is `quartet run [STAGE…]`.
func runPipeline(ctx context.Context, args []string, std streams) error {
	f := flags("run", "[STAGE…]", std)
	r := runFlags(f)
	dir := workspaceFlag(f)
	stages, err := parse(f, args)
	if err != nil {
		return err
	}
	r.dir, r.stages = *dir, stages
	return r.work(ctx, std)
}

// order is a run that was asked for.
type order struct {
	dir                               string
	stages                            []string
	force, asJSON, foreground, detach bool
}

// runFlags adds the flags of a run.
func runFlags(f *flag.FlagSet) *order {
	r := &order{}
	f.BoolVar(&r.asJSON, "json", false, "print one event a line, as JSON")
	f.BoolVar(&r.force, "force", false, "run the stages even if they are fresh")
	f.BoolVar(&r.detach, "detach", false, "let the worker begin, and return at once; quartet attach follows it")
	f.BoolVar(&r.foreground, "foreground", false, foregroundHelp)
	return r
}

// work runs a workspace's stages and shows them: by the worker, or in this process.
func (r *order) work(ctx context.Context, std streams) error {
	w, err := pipeline.Open(r.dir)
	if err != nil {
		return err
	}
	if err := w.CheckStages(r.stages); err != nil {
		return errUsage{err}
	}
	if r.detach && r.foreground {
		return errUsage{errors.New("--detach leaves the run to the worker, which --foreground does without")}
	}
	c, err := findWorker(ctx, r.dir, r.foreground, r.detach)
	if err != nil {
		return err
	}
	mode := console.ModeFor(std.out, r.asJSON)
	failed, results := false, len(r.stages) > 0 && !slices.Contains(r.stages, pipeline.Evaluate)
	show := console.New(std.out, mode, console.Color(std.out))
	sink := func(e event.Event) {
		failed, results = failed || e.Kind == event.StageFailed, results || e.Kind == event.Results
		show(e)
	}
	switch {
	case c == nil:
		err = pipeline.Run(ctx, w, pipeline.Options{Stages: r.stages, Force: r.force, Source: source(), Uploader: uploader{}}, sink)
	case r.detach:
		if err := c.Run(ctx, client.RunRequest{Stages: r.stages, Force: r.force}); err != nil {
			return err
		}
		fmt.Fprintln(std.out, "the worker has begun; `quartet attach` follows it, `quartet stop` ends it")
		return nil
	default:
		err = r.attached(ctx, c, sink, std)
	}
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

// source brings models and datasets of the hub.
func source() pipeline.Source { return hub.New(hub.Environment(os.Getenv)) }

// runPlan is `quartet plan [STAGE…]`.
func runPlan(ctx context.Context, args []string, std streams) error {
	f := flags("plan", "[STAGE…]", std)
	dir := workspaceFlag(f)
	asJSON := f.Bool("json", false, "print a list of stages, as JSON")
	stages, err := parse(f, args)
	if err != nil {
		return err
	}
	w, err := pipeline.Open(*dir)
	if err != nil {
		return err
	}
	if err := w.CheckStages(stages); err != nil {
		return errUsage{err}
	}
	parts, err := pipeline.Predict(w, pipeline.Options{Stages: stages})
	if err != nil {
		return err
	}
	weigh(ctx, w, parts)
	if *asJSON {
		return printJSON(std.out, parts)
	}
	fmt.Fprint(std.out, console.PlanText(parts))
	return nil
}

// weigh asks the hub how much the stages of a plan fetch. A hub that does not answer soon leaves that unknown.
func weigh(ctx context.Context, w *pipeline.Workspace, parts []event.PlanPart) {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	c := hub.New(hub.Environment(os.Getenv))
	for i := range parts {
		if parts[i].Fetch == "" {
			continue
		}
		repo := hub.Repo{Kind: hub.Model, Name: parts[i].Fetch, Revision: w.Config.Model.Revision}
		if parts[i].Stage != pipeline.Base {
			repo.Kind, repo.Revision = hub.Dataset, w.Config.Dataset.Revision
		}
		if n, err := c.Missing(ctx, repo); err == nil {
			parts[i].FetchBytes = n
		}
	}
}

// runStatus is `quartet status`.
func runStatus(ctx context.Context, args []string, std streams) error {
	f := flags("status", "", std)
	dir := workspaceFlag(f)
	asJSON := f.Bool("json", false, "print {stages, worker} as JSON; worker is null where none runs")
	if err := noArguments(f, args); err != nil {
		return err
	}
	w, err := pipeline.Open(*dir)
	if err != nil {
		return err
	}
	parts, err := pipeline.Status(w)
	if err != nil {
		return err
	}
	var info *client.Info
	c, err := client.Dial(*dir)
	if err == nil || errors.As(err, new(client.Mismatch)) {
		info, err = c.Info(ctx)
	}
	if err != nil && !errors.Is(err, client.ErrNone) {
		return err
	}
	if *asJSON {
		return printJSON(std.out, map[string]any{"stages": parts, "worker": info})
	}
	fmt.Fprint(std.out, console.PlanText(parts))
	if info == nil {
		fmt.Fprintln(std.out, "no worker runs in this workspace")
		return nil
	}
	fmt.Fprintln(std.out, who(*info))
	return nil
}

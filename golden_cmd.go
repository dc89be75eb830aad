package main

import (
	"context"
	"errors"
	"fmt"

	"quartet/golden"
	"quartet/pipeline"
	"quartet/visible"
)

// runGolden is `quartet golden DIR [--json]`.
func runGolden(_ context.Context, args []string, std streams) error {
	f := flags("golden", "DIR", std)
	asJSON := f.Bool("json", false, "print a list of {check, error, limit, ok}")
	device := f.String("device", "cpu", "the `device` to check: cpu or cuda; QUARTET_CUDA=float32 is the strictest check of the latter")
	rest, err := parse(f, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return errUsage{errors.New("give one folder, laid out as testdata/golden: phi/, tokenizer/, demo/")}
	}
	b, _, err := pipeline.OpenBackend(*device)
	if err != nil {
		return err
	}
	checks := []golden.Check{}
	failed, missing := 0, 0
	defer pipeline.CloseBackend(b)
	err = golden.Run(b, rest[0], func(c golden.Check) {
		checks = append(checks, c)
		verdict := "ok"
		switch {
		case c.Missing:
			verdict, missing = "missing", missing+1
		case !c.OK:
			verdict, failed = "FAILED", failed+1
		}
		if *asJSON {
			return
		}
		if c.Error < 0 {
			fmt.Fprintf(std.out, "%-38s %-8s %s\n", c.Check, verdict, visible.Line(c.Note))
			return
		}
		fmt.Fprintf(std.out, "%-38s %-8s error %-10.3g limit %.3g\n", c.Check, verdict, c.Error, c.Limit)
	})
	if err != nil {
		return err
	}
	if *asJSON {
		if err := printJSON(std.out, checks); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(std.out, "%d checks, %d failed, %d missing\n", len(checks), failed, missing)
	}
	if failed > 0 {
		return errReported
	}
	return nil
}

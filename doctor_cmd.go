package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"quartet/doctor"
	"quartet/pipeline"
)

// runDoctor is `quartet doctor [PATH]`.
func runDoctor(ctx context.Context, args []string, std streams) error {
	f := flags("doctor", "[PATH]", std)
	deep := f.Bool("deep", false, "read all values too: NaN, infinities, matrices of zeros")
	base := f.String("base", "", "hold an adapter against the base model in this `folder`")
	dir := f.String("C", "", "the workspace whose tokenizer, template and max_length a dataset's rows are counted by: the `folder` that holds config.toml; left out, the one that the dataset lies in, or the current folder")
	asJSON := f.Bool("json", false, "print {path, kind, about, loads, findings, parts} as JSON")
	paths, err := parse(f, args)
	if err != nil {
		return err
	}
	if len(paths) > 1 {
		return errUsage{errors.New("give one folder or file; the current folder is examined without one")}
	}
	path := "."
	if len(paths) == 1 {
		path = filepath.Clean(paths[0])
	}
	o := doctor.Options{Deep: *deep, Base: *base}
	if o.Rules, err = rules(*dir, path); err != nil {
		return err
	}
	report, err := doctor.Examine(ctx, path, o)
	if err != nil {
		return err
	}
	if *asJSON {
		err = printJSON(std.out, report)
	} else {
		_, err = fmt.Fprint(std.out, report.Text())
	}
	if err == nil && report.Count(doctor.Error) > 0 {
		err = errReported
	}
	return err
}

// rules are those of the workspace dir, or where that is "" of the one around path or of the current folder, if one is there.
func rules(dir, path string) (doctor.Rules, error) {
	if dir != "" {
		w, err := pipeline.Open(dir)
		if err != nil {
			return doctor.Rules{}, err
		}
		return doctor.RulesOf(w), nil
	}
	above, err := filepath.Abs(path)
	if err != nil {
		return doctor.Rules{}, err
	}
	for above != filepath.Dir(above) {
		above = filepath.Dir(above)
		if w, err := pipeline.Open(above); err == nil {
			return doctor.RulesOf(w), nil
		}
	}
	if w, err := pipeline.Open("."); err == nil {
		return doctor.RulesOf(w), nil
	}
	return doctor.Rules{}, nil
}

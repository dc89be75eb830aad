package main

import (
	"context"
	"errors"
	"fmt"

	"quartet/demo"
	"quartet/visible"
)

// runDemo is `quartet demo [DIR]`: it makes a workspace of the embedded model where there is none and runs what is stale.
func runDemo(ctx context.Context, args []string, std streams) error {
	f := flags("demo", "[DIR]", std)
	r := runFlags(f)
	rest, err := parse(f, args)
	if err != nil {
		return err
	}
	dir := "quartet-demo"
	switch len(rest) {
	case 0:
	case 1:
		dir = rest[0]
	default:
		return errUsage{errors.New("give one folder at most")}
	}
	if err := demo.WriteWorkspace(dir); err != nil {
		return err
	}
	if !r.asJSON {
		fmt.Fprintf(std.out, "The demo's workspace is %s; its settings are in %[1]s/config.toml.\n", visible.Line(dir))
	}
	r.dir = dir
	return r.work(ctx, std)
}

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"quartet/demo"
	"quartet/tui"
	"quartet/visible"
	"quartet/worker/client"
)

// settings is the commented config.toml that a new workspace begins with.
//
//go:embed config.toml
var settings []byte

// runWorkbench is `quartet workbench`, and `quartet` alone on a terminal.
func runWorkbench(ctx context.Context, args []string, std streams) error {
	f := flags("workbench", "", std)
	folder := workspaceFlag(f)
	if err := noArguments(f, args); err != nil {
		return err
	}
	if !onTerminal(std) {
		return errors.New("the workbench needs a terminal; `quartet run` and `quartet attach` write lines")
	}
	dir, err := filepath.Abs(*folder)
	if err != nil {
		return err
	}
	return tui.Run(ctx, tui.Options{
		Dir: dir,
		Open: func(ctx context.Context, dir string) (tui.Worker, error) {
			c, _, err := client.Open(ctx, dir)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
		MakeDemo: demo.WriteWorkspace,
		WriteConfig: func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "config.toml"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
			if err != nil {
				return err
			}
			_, err = f.Write(settings)
			return errors.Join(err, f.Close())
		},
	})
}

// runReplay is `quartet replay JOURNAL`.
func runReplay(ctx context.Context, args []string, std streams) error {
	f := flags("replay", "JOURNAL", std)
	speed := f.Float64("speed", 1, "play it so many `times` as fast; 0 is as fast as can be")
	svg := f.String("svg", "", "draw the last frame into an SVG `file` instead")
	rest, err := parse(f, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return errUsage{errors.New("give the folder of one journal, as in .quartet/journal, or a workspace")}
	}
	if *speed < 0 {
		return errUsage{errors.New("-speed is 0 or above")}
	}
	recording := tui.Recording{Journal: rest[0], Speed: *speed}
	if err := recording.Check(); err != nil {
		return err
	}
	options := tui.Options{Dir: rest[0], Replay: true, Open: func(context.Context, string) (tui.Worker, error) { return recording, nil }}
	if *svg != "" {
		picture, err := tui.Picture(ctx, options, 120, 40)
		if err != nil {
			return err
		}
		if err := os.WriteFile(*svg, picture, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(std.out, "wrote %s\n", visible.Line(*svg))
		return nil
	}
	if !onTerminal(std) {
		return errors.New("the workbench needs a terminal; `quartet replay --svg FILE` draws a picture without one")
	}
	return tui.Run(ctx, options)
}

// onTerminal reports whether a person can use the workbench: input and output are terminals.
func onTerminal(std streams) bool {
	return isTerminal(std.in) && isTerminal(std.out) && os.Getenv("TERM") != "dumb"
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quartet/console"
	"quartet/event"
	"quartet/hub"
	"quartet/visible"
)

// runRestore is `quartet restore ARCHIVE DIR`.
func runRestore(ctx context.Context, args []string, std streams) error {
	f := flags("restore", "ARCHIVE DIR", std)
	dry := f.Bool("dry-run", false, "list the files and their sizes, and write nothing")
	rest, err := parse(f, args)
	if err != nil {
		return err
	}
	if len(rest) != 2 && !(*dry && len(rest) == 1) {
		return errUsage{errors.New("give an archive and a folder that is not there yet, as in lora.zip models/phi-2-lora")}
	}
	b, err := hub.OpenBackup(rest[0])
	if err != nil {
		return err
	}
	defer b.Close()
	if *dry {
		var total int64
		for _, file := range b.Files() {
			fmt.Fprintf(std.out, "%9s  %s\n", console.Bytes(file.Size), visible.Line(file.Name))
			total += file.Size
		}
		fmt.Fprintf(std.out, "%9s  in %s\n", console.Bytes(total), counted(len(b.Files())))
		return nil
	}
	show := console.New(std.out, console.ModeFor(std.out, false), console.Color(std.out))
	meter := event.NewMeter("bytes", func(e event.Event) { e.Time = time.Now(); show(e) })
	if err := b.Restore(ctx, rest[1], meter.Label); err != nil {
		return err
	}
	show(event.Event{Time: time.Now(), Kind: event.Log, Text: fmt.Sprintf("%s in %s, all verified", counted(len(b.Files())), rest[1])})
	return nil
}

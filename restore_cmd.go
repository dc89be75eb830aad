package main

import (
	"context"
	"errors"
	"fmt"

	"quartet/event"
	"quartet/hub"
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
		listFiles(std, b.Files(), func(f hub.File) (string, int64) { return f.Name, f.Size }, "")
		return nil
	}
	t := newTeller(std)
	if err := b.Restore(ctx, rest[1], t.meter().Label); err != nil {
		return err
	}
	t.say(event.Log, fmt.Sprintf("%s in %s, all verified", counted(len(b.Files())), rest[1]))
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"quartet/console"
	"quartet/event"
	"quartet/hub"
	"quartet/visible"
)

// runDownload is `quartet download REPO`.
func runDownload(ctx context.Context, args []string, std streams) error {
	f := flags("download", "REPO", std)
	dataset := f.Bool("dataset", false, "REPO is a dataset")
	revision := f.String("revision", "", "a `branch`, tag or commit; the default branch unless given")
	dry := f.Bool("dry-run", false, "list the files and their sizes, and fetch nothing")
	repos, err := parse(f, args)
	if err != nil {
		return err
	}
	if len(repos) != 1 {
		return errUsage{errors.New("give one repository of the hub, as in microsoft/phi-2")}
	}
	repo := hub.Repo{Kind: hub.Model, Name: repos[0], Revision: *revision}
	if *dataset {
		repo.Kind = hub.Dataset
	}
	client := hub.New(hub.Environment(os.Getenv))
	if *dry {
		l, err := client.Useful(ctx, repo)
		if err != nil {
			return err
		}
		listFiles(std, l)
		return nil
	}
	show := console.New(std.out, console.ModeFor(std.out, false), console.Color(std.out))
	meter := event.NewMeter("bytes", func(e event.Event) { e.Time = time.Now(); show(e) })
	s, err := client.Download(ctx, repo, meter.At)
	if err != nil {
		return err
	}
	if s.Note != "" {
		show(event.Event{Kind: event.Warning, Text: s.Note})
	}
	show(event.Event{Kind: event.Log, Text: fmt.Sprintf("%s of commit %s in %s", counted(len(s.Files)), s.Commit, s.Dir)})
	return nil
}

// listFiles prints a listing with the sum of its sizes.
func listFiles(std streams, l hub.Listing) {
	var total int64
	for _, f := range l.Files {
		fmt.Fprintf(std.out, "%9s  %s\n", console.Bytes(f.Size), visible.Line(f.Name))
		total += f.Size
	}
	fmt.Fprintf(std.out, "%9s  in %s of commit %s\n", console.Bytes(total), counted(len(l.Files)), l.Commit)
}

func counted(files int) string {
	if files == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", files)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"quartet/event"
	"quartet/hub"
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
		listFiles(std, l.Files, func(f hub.File) (string, int64) { return f.Name, f.Size }, " of commit "+l.Commit)
		return nil
	}
	t := newTeller(std)
	s, err := client.Download(ctx, repo, t.meter().At)
	if err != nil {
		return err
	}
	if s.Note != "" {
		t.say(event.Warning, s.Note)
	}
	t.say(event.Log, fmt.Sprintf("%s of commit %s in %s", counted(len(s.Files)), s.Commit, s.Dir))
	return nil
}

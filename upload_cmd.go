package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"quartet/eval"
	"quartet/event"
	"quartet/hub"
	"quartet/pipeline"
)

// runUpload is `quartet upload VARIANT DEST`.
func runUpload(ctx context.Context, args []string, std streams) error {
	f := flags("upload", "VARIANT DEST", std)
	dir := workspaceFlag(f)
	dry := f.Bool("dry-run", false, "list the files and their sizes, and send nothing")
	public := f.Bool("public", false, "a repository of the hub is made public; private unless given")
	rest, err := parse(f, args)
	if err != nil {
		return err
	}
	if len(rest) != 2 {
		return errUsage{errors.New("give a variant and a place, as in lora hf://me/phi-2-lora, s3://bucket/prefix, gdrive://folder or zip://lora.zip")}
	}
	if err := hub.CheckPlace(rest[1]); err != nil {
		return err
	}
	w, err := pipeline.Open(*dir)
	if err != nil {
		return err
	}
	u, err := w.Outgoing(rest[0])
	if err != nil {
		return err
	}
	files, err := filesOf(u, rest[1])
	if err != nil {
		return err
	}
	t := newTeller(std)
	if u.Stale != "" {
		t.say(event.Warning, u.Stale)
	}
	if *dry {
		listFiles(std, files, func(f hub.LocalFile) (string, int64) { return f.Name, f.Size }, " for "+rest[1])
		return nil
	}
	address, err := send(ctx, u, files, rest[1], *public, t.meter().Label, func(address, code string) {
		t.say(event.Log, fmt.Sprintf("open %s on any device and enter the code %s", address, code))
	})
	if err != nil {
		return err
	}
	t.say(event.Log, fmt.Sprintf("%s of %s at %s", counted(len(files)), rest[0], address))
	return nil
}

// uploader is the upload of the pipeline's stage.
type uploader struct{}

func (uploader) Upload(ctx context.Context, o pipeline.Outgoing, dest string, public bool, told func(string, int64, int64)) (string, error) {
	files, err := filesOf(o, dest)
	if err != nil {
		return "", err
	}
	return send(ctx, o, files, dest, public, told, nil)
}

// send puts a variant's files in a place and returns its address. show is told how to sign in; nil where nobody could.
func send(ctx context.Context, o pipeline.Outgoing, files []hub.LocalFile, dest string, public bool, told func(string, int64, int64), show func(address, code string)) (address string, err error) {
	store, err := hub.Open(ctx, dest, hub.Options{State: o.State, Client: hub.New(hub.Environment(os.Getenv)), Public: public, Show: show})
	if err != nil {
		return "", err
	}
	defer store.Close()
	if err := hub.Upload(ctx, store, files, told); err != nil {
		return "", err
	}
	if p, ok := store.(interface{ Page() string }); ok {
		return p.Page(), nil
	}
	return store.String(), nil
}

// filesOf are the files to send: the variant's, and for the hub a model card where the variant has none.
func filesOf(u pipeline.Outgoing, dest string) ([]hub.LocalFile, error) {
	files, err := hub.LocalFiles(u.Dir)
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(f hub.LocalFile) bool { return slices.Contains(u.Omit, f.Name) })
	name, forHub := strings.CutPrefix(dest, "hf://")
	if !forHub || slices.ContainsFunc(files, func(f hub.LocalFile) bool { return strings.EqualFold(f.Name, "README.md") }) {
		return files, nil
	}
	u.Card.Repository = strings.TrimSuffix(name, "/")
	var card strings.Builder
	if err := eval.Card(&card, u.Card); err != nil {
		return nil, err
	}
	folder := filepath.Join(u.State, "card")
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return nil, fmt.Errorf("write the model card: %w", err)
	}
	if err := os.WriteFile(filepath.Join(folder, "README.md"), []byte(card.String()), 0o666); err != nil {
		return nil, fmt.Errorf("write the model card: %w", err)
	}
	more, err := hub.LocalFiles(folder)
	return append(files, more...), err
}

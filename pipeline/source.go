package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"quartet/dataset"
)

// Source brings models and datasets that are not on this machine. Its progress is told bytes; their total is 0 while it is
// not known. A note says why what came may not be the newest.
type Source interface {
	// Model returns the places of a model's files, which stay as they are.
	Model(ctx context.Context, name, revision string, progress func(done, total int64)) (paths []string, note string, err error)
	// Rows returns the places of the .jsonl or .parquet files of a dataset's training rows, in order. They stay as they are.
	Rows(ctx context.Context, name, revision string, progress func(done, total int64)) (paths []string, note string, err error)
}

// noSource is the source of a run that cannot download.
type noSource struct{}

func (noSource) Model(_ context.Context, name, _ string, _ func(done, total int64)) ([]string, string, error) {
	return nil, "", fmt.Errorf("fetch %s: this run cannot download; set model.name to a local folder", name)
}

func (noSource) Rows(_ context.Context, name, _ string, _ func(done, total int64)) ([]string, string, error) {
	return nil, "", fmt.Errorf("fetch %s: this run cannot download; set dataset.name to a local .jsonl or .parquet file", name)
}

// fetchModel brings the base model of the hub into the job's folder.
func (j *job) fetchModel(ctx context.Context) error {
	m := j.w.Config.Model
	paths, note, err := j.o.Source.Model(ctx, m.Name, m.Revision, j.meter("bytes").At)
	if err != nil {
		return err
	}
	if note != "" {
		j.warn(note)
	}
	for _, path := range paths {
		if err := place(path, filepath.Join(j.temp, filepath.Base(path)), func(int64) {}); err != nil {
			return err
		}
	}
	return nil
}

// DatasetFile is the path of the rows, which need not be there. Those of the hub are kept in the workspace, so that they stay the same, as JSONL.
func (w *Workspace) DatasetFile() string {
	d := w.Config.Dataset
	if d.Local() {
		return w.Path(d.Name)
	}
	name := strings.ReplaceAll(d.Name, "/", "--")
	if d.Revision != "" {
		name += "@" + strings.ReplaceAll(d.Revision, "/", "--")
	}
	return w.state("datasets", name+".jsonl")
}

// unfetched is the error of an input that a run brings from the hub before it needs it.
type unfetched struct{ name string }

func (u unfetched) Error() string { return u.name + " is to be fetched" }

// fetchDataset brings the rows of the hub, if the stage reads them and they are not there.
func (j *job) fetchDataset(ctx context.Context) error {
	d := j.w.Config.Dataset
	if !errors.As(j.inputs["dataset"].err, new(unfetched)) {
		return nil
	}
	from, note, err := j.o.Source.Rows(ctx, d.Name, d.Revision, j.meter("bytes").At)
	if err != nil {
		return err
	}
	if note != "" {
		j.warn(note)
	}
	to := j.w.DatasetFile()
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return fmt.Errorf("make folder %s: %w", filepath.Dir(to), obstacle(err))
	}
	temp := to + ".tmp"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a run that was killed
		return fmt.Errorf("write %s: %w", temp, obstacle(err))
	}
	if len(from) == 1 && !dataset.IsParquet(from[0]) {
		err = place(from[0], temp, func(int64) {})
	} else {
		err = dataset.Join(temp, from...)
	}
	if err != nil {
		return err
	}
	if err := settle(temp); err != nil {
		return err
	}
	if err := os.Rename(temp, to); err != nil {
		return fmt.Errorf("write %s: %w", to, obstacle(err))
	}
	if err := syncFolder(filepath.Dir(to)); err != nil {
		return err
	}
	in := j.w.dataset(j.d)
	j.inputs["dataset"] = in
	return in.err
}

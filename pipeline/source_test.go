package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"quartet/config"
	"quartet/dataset"
	"quartet/demo"
	"quartet/event"
)

// shelf is a source with one model and one dataset. It counts how often it is asked.
type shelf struct {
	t             *testing.T
	dir           string
	models, rows  int
	note          string
	modelRevision string
	files         []string // of the dataset, in the place of the JSONL file
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{t: t, dir: t.TempDir()}
	if err := demo.WriteModel(filepath.Join(s.dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(s.dir, "rows.jsonl"), `{"instruction": "a", "response": "b"}`+"\n")
	return s
}

func (s *shelf) Model(_ context.Context, name, revision string, progress func(done, total int64)) ([]string, string, error) {
	if name != "org/tiny" {
		return nil, "", errors.New("no such model")
	}
	s.models, s.modelRevision = s.models+1, revision
	entries, err := os.ReadDir(filepath.Join(s.dir, "blobs"))
	if err != nil {
		s.t.Fatal(err)
	}
	var paths []string
	for _, e := range entries { // links, as in the cache of the hub
		path := filepath.Join(s.dir, e.Name())
		if err := os.Symlink(filepath.Join("blobs", e.Name()), path); err != nil && !os.IsExist(err) {
			s.t.Fatal(err)
		}
		paths = append(paths, path)
	}
	progress(1, 1)
	return paths, s.note, nil
}

func (s *shelf) Rows(_ context.Context, name, _ string, progress func(done, total int64)) ([]string, string, error) {
	if name != "org/rows" {
		return nil, "", errors.New("no such dataset")
	}
	s.rows++
	progress(1, 1)
	if s.files != nil {
		return s.files, s.note, nil
	}
	return []string{filepath.Join(s.dir, "rows.jsonl")}, s.note, nil
}

// hubWorkspace is a workspace whose base and dataset come from the hub.
func hubWorkspace(t *testing.T) *Workspace {
	w := fakeWorkspace(t)
	works[Base] = makeBase
	w.Config.Model = config.Model{Name: "org/tiny"}
	w.Config.Dataset.Name = "org/rows"
	return w
}

// reasons are the plan's reasons of the stages that run.
func reasons(t *testing.T, w *Workspace, o Options) map[string]string {
	t.Helper()
	parts, err := Predict(w, o)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, p := range parts {
		if p.Run {
			all[p.Stage] = p.Reason
		}
	}
	return all
}

func TestHubFeedsTheStages(t *testing.T) {
	w, s := hubWorkspace(t), newShelf(t)
	s.note = "taken from the cache"
	plan := reasons(t, w, Options{Source: s})
	for stage, want := range map[string]string{
		Base: "not made yet, org/tiny is to be fetched", LoRA: "not made yet, org/rows is to be fetched", Evaluate: "not made yet",
	} {
		if plan[stage] != want {
			t.Errorf("plan of %s: %q", stage, plan[stage])
		}
	}
	if s.models+s.rows > 0 {
		t.Error("the plan fetched")
	}
	var notes []string
	err := Run(context.Background(), w, Options{Source: s}, func(e event.Event) {
		if e.Kind == event.Warning && e.Text == s.note {
			notes = append(notes, e.Stage)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "stages with a note", notes, []string{Base, LoRA})
	if s.models != 1 || s.rows != 1 {
		t.Errorf("%d models and %d datasets fetched", s.models, s.rows)
	}
	at := filepath.Join(w.Path(w.Config.Paths.Base), "model.safetensors")
	a, errA := os.Lstat(at)
	b, errB := os.Stat(filepath.Join(s.dir, "model.safetensors"))
	if errA != nil || errB != nil || !a.Mode().IsRegular() || !os.SameFile(a, b) {
		t.Errorf("%s is not the source's own file: %v %v", at, errA, errB)
	}
	equal(t, "again", runAll(t, w, Options{Source: s}), nil)
	if left := leftovers(t, w); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestFetchedParquetBecomesJSONL fetches rows in two files.
func TestFetchedParquetBecomesJSONL(t *testing.T) {
	w, s := hubWorkspace(t), newShelf(t)
	want := []dataset.Row{{Instruction: "a <b>", Response: "c"}, {Instruction: "d", Context: "é", Response: "e\nf", Category: "qa"}, {Instruction: "g", Response: "h"}}
	type row struct { // a dataset.Row as the library names columns
		Instruction string `parquet:"instruction"`
		Context     string `parquet:"context"`
		Response    string `parquet:"response"`
		Category    string `parquet:"category"`
	}
	for i, rows := range [][]row{{row(want[0]), row(want[1])}, {row(want[2])}} {
		s.files = append(s.files, filepath.Join(s.dir, fmt.Sprintf("train-%05d-of-00002.parquet", i)))
		if err := parquet.WriteFile(s.files[i], rows); err != nil {
			t.Fatal(err)
		}
	}
	runAll(t, w, Options{Source: s})
	if rows, err := dataset.ReadJSONL(w.DatasetFile()); err != nil || !slices.Equal(rows, want) {
		t.Errorf("%q, %v", rows, err)
	}
	equal(t, "again", runAll(t, w, Options{Source: s}), nil)
}

func TestFetchedDataset(t *testing.T) {
	w, s := hubWorkspace(t), newShelf(t)
	runAll(t, w, Options{Source: s})

	remove(t, w.DatasetFile())
	equal(t, "without its copy", runAll(t, w, Options{Source: s}), nil)

	w.Config.Training.NumEpochs++
	if plan := reasons(t, w, Options{}); plan[LoRA] != "num_epochs changed from 1 to 2, org/rows is to be fetched" {
		t.Errorf("plan of lora: %q", plan[LoRA])
	}
	runAll(t, w, Options{Source: s})
	if s.rows != 2 {
		t.Errorf("%d datasets fetched", s.rows)
	}

	remove(t, w.DatasetFile())
	write(t, w.DatasetFile(), "other rows")
	if plan := reasons(t, w, Options{}); !strings.HasSuffix(plan[LoRA], "changed") {
		t.Errorf("plan of lora: %q", plan[LoRA])
	}

	first := w.DatasetFile()
	if w.Config.Dataset.Revision = "refs/pr/1"; w.DatasetFile() == first || filepath.Dir(w.DatasetFile()) != filepath.Dir(first) {
		t.Errorf("the rows of another revision lie in %s", w.DatasetFile())
	}
}

// TestFetchedBase fetches anew what was fetched, and never what the user put there.
func TestFetchedBase(t *testing.T) {
	w, s := hubWorkspace(t), newShelf(t)
	base := Options{Stages: []string{Base}, Source: s}
	runAll(t, w, base)
	w.Config.Model.Revision = "v2"
	equal(t, "another revision", runAll(t, w, base), []string{Base})
	if s.models != 2 || s.modelRevision != "v2" {
		t.Errorf("fetched %d times, last %q", s.models, s.modelRevision)
	}
	remove(t, filepath.Join(w.Path(w.Config.Paths.Base), "model.safetensors"))
	equal(t, "a file gone", runAll(t, w, base), []string{Base})
	if s.models != 3 {
		t.Errorf("fetched %d times", s.models)
	}

	remove(t, w.Path(w.Config.Paths.Base))
	if err := demo.WriteModel(w.Path(w.Config.Paths.Base)); err != nil {
		t.Fatal(err)
	}
	remove(t, w.manifestPath(Base))
	runAll(t, w, base)
	base.Force = true
	equal(t, "put there by hand, forced", runAll(t, w, base), []string{Base})
	if s.models != 3 {
		t.Errorf("fetched %d times in place of a model that was put there", s.models)
	}
}

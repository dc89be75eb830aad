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

	"quartet/config"
	"quartet/event"
)

// errCrash is what a run that a test ends at a crash point panics with.
var errCrash = errors.New("crash")

// fakeWorkspace is a workspace whose stages write small files that tell what they were made from.
func fakeWorkspace(t *testing.T) *Workspace {
	t.Helper()
	real := works
	t.Cleanup(func() { works = real })
	works = map[string]func(context.Context, *job) error{}
	for _, stage := range Stages {
		works[stage] = fakeWork
	}
	w := &Workspace{t.TempDir(), config.Default()}
	w.Config.Model.Name = "embedded"
	w.Config.Dataset.Name = "rows.jsonl"
	write(t, filepath.Join(w.Dir, "rows.jsonl"), "rows")
	return w
}

// fakeNames are the files that a stage's fake work writes.
func fakeNames(stage string) []string {
	switch stage {
	case LoRA:
		return []string{"adapter_config.json", "adapter_model.safetensors", trainingName}
	case Evaluate:
		return []string{pageName, reportName, resultsName}
	}
	return []string{"config.json", "model.safetensors"}
}

func fakeWork(_ context.Context, j *job) error {
	text := j.stage + " from " + string(j.config)
	for _, need := range j.needs {
		text += " and " + j.inputs[need].tree.digest()
	}
	for _, name := range fakeNames(j.stage) {
		if err := writeJSON(filepath.Join(j.temp, name), name+" of "+text); err != nil {
			return err
		}
	}
	return nil
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// runAll runs the pipeline and returns the stages that ran.
func runAll(t *testing.T, w *Workspace, o Options) (ran []string) {
	t.Helper()
	err := Run(context.Background(), w, o, func(e event.Event) {
		if e.Kind == event.StageDone {
			ran = append(ran, e.Stage)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return ran
}

// crashAt runs the pipeline until its n-th crash point and reports whether there was one.
func crashAt(t *testing.T, w *Workspace, n int) (at string) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil && r != errCrash {
			panic(r)
		}
	}()
	err := Run(context.Background(), w, Options{crash: func(step string) {
		if n--; n < 0 {
			at = step
			panic(errCrash)
		}
	}}, func(event.Event) {})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// artefacts are the contents of all stages' files.
func artefacts(t *testing.T, w *Workspace) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, stage := range Stages {
		for _, name := range fakeNames(stage) {
			path := filepath.Join(w.Path(w.folder(stage)), name)
			data, err := os.ReadFile(path)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			all[stage+"/"+name] = string(data)
		}
	}
	return all
}

// leftovers are files that no run should leave.
func leftovers(t *testing.T, w *Workspace) (names []string) {
	t.Helper()
	err := filepath.WalkDir(w.Dir, func(path string, d os.DirEntry, err error) error {
		if strings.Contains(d.Name(), ".quartet-") || strings.Contains(d.Name(), ".kept-") || strings.HasSuffix(d.Name(), ".tmp") || strings.HasSuffix(d.Name(), ".unfinished.json") {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	pending, err := os.ReadDir(w.state("pending"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range pending {
		names = append(names, e.Name())
	}
	return names
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %s, not %s", what, fmt.Sprint(got), fmt.Sprint(want))
	}
}

// TestMain puts the tests' folders in memory where the system has such a place: they sync thousands of files.
func TestMain(m *testing.M) {
	if dir, err := os.MkdirTemp("/dev/shm", "quartet-pipeline-"); err == nil {
		os.Setenv("TMPDIR", dir)
		defer os.RemoveAll(dir)
	}
	m.Run()
}

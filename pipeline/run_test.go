package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"quartet/config"
	"quartet/event"
)

func TestSecondRunDoesNothing(t *testing.T) {
	w := fakeWorkspace(t)
	equal(t, "the first run", runAll(t, w, Options{}), Stages)
	equal(t, "the second run", runAll(t, w, Options{}), nil)
	equal(t, "leftovers", leftovers(t, w), nil)
	parts, err := Status(w)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if p.State != string(Fresh) || p.Run || p.DiskBytes == 0 {
			t.Errorf("%+v", p)
		}
	}
}

func TestChangesRerunWhatTheyReach(t *testing.T) {
	w := fakeWorkspace(t)
	runAll(t, w, Options{})
	lora, quantized := w.Path(w.Config.Paths.LoRA), w.Path(w.Config.Paths.Quantized)
	for _, c := range []struct {
		name   string
		change func()
		want   []string
	}{
		{"learning rate", func() { w.Config.Training.LearningRate = 0.001 }, []string{LoRA, LoRAQuantize, Evaluate}},
		{"test prompt", func() { w.Config.Evaluation.TestPrompts = nil }, []string{Evaluate}},
		{"touched rows", func() { touch(t, filepath.Join(w.Dir, "rows.jsonl")) }, nil},
		{"touched artefact", func() { touch(t, filepath.Join(quantized, "model.safetensors")) }, nil},
		// What replaces the lost artefact is the same again, so nothing after it runs.
		{"deleted artefact", func() { remove(t, quantized) }, []string{Quantize}},
		{"deleted file of the adapter", func() { remove(t, filepath.Join(lora, "adapter_model.safetensors")) }, []string{LoRA}},
		{"deleted report", func() { remove(t, w.Path("results/report.md")) }, []string{Evaluate}},
		{"deleted results", func() { remove(t, w.Path("results")) }, []string{Evaluate}},
		{"a read-me in the base", func() { write(t, w.Path("models/phi-2-base/README.md"), "hello") }, nil},
		{"rows", func() { write(t, w.Path("rows.jsonl"), "more rows") }, []string{LoRA, Evaluate}},
		{"base of lora", func() { w.Config.LoRA.Base = "nf4" }, []string{LoRA, LoRAQuantize, Evaluate}},
		{"quantisation under lora", func() { w.Config.Quantization.DoubleQuant = false }, []string{Quantize, LoRA, LoRAQuantize, Evaluate}},
		{"moved artefact", func() {
			w.Config.Paths.Quantized = "elsewhere"
			if err := os.Rename(quantized, w.Path("elsewhere")); err != nil {
				t.Fatal(err)
			}
		}, nil},
	} {
		c.change()
		equal(t, c.name, runAll(t, w, Options{}), c.want)
		equal(t, c.name+", again", runAll(t, w, Options{}), nil)
	}
	equal(t, "leftovers", leftovers(t, w), nil)
}

func touch(t *testing.T, path string) {
	t.Helper()
	at := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func TestArtefactsChangedByHandAreKept(t *testing.T) {
	w := fakeWorkspace(t)
	runAll(t, w, Options{})
	path := w.Path("models/phi-2-quantized/model.safetensors")
	write(t, path, "precious")
	equal(t, "after the change", runAll(t, w, Options{}), []string{Quantize})
	kept, err := filepath.Glob(w.Path("models/phi-2-quantized.kept-*/model.safetensors"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %v, %v", kept, err)
	}
	if data, err := os.ReadFile(kept[0]); err != nil || string(data) != "precious" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestLostStateCostsNothingButTime(t *testing.T) {
	w := fakeWorkspace(t)
	runAll(t, w, Options{})
	before := artefacts(t, w)
	remove(t, w.state())
	equal(t, "without .quartet", runAll(t, w, Options{}), Stages)
	if !maps.Equal(before, artefacts(t, w)) {
		t.Error("the artefacts differ")
	}
	equal(t, "leftovers", leftovers(t, w), nil)
}

func TestHistoryKeepsTheLastRuns(t *testing.T) {
	w := fakeWorkspace(t)
	w.Config.History.Keep = 2
	for _, rate := range []float64{1e-5, 2e-5, 3e-5, 4e-5} {
		w.Config.Training.LearningRate = rate
		runAll(t, w, Options{})
	}
	for stage, names := range map[string][]string{LoRA: fakeNames(LoRA), Evaluate: fakeNames(Evaluate), LoRAQuantize: nil} {
		runs, err := w.history(stage)
		if err != nil || len(runs) != 2 {
			t.Fatalf("%s: %v, %v", stage, runs, err)
		}
		for i, run := range runs {
			dir := w.state("history", stage, run)
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != len(names)+1 {
				t.Errorf("%s keeps %v, %v", run, entries, err)
			}
			for _, name := range names {
				data, err := os.ReadFile(filepath.Join(dir, name))
				rate := []string{"0.00002", "0.00003"}[i]
				if err != nil || stage == LoRA && !strings.Contains(string(data), rate) {
					t.Errorf("%s of run %d: %q, %v", name, i, data, err)
				}
			}
		}
	}
	w.Config.History.Keep = 0
	w.Config.Seed++
	runAll(t, w, Options{})
	if runs, _ := w.history(LoRA); len(runs) != 0 {
		t.Errorf("keep 0 leaves %v", runs)
	}
}

func TestForce(t *testing.T) {
	w := fakeWorkspace(t)
	runAll(t, w, Options{})
	equal(t, "one", runAll(t, w, Options{Stages: []string{Quantize}, Force: true}), []string{Quantize})
	equal(t, "all", runAll(t, w, Options{Force: true}), Stages)
	equal(t, "leftovers", leftovers(t, w), nil)
}

func TestSecondRunnerIsRefusedByName(t *testing.T) {
	w := fakeWorkspace(t)
	var inner error
	err := Run(context.Background(), w, Options{Stages: []string{Base}}, func(e event.Event) {
		if e.Kind == event.StageStarted {
			inner = Run(context.Background(), w, Options{}, func(event.Event) {})
			parts, err := Status(w)
			if err != nil || parts[0].Stage != Base {
				t.Errorf("status meanwhile: %v, %v", parts, err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var locked Locked
	if !errors.As(inner, &locked) || locked.Holder.PID != os.Getpid() || !strings.Contains(inner.Error(), "works here; wait for it or stop it") {
		t.Errorf("%v", inner)
	}
}

func TestFailureLeavesTheFormerArtefact(t *testing.T) {
	w := fakeWorkspace(t)
	runAll(t, w, Options{})
	before := artefacts(t, w)
	w.Config.Training.LearningRate = 0.001
	works[LoRA] = func(_ context.Context, j *job) error {
		write(t, filepath.Join(j.temp, "half"), "half")
		return &os.PathError{Op: "write", Path: "half", Err: errors.New("one\ntwo")}
	}
	var failed event.Event
	err := Run(context.Background(), w, Options{}, func(e event.Event) {
		if e.Kind == event.StageFailed {
			failed = e
		}
	})
	if err == nil || failed.Stage != LoRA || strings.Contains(failed.Text, "\n") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v, %+v", err, failed)
	}
	if !maps.Equal(before, artefacts(t, w)) {
		t.Error("an artefact changed")
	}
	if left, _ := filepath.Glob(w.Path("models/.*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	parts, err := Status(w)
	if err != nil || parts[2].State != string(Failed) || !strings.Contains(parts[2].Reason, "one; two") {
		t.Errorf("%+v, %v", parts[2], err)
	}
	works[LoRA] = fakeWork
	equal(t, "the next run", runAll(t, w, Options{}), []string{LoRA, LoRAQuantize, Evaluate})
}

func TestCancelIsToldApart(t *testing.T) {
	w := fakeWorkspace(t)
	ctx, cancel := context.WithCancel(context.Background())
	works[LoRA] = func(ctx context.Context, j *job) error { cancel(); return ctx.Err() }
	var kinds []event.Event
	err := Run(ctx, w, Options{}, func(e event.Event) { kinds = append(kinds, e) })
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	last := kinds[len(kinds)-2:]
	if last[0].Kind != event.StageFailed || !last[0].Canceled || last[1].Kind != event.RunDone || !last[1].Canceled {
		t.Errorf("%+v", last)
	}
	parts, err := Status(w)
	if err != nil || parts[2].State != string(Interrupted) {
		t.Errorf("%+v, %v", parts[2], err)
	}
}

func TestReadOnlyFolder(t *testing.T) {
	w := fakeWorkspace(t)
	write(t, w.Path("models/keep"), "")
	if err := os.Chmod(w.Path("models"), 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(w.Path("models"), 0o777) })
	if os.Getuid() == 0 {
		// Root may write everywhere; the owner of the other files, for this thread alone, may not.
		const nobody = 65534
		err := filepath.WalkDir(w.Dir, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, nobody, -1))
		})
		if err = errors.Join(err, os.Chown(w.Path("models"), 0, -1), os.Chmod(filepath.Dir(w.Dir), 0o755)); err != nil {
			t.Fatal(err)
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, nobody, 0, 0); errno != 0 {
			t.Fatal(errno)
		}
		defer syscall.RawSyscall(syscall.SYS_SETFSUID, 0, 0, 0)
	}
	err := Run(context.Background(), w, Options{}, func(event.Event) {})
	if err == nil || !strings.Contains(err.Error(), "no permission; change the folder's permissions or choose another") {
		t.Errorf("%v", err)
	}
}

// TestFullDisk takes the disk's place by its error.
func TestFullDisk(t *testing.T) {
	w := fakeWorkspace(t)
	works[Quantize] = func(context.Context, *job) error {
		return obstacle(&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC})
	}
	err := Run(context.Background(), w, Options{}, func(event.Event) {})
	if err == nil || err.Error() != "stage quantize: disk is full; free some space and run again" {
		t.Errorf("%v", err)
	}
}

func TestMissingInputs(t *testing.T) {
	w := fakeWorkspace(t)
	remove(t, w.Path("rows.jsonl"))
	err := Run(context.Background(), w, Options{}, func(event.Event) {})
	if err == nil || err.Error() != "stage lora: input dataset: read rows.jsonl: not there; put it in place or change the path in config.toml" {
		t.Errorf("%v", err)
	}
	w.Config.Dataset.Name = "org/rows"
	err = Run(context.Background(), w, Options{}, func(event.Event) {})
	if err == nil || err.Error() != "stage lora: fetch org/rows: this run cannot download; set dataset.name to a local .jsonl or .parquet file" {
		t.Errorf("%v", err)
	}
	w.Config.Model = config.Default().Model
	works[Base] = makeBase
	remove(t, w.Path("models/phi-2-base"))
	err = Run(context.Background(), w, Options{Stages: []string{Base}}, func(event.Event) {})
	if err == nil || err.Error() != "stage base: fetch microsoft/phi-2: this run cannot download; set model.name to a local folder" {
		t.Errorf("%v", err)
	}
}

func TestJournalHoldsTheRun(t *testing.T) {
	w := fakeWorkspace(t)
	runAll(t, w, Options{})
	var kinds []string
	if err := event.ReadJournal(w.JournalDir(), func(e event.Event) bool { kinds = append(kinds, string(e.Kind)); return true }); err != nil {
		t.Fatal(err)
	}
	want := []string{"plan"}
	for range Stages {
		want = append(want, "stage_started", "stage_done")
	}
	want = append(want, "results", "run_done")
	equal(t, "journal", kinds, want)
}

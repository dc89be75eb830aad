package pipeline

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"quartet/config"
)

// TestCrashAtEveryStep ends a rerun of all stages at each point where a crash leaves another state on disk. Each artefact
// must be the former or the new one, whole, and the next run must bring everything to the end.
func TestCrashAtEveryStep(t *testing.T) {
	for name, refuse := range map[string]error{"exchange": nil, "two renames": syscall.EINVAL} {
		t.Run(name, func(t *testing.T) {
			real := exchange
			t.Cleanup(func() { exchange = real })
			if refuse != nil {
				exchange = func(string, string) error { return refuse }
			}
			start := fakeWorkspace(t)
			runAll(t, start, Options{})
			before := artefacts(t, start)
			rerun := []string{LoRA, LoRAQuantize, Evaluate}
			points := 0
			for n := 0; ; n++ {
				w := &Workspace{t.TempDir(), config.Default()}
				*w.Config = *start.Config
				copyAll(t, start.Dir, w.Dir)
				w.Config.Seed++
				at := crashAt(t, w, n)
				if at == "" {
					break
				}
				points++
				crashed := artefacts(t, w)
				runAll(t, w, Options{})
				after := artefacts(t, w)
				for path, text := range crashed {
					away := strings.Contains(at, "moved away") && text == ""
					if text != before[path] && text != after[path] && !away {
						t.Errorf("crash at %q: %s was %q", at, path, text)
					}
				}
				for path := range after {
					again := slices.Contains(rerun, strings.SplitN(path, "/", 2)[0])
					if (after[path] != before[path]) != again || after[path] == "" {
						t.Errorf("crash at %q: %s is not the new one: %q", at, path, after[path])
					}
				}
				equal(t, fmt.Sprintf("crash at %q: a further run", at), runAll(t, w, Options{}), nil)
				equal(t, fmt.Sprintf("crash at %q: leftovers", at), leftovers(t, w), nil)
				for _, stage := range rerun {
					runs, err := w.history(stage)
					if err != nil || len(runs) != 1 {
						t.Errorf("crash at %q: history of %s is %v, %v", at, stage, runs, err)
					}
				}
			}
			if points < 5*len(rerun) {
				t.Errorf("only %d points were tried", points)
			}
		})
	}
}

// copyAll copies a folder with the files' times, so that a copied workspace is as fresh.
func copyAll(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from+"/.", to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestFirstRunCrashes is the same for stages that have no former artefact.
func TestFirstRunCrashes(t *testing.T) {
	w := fakeWorkspace(t)
	runAll(t, w, Options{})
	want := artefacts(t, w)
	for n := 0; ; n++ {
		w := fakeWorkspace(t)
		at := crashAt(t, w, n)
		if at == "" {
			break
		}
		runAll(t, w, Options{})
		if !maps.Equal(artefacts(t, w), want) {
			t.Errorf("crash at %q: other artefacts", at)
		}
		equal(t, at, leftovers(t, w), nil)
	}
}

// TestDamagedTemporaryIsNotUsed changes what a crashed run had written, as a disk might that lost it.
func TestDamagedTemporaryIsNotUsed(t *testing.T) {
	w := fakeWorkspace(t)
	runAll(t, w, Options{})
	before := artefacts(t, w)
	w.Config.Training.LearningRate = 0.001
	for n := 0; ; n++ {
		if at := crashAt(t, w, n); strings.HasSuffix(at, "pending") {
			break
		}
	}
	temps := w.temporaries(LoRA)
	if len(temps) != 1 {
		t.Fatalf("temporary folders %v", temps)
	}
	write(t, temps[0]+"/adapter_model.safetensors", "")
	if !maps.Equal(before, artefacts(t, w)) {
		t.Fatal("the crash changed an artefact")
	}
	equal(t, "the next run", runAll(t, w, Options{}), []string{LoRA, LoRAQuantize, Evaluate})
	if data, err := os.ReadFile(w.Path("models/phi-2-lora/adapter_model.safetensors")); err != nil || len(data) == 0 {
		t.Errorf("%q, %v", data, err)
	}
	equal(t, "leftovers", leftovers(t, w), nil)
}

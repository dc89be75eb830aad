package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"quartet/demo"
	"quartet/safetensors"
)

// builtIn is the folder of the program that the tests run as a process.
var builtIn string

func TestMain(m *testing.M) {
	var err error
	if builtIn, err = os.MkdirTemp("", "quartet-test-"); err != nil {
		panic(err)
	}
	status := m.Run()
	os.RemoveAll(builtIn)
	os.Exit(status)
}

// program is the program's path; the first test that asks builds it.
func program(t *testing.T) string {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(builtIn, "quartet")
}

var build = sync.OnceValue(func() error {
	if out, err := exec.Command("go", "build", "-o", builtIn, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
})

// smallWorkspace is the demo's workspace cut down to a run of seconds, with a checkpoint every second step.
func smallWorkspace(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := demo.WriteWorkspace(dir); err != nil {
		t.Fatal(err)
	}
	set(t, dir, map[string]string{"num_samples": "24", "num_epochs": "1", "held_out": "2", "max_new_tokens": "6",
		"save_strategy": `"steps"`, "save_steps": "2", "warmup_steps": "2"})
	return dir
}

// set changes settings of a workspace.
func set(t *testing.T, dir string, settings map[string]string) {
	t.Helper()
	path := filepath.Join(dir, "config.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range settings {
		line := regexp.MustCompile(`(?m)^` + key + ` = .*$`)
		if !line.Match(text) {
			t.Fatalf("the demo's config.toml has no %s", key)
		}
		text = line.ReplaceAll(text, []byte(key+" = "+value))
	}
	if err := os.WriteFile(path, text, 0o666); err != nil {
		t.Fatal(err)
	}
}

// artefacts are the files that must come out bit by bit the same, whatever happened on the way.
var artefacts = []string{
	"models/phi-tiny-base/model.safetensors", "models/phi-tiny-quantized/model.safetensors",
	"models/phi-tiny-lora/adapter_model.safetensors", "models/phi-tiny-lora-quantized/model.safetensors",
}

func read(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, name := range artefacts {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	return files
}

// TestKilledAtAnyMoment kills the program with SIGKILL after its first event, then after its third, and so on, each time
// starting it again, until one run gets to its end. After each kill every artefact that is there is whole, and in the end
// all are those of an undisturbed run.
func TestKilledAtAnyMoment(t *testing.T) {
	quartet := program(t)
	undisturbed := smallWorkspace(t)
	if out, err := exec.Command(quartet, "run", "-C", undisturbed).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := read(t, undisturbed)

	dir := smallWorkspace(t)
	kills, resumed := 0, 0
	for finished := false; !finished; {
		kills++
		if kills > 200 {
			t.Fatal("200 runs, each killed two events later than the one before, did not get to the end")
		}
		cmd := exec.Command(quartet, "run", "-C", dir, "--json")
		var complaints bytes.Buffer
		cmd.Stderr = &complaints
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		seen, killed := 0, false
		for lines.Scan() {
			if seen++; bytes.Contains(lines.Bytes(), []byte("continue")) || bytes.Contains(lines.Bytes(), []byte("goes on")) {
				resumed++
			}
			if seen == 2*kills-1 && !bytes.Contains(lines.Bytes(), []byte(`"run_done"`)) {
				killed = true
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		err = cmd.Wait()
		if err != nil && !killed {
			t.Fatalf("run %d failed by itself: %v\n%s", kills, err, complaints.String())
		}
		finished = err == nil
		for _, name := range artefacts {
			path := filepath.Join(dir, name)
			if _, err := os.Stat(path); err != nil {
				continue
			}
			f, err := safetensors.Open(path)
			if err != nil {
				t.Fatalf("after kill %d: %v", kills, err)
			}
			f.Close()
		}
	}
	if kills < 10 {
		t.Errorf("only %d runs: the kills did not reach into the stages", kills)
	}
	for name, data := range read(t, dir) {
		if !bytes.Equal(data, want[name]) {
			t.Errorf("%s differs from an undisturbed run's after %d kills", name, kills)
		}
	}
	t.Logf("%d runs, %d of them said that training went on from a checkpoint", kills, resumed)
	left, err := filepath.Glob(filepath.Join(dir, "models", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary folders are left: %v %v", left, err)
	}
}

// TestExitStatusAndOneLine runs wrong uses and broken workspaces as processes.
func TestExitStatusAndOneLine(t *testing.T) {
	quartet := program(t)
	broken := smallWorkspace(t)
	if err := os.WriteFile(filepath.Join(broken, "config.toml"), []byte("[lora]\nr = \"many\"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	noRows := smallWorkspace(t)
	if err := os.Remove(filepath.Join(noRows, "data", "train.jsonl")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"rum"}, 2, `^quartet: no command "rum"; .quartet help. lists them\n$`},
		{[]string{"run", "loar", "-C", noRows}, 2, `^quartet run: no stage "loar"; the stages are base, quantize, lora, lora_quantize, evaluate\n$`},
		{[]string{"run", "-C", broken}, 1, `config.toml:2:5: .*\n +2 \| r = "many"\n`},
		{[]string{"plan", "-C", filepath.Join(broken, "none")}, 1, `^quartet plan: .*none/config.toml.*\n$`},
		{[]string{"run", "-C", noRows}, 1, `lora +failed: input dataset: read data/train.jsonl: not there; put it in place or change the path in config.toml\n$`},
		{[]string{"golden", noRows + "/none"}, 1, `^quartet golden: .* is not a folder of reference data .*\n$`},
		{[]string{"compare", "-C", noRows}, 2, `^quartet compare: give a prompt, in quotes\n$`},
		{[]string{"help"}, 0, `quartet demo`},
	} {
		out, err := exec.Command(quartet, c.args...).CombinedOutput()
		status := 0
		if exit, ok := err.(*exec.ExitError); ok {
			status = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if status != c.status || !regexp.MustCompile(c.want).Match(out) {
			t.Errorf("quartet %v: status %d, want %d, and\n%s\nwant %s", c.args, status, c.status, out, c.want)
		}
	}
}

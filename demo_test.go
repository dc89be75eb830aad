package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quartet/event"
)

// events runs the program with --json and returns what it reported.
func events(t *testing.T, quartet string, args ...string) []event.Event {
	t.Helper()
	all, _ := eventsAndUsage(t, quartet, args...)
	return all
}

// eventsAndUsage also returns what the program took of the machine.
func eventsAndUsage(t *testing.T, quartet string, args ...string) ([]event.Event, *os.ProcessState) {
	t.Helper()
	program := exec.Command(quartet, append(args, "--json")...)
	out, err := program.Output()
	if err != nil {
		t.Fatalf("quartet %v: %v\n%s", args, err, out)
	}
	var all []event.Event
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var e event.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%v: %s", err, lines.Bytes())
		}
		all = append(all, e)
	}
	return all, program.ProcessState
}

// TestDemoMeetsItsBars runs the whole demo as a user would: how well the variants answer, how long it takes, that a second
// run does nothing, and that a changed learning rate reaches what it must and no more.
func TestDemoMeetsItsBars(t *testing.T) {
	quartet := program(t)
	dir := filepath.Join(t.TempDir(), "demo")
	stages := 0.0
	seconds := map[string]float64{}
	all, usage := eventsAndUsage(t, quartet, "demo", dir)
	for _, e := range all {
		if e.Kind == event.StageDone {
			seconds[e.Stage] = e.Seconds
			stages += e.Seconds
		}
	}
	// Processor time, because other programs may share the cores; lora's is its share of the stages' time.
	processor := (usage.UserTime() + usage.SystemTime()).Seconds()
	if lora := processor * seconds["lora"] / stages; processor > 40 || lora > 15 {
		t.Errorf("the demo took %.1f s of processor time, of them about %.1f s for lora; the bars are 40 s and 15 s", processor, lora)
	}
	var results struct {
		Variants []struct {
			Name       string
			ExactMatch float64 `json:"exact_match"`
		}
		Training struct{ Loss []float64 }
		HeldOut  struct{ Rows int }
	}
	text, err := os.ReadFile(filepath.Join(dir, "results", "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &results); err != nil {
		t.Fatal(err)
	}
	bars := []struct {
		name        string
		least, most float64
	}{{"base", 0, 0.02}, {"quantized", 0, 0.02}, {"lora", 0.6, 1}, {"lora_quantized", 0.55, 1}}
	if len(results.Variants) != len(bars) || results.HeldOut.Rows != 150 || len(results.Training.Loss) != 200 {
		t.Fatalf("%d variants, %d held-out rows, %d steps", len(results.Variants), results.HeldOut.Rows, len(results.Training.Loss))
	}
	for i, bar := range bars {
		if v := results.Variants[i]; v.Name != bar.name || v.ExactMatch < bar.least || v.ExactMatch > bar.most {
			t.Errorf("%s answers %.1f %% word for word; %s must be within %.0f and %.0f %%", v.Name, 100*v.ExactMatch, bar.name, 100*bar.least, 100*bar.most)
		}
	}

	started := time.Now()
	for _, e := range events(t, quartet, "demo", dir) {
		if e.Kind == event.StageStarted {
			t.Errorf("the second run ran %s: %s", e.Stage, e.Text)
		}
	}
	if all := time.Since(started); all > time.Second {
		t.Errorf("the second run, with nothing to do, took %v", all)
	}

	path := filepath.Join(dir, "config.toml")
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(config, []byte("learning_rate = 5e-3"), []byte("learning_rate = 4e-3"), 1), 0o666); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(quartet, "plan", "-C", dir, "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var plan []event.PlanPart
	if err := json.Unmarshal(out, &plan); err != nil {
		t.Fatal(err)
	}
	var runs []string
	for _, p := range plan {
		if p.Run {
			runs = append(runs, p.Stage)
		}
		if p.Stage == "lora" && !strings.Contains(p.Reason, "learning_rate") {
			t.Errorf("lora runs because %q", p.Reason)
		}
	}
	if want := []string{"lora", "lora_quantize", "evaluate"}; !slices.Equal(runs, want) {
		t.Errorf("with another learning rate %v would run, not %v", runs, want)
	}
}

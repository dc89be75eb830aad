package train

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestGoldenSchedule(t *testing.T) {
	dir := filepath.Join(cmp.Or(os.Getenv("QUARTET_GOLDEN"), "../testdata/golden"), "phi")
	files, err := filepath.Glob(filepath.Join(dir, "train_*p*_*.json"))
	switch {
	case err != nil || len(files) == 0 && os.Getenv("QUARTET_GOLDEN") == "":
		t.Fatalf("no recorded runs in %s: %v", dir, err)
	case len(files) == 0:
		t.Skipf("no recorded runs in %s", dir)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var run struct {
			LR         float64 `json:"lr"`
			Epochs     float64 `json:"epochs"`
			Warmup     int     `json:"warmup"`
			Schedule   string  `json:"sched"`
			BatchSize  int     `json:"batch_size"`
			Accum      int     `json:"accum"`
			Order      []int   `json:"order"`
			StepValues []struct {
				LR float64 `json:"lr"`
			} `json:"steps"`
		}
		if err := json.Unmarshal(data, &run); err != nil {
			t.Fatal(err)
		}
		o := Options{LR: run.LR, Epochs: run.Epochs, Warmup: run.Warmup, Schedule: run.Schedule, BatchSize: run.BatchSize, Accumulation: run.Accum}
		steps := o.Steps(int(float64(len(run.Order)) / run.Epochs))
		if steps != len(run.StepValues) {
			t.Errorf("%s: %d steps, want %d", path, steps, len(run.StepValues))
		}
		for s, want := range run.StepValues {
			if got := o.LearningRate(s, steps); got != want.LR {
				t.Errorf("%s: learning rate %d is %v, want %v", path, s, got, want.LR)
			}
		}
	}
}

func TestSteps(t *testing.T) {
	for _, c := range []struct {
		rows, batch, accumulation, most int
		epochs                          float64
		want                            int
	}{
		{rows: 100, batch: 1, accumulation: 4, epochs: 1, want: 25},
		{rows: 40, batch: 2, accumulation: 3, epochs: 1, want: 7},
		{rows: 41, batch: 2, accumulation: 3, epochs: 3, want: 21},
		{rows: 3, batch: 8, accumulation: 4, epochs: 1, want: 1},
		{rows: 100, batch: 1, accumulation: 4, epochs: 0.5, want: 13},
		{rows: 100, batch: 1, accumulation: 4, epochs: 1.02, want: 26},
		{rows: 100, batch: 1, accumulation: 4, epochs: 1, most: 70, want: 70},
	} {
		o := Options{BatchSize: c.batch, Accumulation: c.accumulation, Epochs: c.epochs, MaxSteps: c.most}
		if got := o.Steps(c.rows); got != c.want {
			t.Errorf("%+v: %d steps", c, got)
		}
	}
}

func TestWarmupThenConstant(t *testing.T) {
	o := Options{LR: 0.5, Warmup: 4, Schedule: "constant"}
	for s, want := range []float64{0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5} {
		if got := o.LearningRate(s, 7); got != want {
			t.Errorf("learning rate %d is %v, want %v", s, got, want)
		}
	}
}

func TestWarmupLongerThanTheRun(t *testing.T) {
	for _, schedule := range []string{"linear", "cosine"} {
		o := Options{LR: 1, Warmup: 10, Schedule: schedule}
		if got := o.LearningRate(4, 5); got != 0.4 {
			t.Errorf("%s: learning rate 4 of 5 within a warmup of 10 is %v, want 0.4", schedule, got)
		}
	}
}

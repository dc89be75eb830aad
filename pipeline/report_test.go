package pipeline

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quartet/eval"
)

// reportingWorkspace is a fake workspace whose evaluation writes real results and reports.
func reportingWorkspace(t *testing.T) *Workspace {
	w := fakeWorkspace(t)
	works[Evaluate] = func(_ context.Context, j *job) error {
		settings, err := j.settings()
		if err != nil {
			return err
		}
		r := &eval.Results{Settings: settings, Variants: []eval.VariantResult{{Name: eval.Base, DiskBytes: 1000}}}
		return errors.Join(r.Write(filepath.Join(j.temp, resultsName)), j.writeReports(r))
	}
	return w
}

func readPage(t *testing.T, w *Workspace) string {
	t.Helper()
	data, err := os.ReadFile(w.Path("results/report.html"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestReportIsTheSameAnew(t *testing.T) {
	w := reportingWorkspace(t)
	runAll(t, w, Options{})
	before := readPage(t, w)
	m, err := w.manifest(LoRA)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"run": m.Run, "training rows": m.Inputs["dataset"][0].Digest, "base": m.Inputs[Base].digest(),
		"adapter": m.Outputs[1].Digest, "folder": w.Config.Paths.LoRAQuantized} {
		if !strings.Contains(before, text) {
			t.Errorf("the page lacks %s, %s", what, text)
		}
	}
	write(t, w.Path("results/report.html"), "of another version")
	remove(t, w.Path("results/report.md"))
	written, err := Report(w, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "written", written, []string{w.Path("results/report.md"), w.Path("results/report.html")})
	if readPage(t, w) != before {
		t.Error("the page is not what the evaluation wrote")
	}
	equal(t, "after the report", runAll(t, w, Options{}), nil)
}

func TestReportComparesFormerRuns(t *testing.T) {
	w := reportingWorkspace(t)
	for _, rate := range []float64{0.25, 0.125, 0.0625} {
		w.Config.Training.LearningRate = rate
		runAll(t, w, Options{})
	}
	if _, err := Report(w, nil, true); err != nil {
		t.Fatal(err)
	}
	page := readPage(t, w)
	_, row, _ := strings.Cut(page, `<tr><th scope="row">training.learning_rate</th>`)
	row, _, _ = strings.Cut(row, "</tr>")
	newest, middle, oldest := strings.Index(row, "0.0625"), strings.Index(row, "0.125"), strings.Index(row, "0.25")
	if newest < 0 || newest > middle || middle > oldest {
		t.Errorf("the learning rates read %q", row)
	}
	equal(t, "after the report", runAll(t, w, Options{}), nil)
	equal(t, "leftovers", leftovers(t, w), nil)
	if _, err := Report(w, nil, false); err != nil || strings.Contains(readPage(t, w), "training.learning_rate") {
		t.Errorf("without history the page compares, %v", err)
	}
}

func TestReportOfResultsOfUnknownOrigin(t *testing.T) {
	w := reportingWorkspace(t)
	if _, err := Report(w, nil, true); err == nil || !strings.Contains(err.Error(), "there are no results yet") {
		t.Errorf("without results: %v", err)
	}
	runAll(t, w, Options{})
	remove(t, w.state())
	if _, err := Report(w, nil, true); err != nil {
		t.Fatal(err)
	}
	if page := readPage(t, w); strings.Contains(page, "evaluated") || strings.Contains(page, "Artefacts") {
		t.Error("the page claims to know where the results are from")
	}
	write(t, w.ResultsFile(), "{")
	if _, err := Report(w, nil, false); err == nil || !strings.Contains(err.Error(), "not a results file") {
		t.Errorf("broken results: %v", err)
	}
}

func TestReportLeavesARunningWorkspaceAlone(t *testing.T) {
	w := reportingWorkspace(t)
	runAll(t, w, Options{})
	lock, err := w.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	if _, err := Report(w, nil, false); !errors.As(err, &Locked{}) {
		t.Errorf("while another works: %v", err)
	}
}

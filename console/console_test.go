package console

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"quartet/event"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// run is a short run with hostile text in every place that a model, a dataset or a file name can reach.
func run() []event.Event {
	at := func(ms int, e event.Event) event.Event {
		e.Time = start.Add(time.Duration(ms) * time.Millisecond)
		return e
	}
	events := []event.Event{
		at(0, event.Event{Kind: event.Plan, Plan: []event.PlanPart{{Stage: "lora", State: "stale", Run: true, Reason: "learning_rate changed\x1b[2J", MemoryBytes: 5_310_000_000, DiskBytes: 10_500_000, Seconds: 125}}}),
		at(0, event.Event{Kind: event.StageStarted, Stage: "lora", Text: "missing\x07"}),
		at(1, event.Event{Kind: event.Preview, Preview: &event.PreviewPart{Rows: 4, Tokens: 200, Trained: 150, Masked: 50, Truncated: 1, EOSTargets: 3, PaddingShare: 0.5,
			Pieces: []event.Piece{{Text: "### Q\x1b]0;title\x07\n"}, {Text: "answer\u202e", Trained: true}}}}),
		at(2, event.Event{Kind: event.Warning, Stage: "lora", Text: "odd \x9b31m"}),
	}
	for i := range 100 {
		events = append(events, at(10+200*i, event.Event{Kind: event.TrainStep, Stage: "lora", Train: &event.TrainPart{Step: i + 1, Steps: 100, Loss: 2, GradNorm: 1, LR: 1e-3, TokensPerSecond: 4000, ETA: 61}}))
	}
	return append(events,
		at(30000, event.Event{Kind: event.Progress, Progress: &event.ProgressPart{Label: "rows\r", Done: 5, Total: 10, Unit: "rows", Rate: 2.5, ETA: 2}}),
		at(31000, event.Event{Kind: event.StageDone, Stage: "lora", Seconds: 31, Figures: map[string]event.Float{"disk_bytes": 10_500_000, "final_loss": 1.25}}),
		at(31000, event.Event{Kind: event.StageFailed, Stage: "evaluate", Text: "open x\x1b[H: no such file"}),
		at(31000, event.Event{Kind: event.RunDone, Seconds: 31}))
}

func shown(mode Mode, color bool) string {
	var out bytes.Buffer
	sink := New(&out, mode, color)
	for _, e := range run() {
		sink(e)
	}
	return out.String()
}

func TestPlainLines(t *testing.T) {
	got := shown(Plain, false)
	for _, want := range []string{
		"lora           stale        yes     5.31 GB   10.5 MB    2m05s  learning_rate changed",
		"4 rows, 200 tokens: 75.0 % trained, 25.0 % masked; 25.0 % of the rows truncated; padding to max_length would be 50.0 % of the tokens\n",
		"end-of-text is a target in 3 of 4 rows\n",
		"step 1/100  loss 2.0000  grad norm 1.000  lr 1.00e-03  4000 tok/s\n",
		"step 100/100  loss",
		" 50 %  5/10 rows  2.5 rows/s  ETA 2.0 s\n",
		"lora          done in 31.0 s, loss 1.25 at the last step, 10.5 MB on disk\n",
		"evaluate      failed: open x",
		"all done in 31.0 s\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the lines lack %q:\n%s", want, got)
		}
	}
	if n := strings.Count(got, "step "); n < 11 || n > 16 {
		t.Errorf("%d of 100 steps got a line, not about a dozen", n)
	}
	if strings.ContainsAny(got, "\x1b\r\x07\u009b\u202e") {
		t.Errorf("control characters reached the output:\n%q", got)
	}
}

// TestLiveSendsItsOwnSequencesOnly strips the sequences that the console itself writes and finds no others.
func TestLiveSendsItsOwnSequencesOnly(t *testing.T) {
	got := shown(Live, true)
	if !strings.Contains(got, "\r\x1b[K  step 2/100") {
		t.Errorf("no progress line is rewritten:\n%q", got)
	}
	for _, own := range []string{"\r\x1b[K", "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[1;31m", "\x1b[0m"} {
		got = strings.ReplaceAll(got, own, "")
	}
	if strings.ContainsAny(got, "\x1b\r\x07\u009b\u202e") {
		t.Errorf("control characters reached the terminal:\n%q", got)
	}
}

func TestJSONIsOneEventALine(t *testing.T) {
	if strings.ContainsAny(shown(JSON, false), "\x1b\r\x07\u009b\u202e") {
		t.Error("control characters reached the output")
	}
	lines := strings.Split(strings.TrimRight(shown(JSON, false), "\n"), "\n")
	if len(lines) != len(run()) {
		t.Fatalf("%d lines for %d events", len(lines), len(run()))
	}
	for i, l := range lines {
		var e event.Event
		if err := json.Unmarshal([]byte(l), &e); err != nil || e.Kind != run()[i].Kind {
			t.Errorf("line %d: %v, %s", i, err, l)
		}
	}
}

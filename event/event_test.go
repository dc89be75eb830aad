package event

import (
	"context"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func read(t *testing.T, dir string) (texts []string) {
	t.Helper()
	if err := ReadJournal(dir, func(e Event) bool { texts = append(texts, e.Text); return true }); err != nil {
		t.Fatal(err)
	}
	return texts
}

func appendAll(t *testing.T, dir string, texts ...string) {
	t.Helper()
	j, err := OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, text := range texts {
		if err := j.Append(Event{Kind: Log, Text: text}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestJournalGoesOnAfterATornLine(t *testing.T) {
	dir := t.TempDir()
	appendAll(t, dir, "one", "two")
	path := filepath.Join(dir, "00000001.ndjson")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := 1; cut < len(data)/2; cut++ {
		if err := os.WriteFile(path, data[:len(data)-cut], 0o666); err != nil {
			t.Fatal(err)
		}
		if got := read(t, dir); len(got) != 1 || got[0] != "one" {
			t.Fatalf("cut by %d bytes: read %q, not the first event alone", cut, got)
		}
		appendAll(t, dir, "three")
		got := read(t, dir)
		if got[len(got)-1] != "three" || got[0] != "one" {
			t.Fatalf("cut by %d bytes, then one more: %q", cut, got)
		}
	}
}

func TestJournalIsSegmentedAndShortened(t *testing.T) {
	dir := t.TempDir()
	j, err := OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	j.segment, j.keep = 100, 3
	for i := range 40 {
		if err := j.Append(Event{Kind: TrainStep, Text: string(rune('A' + i))}); err != nil {
			t.Fatal(err)
		}
	}
	names, err := segments(dir)
	if err != nil || len(names) != 3 {
		t.Fatalf("segments %v, %v; 3 are kept", names, err)
	}
	if got := read(t, dir); got[len(got)-1] != string(rune('A'+39)) {
		t.Errorf("the last event is %q", got[len(got)-1])
	}
}

func TestSlowListenerMissesOnlyLossyEvents(t *testing.T) {
	var f Fanout
	l := f.Listen(5)
	defer l.Close()
	for range 100 {
		f.Publish(Event{Kind: TrainStep})
		f.Publish(Event{Kind: Warning})
	}
	f.Close()
	events, dropped, err := l.Next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	count := map[Kind]int{}
	for _, e := range events {
		count[e.Kind]++
	}
	if count[Warning] != 100 || count[TrainStep]+dropped != 100 || dropped < 90 {
		t.Errorf("got %v and missed %d", count, dropped)
	}
	if _, _, err := l.Next(context.Background()); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

func TestListenerWakes(t *testing.T) {
	var f Fanout
	l := f.Listen(5)
	defer l.Close()
	got := make(chan Event)
	go func() {
		events, _, _ := l.Next(context.Background())
		got <- events[0]
	}()
	f.Publish(Event{Kind: Log, Text: "hello"})
	if e := <-got; e.Text != "hello" {
		t.Errorf("got %+v", e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := l.Next(ctx); err != context.Canceled {
		t.Errorf("canceled: %v", err)
	}
}

func TestEventSurvivesJSONWithoutFiniteLoss(t *testing.T) {
	e := Event{Time: time.Unix(1, 5).UTC(), Kind: TrainStep, Stage: "lora", Train: &TrainPart{Step: 3, Loss: Float(math.NaN()), GradNorm: Float(math.Inf(1)), LR: 0.5}}
	line, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var back Event
	if err := json.Unmarshal(line, &back); err != nil {
		t.Fatal(err)
	}
	if !math.IsNaN(float64(back.Train.Loss)) || back.Train.LR != 0.5 || !back.Time.Equal(e.Time) {
		t.Errorf("%s came back as %+v", line, back.Train)
	}
}

package tui

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	tea "charm.land/bubbletea/v2"

	"quartet/event"
	"quartet/worker/client"
)

// forgetful is a worker that ends the first streams of events as too slow, and then dies.
type forgetful struct {
	fake
	streams int
	after   []int64
}

func (f *forgetful) Snapshot(context.Context) (*client.Snapshot, error) {
	s := client.Snapshot{Seq: int64(100 * (f.streams + 1))}
	s.Recent = []event.Event{{Kind: event.Warning, Text: fmt.Sprint("as of ", s.Seq)}}
	return &s, nil
}

func (f *forgetful) Events(_ context.Context, after int64, visit func(client.Numbered) error) error {
	f.streams++
	f.after = append(f.after, after)
	if err := visit(client.Numbered{Seq: after + 1, Event: event.Event{Kind: event.Log, Text: "next"}}); err != nil {
		return err
	}
	if f.streams < 3 {
		return client.ErrBehind
	}
	return client.ErrLost
}

// TestBehindBeginsAnew follows a worker that says twice that the workbench has missed too much: each time a new snapshot takes
// the state's place, and nobody is told that the worker is gone until it is.
func TestBehindBeginsAnew(t *testing.T) {
	f := &forgetful{}
	b := newBench(t, 120, 40)
	var order []string
	follow(t.Context(), 0, func(context.Context) (Worker, error) { return f, nil }, func(msg tea.Msg) {
		switch msg := msg.(type) {
		case openedMsg:
			order = append(order, fmt.Sprint("state ", msg.state.seq))
		case eventsMsg:
			order = append(order, fmt.Sprint("events ", msg.events[0].Seq))
		case goneMsg:
			order = append(order, "gone")
			if !errors.Is(msg.err, client.ErrLost) {
				t.Errorf("gone: %v", msg.err)
			}
		}
		b.m.Update(msg)
	})
	want := []string{"state 100", "events 101", "state 200", "events 201", "state 300", "events 301", "gone"}
	if !slices.Equal(order, want) || !slices.Equal(f.after, []int64{100, 200, 300}) {
		t.Errorf("%v after %v, want %v", order, f.after, want)
	}
	if lines := b.m.state.lines; len(lines) != 2 || lines[0].text != "warning: as of 300" || lines[1].text != "next" {
		t.Errorf("the log holds %v", lines)
	}
}

// TestStreamsShareFrames sends messages faster than frames come, and wants all of them, in order, in few bunches.
func TestStreamsShareFrames(t *testing.T) {
	in, done := make(chan tea.Msg), make(chan struct{})
	defer close(done)
	bunches := make(chan bunchMsg, 1000)
	go batch(in, done, func(all bunchMsg) { bunches <- all })
	const n = 400
	for i := range n {
		in <- i
	}
	got, frames := 0, 0
	for got < n {
		frames++
		for _, msg := range <-bunches {
			if msg != got {
				t.Fatalf("message %v came as number %d", msg, got)
			}
			got++
		}
	}
	if frames > n/4 {
		t.Errorf("%d messages in %d frames", n, frames)
	}
}

package tui

import (
	"context"
	"errors"
	"time"

	tea "charm.land/bubbletea/v2"

	"quartet/worker/client"
)

// frameEvery is the least time between two frames for what streams, whatever it is: keys are painted at once.
const frameEvery = 90 * time.Millisecond

// bunchMsg are messages that share a frame.
type bunchMsg []tea.Msg

// batch hands on what comes over in, at most once per frameEvery and in order, until done is closed.
func batch(in <-chan tea.Msg, done <-chan struct{}, send func(bunchMsg)) {
	var waiting bunchMsg
	var due <-chan time.Time
	last := time.Time{}
	for {
		select {
		case msg := <-in:
			waiting = append(waiting, msg)
			if due == nil {
				due = time.After(max(frameEvery-time.Since(last), 0))
			}
		case <-due:
			send(waiting)
			waiting, due, last = nil, nil, time.Now()
		case <-done:
			return
		}
	}
}

// The messages of a feed. Each names its feed, so that those of a former one are left out.
type (
	openedMsg struct {
		feed   int
		worker Worker
		state  *state
	}
	eventsMsg struct {
		feed   int
		events []client.Numbered
	}
	goneMsg struct {
		feed int
		err  error
	}
)

// follow opens the worker and tells post of everything that happens to the workspace, until the worker is gone or ctx ends.
// Where the terminal is too slow for all of it, it begins anew with a snapshot.
func follow(ctx context.Context, feed int, open func(context.Context) (Worker, error), post func(tea.Msg)) {
	worker, err := open(ctx)
	for err == nil {
		var snap *client.Snapshot
		if snap, err = worker.Snapshot(ctx); err != nil {
			break
		}
		post(openedMsg{feed, worker, stateOf(snap)})
		err = worker.Events(ctx, snap.Seq, func(e client.Numbered) error {
			post(eventsMsg{feed, []client.Numbered{e}})
			return ctx.Err()
		})
		if errors.Is(err, client.ErrBehind) {
			err = nil
		} else if err == nil {
			err = errors.New("the worker has ended")
		}
	}
	if ctx.Err() == nil {
		post(goneMsg{feed, err})
	}
}

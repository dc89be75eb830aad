package tui

import (
	"context"
	"errors"
	"time"

	tea "charm.land/bubbletea/v2"

	"quartet/worker/client"
)

// frameEvery is the least time between two messages of a stream, because everything is drawn anew after each.
const frameEvery = 80 * time.Millisecond

// batch hands on what comes over in, at most once per frameEvery and in order, until in is closed.
func batch[T any](in <-chan T, send func([]T)) {
	var waiting []T
	var due <-chan time.Time
	last := time.Time{}
	flush := func() {
		if len(waiting) > 0 {
			send(waiting)
			waiting, due, last = nil, nil, time.Now()
		}
	}
	for {
		select {
		case v, ok := <-in:
			if !ok {
				flush()
				return
			}
			waiting = append(waiting, v)
			if rest := frameEvery - time.Since(last); due == nil {
				due = time.After(max(rest, 0))
			}
		case <-due:
			flush()
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
		if err = relay(ctx, feed, worker, snap.Seq, post); errors.Is(err, client.ErrBehind) {
			err = nil
		} else if err == nil {
			err = errors.New("the worker has ended")
		}
	}
	if ctx.Err() == nil {
		post(goneMsg{feed, err})
	}
}

// relay tells post of the events after a number until there are no more.
func relay(ctx context.Context, feed int, worker Worker, after int64, post func(tea.Msg)) error {
	events := make(chan client.Numbered)
	done := make(chan struct{})
	go func() {
		batch(events, func(all []client.Numbered) { post(eventsMsg{feed, all}) })
		close(done)
	}()
	err := worker.Events(ctx, after, func(e client.Numbered) error {
		select {
		case events <- e:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	close(events)
	<-done
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"quartet/event"
	"quartet/worker/client"
)

const foregroundHelp = "work in this process, without the worker; the default in CI and without a terminal, unless a worker is there"

// findWorker finds or starts the worker of a workspace. It is nil where the work is to be done in this process: asked for by
// foreground, or by default in CI and without a terminal where no worker is.
func findWorker(ctx context.Context, dir string, foreground, detach bool) (*client.Client, error) {
	if foreground {
		return nil, nil
	}
	if detach || attended() {
		c, _, err := client.Open(ctx, dir)
		return c, err
	}
	c, err := client.Dial(dir)
	if errors.Is(err, client.ErrNone) {
		return nil, nil
	}
	return c, err
}

// attended reports whether a terminal controls this process, and it is not CI's.
func attended() bool {
	if ci := os.Getenv("CI"); ci != "" && ci != "false" && ci != "0" {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	tty.Close()
	return true
}

// errLeft is a run that goes on without this process.
type errLeft struct{ error }

// attached has the worker do a run, and follows it. Ctrl-C cancels the run and waits for its end; a second one, which ends
// this process at once, leaves it to end by itself. A terminal that closes only leaves.
func (r *order) attached(ctx context.Context, c *client.Client, sink event.Sink, std streams) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	if info.Run != "" {
		return errors.New("a run is at work here already; `quartet attach` follows it, and it must end or be cancelled first")
	}
	snap, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	if err := c.Run(ctx, client.RunRequest{Stages: r.stages, Force: r.force}); err != nil {
		return err
	}
	if !r.asJSON {
		fmt.Fprintf(std.err, "worker %d does the work, and goes on when this terminal closes; Ctrl-C cancels\n", info.PID)
	}
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	over := context.AfterFunc(ctx, func() {
		if context.Cause(ctx) != (stopSignal{os.Interrupt}) {
			stop() // the terminal is gone
			return
		}
		fmt.Fprintln(std.err, "cancelling; Ctrl-C again leaves at once")
		if err := c.Cancel(following); err != nil {
			stop()
		}
	})
	defer over()
	err = follow(following, c, snap.Seq, sink)
	if following.Err() != nil {
		return errLeft{errors.New("left; the run goes on, `quartet attach` follows it")}
	}
	return err
}

// follow shows what happens after an event until a run ends, and returns that run's error.
func follow(ctx context.Context, c *client.Client, after int64, sink event.Sink) error {
	var ended error
	err := visitEvents(ctx, c, after, func(e event.Event) error {
		sink(e)
		if e.Kind != event.RunDone {
			return nil
		}
		if e.Text != "" {
			ended = errors.New(e.Text)
		}
		return errOver
	})
	switch {
	case errors.Is(err, errOver):
		return ended
	case errors.Is(err, client.ErrLost):
		sink(event.Event{Time: time.Now(), Kind: event.RunDone, Text: err.Error()})
	}
	return err
}

// errOver ends the following of a run that has ended.
var errOver = errors.New("over")

// visitEvents gives what happens after the event of a number to visit, until visit's error or the connection's. Where the terminal
// was too slow for all of it, it goes on with what the worker remembers.
func visitEvents(ctx context.Context, c *client.Client, after int64, visit func(event.Event) error) error {
	var last time.Time
	for {
		err := c.Events(ctx, after, func(n client.Numbered) error {
			last = n.Event.Time
			return visit(n.Event)
		})
		if !errors.Is(err, client.ErrBehind) {
			return err
		}
		snap, err := c.Snapshot(ctx)
		if err != nil {
			return err
		}
		after = snap.Seq
		for _, e := range snap.Recent {
			if !e.Time.After(last) {
				continue
			}
			if err := visit(e); err != nil {
				return err
			}
		}
	}
}

package tui

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"quartet/event"
	"quartet/worker/client"
)

// Recording is a worker that plays a journal back: its events come as far apart as they were, divided by Speed. It can be
// asked for nothing.
type Recording struct {
	Journal string  // the folder of a journal, or a workspace that has one
	Speed   float64 // 1 is as it was; 0 is as fast as can be
}

// errRecording is the answer to every request.
var errRecording = errors.New("this is a recording: it can be looked at only")

// longestPause is how long a recording waits at most where nothing happened.
const longestPause = 2 * time.Second

// Check reports whether there is something to play back.
func (r Recording) Check() error {
	any := false
	err := event.ReadJournal(r.folder(), func(event.Event) bool { any = true; return false })
	if err == nil && !any {
		err = fmt.Errorf("replay %s: there is no journal here; give a workspace's .quartet/journal", r.Journal)
	}
	return err
}

func (r Recording) folder() string {
	inside := filepath.Join(r.Journal, ".quartet", "journal")
	if _, err := os.Stat(inside); err == nil {
		return inside
	}
	return r.Journal
}

// Snapshot is an empty workspace: everything comes as events.
func (r Recording) Snapshot(context.Context) (*client.Snapshot, error) {
	return &client.Snapshot{Info: client.Info{Name: filepath.Base(r.Journal)}}, nil
}

// Events gives the journal's events with their pauses.
func (r Recording) Events(ctx context.Context, _ int64, visit func(client.Numbered) error) error {
	var last time.Time
	var seq int64
	var failed error
	err := event.ReadJournal(r.folder(), func(e event.Event) bool {
		if pause := e.Time.Sub(last); !last.IsZero() && pause > 0 && r.Speed > 0 {
			select {
			case <-time.After(time.Duration(float64(min(pause, longestPause)) / r.Speed)):
			case <-ctx.Done():
				failed = ctx.Err()
				return false
			}
		}
		last = e.Time
		seq++
		failed = visit(client.Numbered{Seq: seq, Event: e})
		return failed == nil
	})
	return errors.Join(err, failed)
}

// Plan cannot be asked of a recording, nor can anything else.
func (r Recording) Plan(context.Context, client.RunRequest) ([]event.PlanPart, error) {
	return nil, errRecording
}

// Run is refused.
func (r Recording) Run(context.Context, client.RunRequest) error { return errRecording }

// Cancel is refused.
func (r Recording) Cancel(context.Context) error { return errRecording }

// Chat is refused.
func (r Recording) Chat(context.Context, client.ChatRequest, func(client.ChatEvent)) error {
	return errRecording
}

// Stop is refused.
func (r Recording) Stop(context.Context) error { return errRecording }

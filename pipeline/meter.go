package pipeline

import (
	"context"
	"time"

	"quartet/event"
)

// reportEvery is the least time between two progress events of a meter.
const reportEvery = 100 * time.Millisecond

// meter turns counts into progress events with a rate and the time left. It starts with its first count.
type meter struct {
	emit              func(event.Event)
	unit              string
	started, reported time.Time
	from              int64 // the first count
}

func (j *job) meter(unit string) *meter { return &meter{emit: j.emit, unit: unit} }

// at reports that done of total units are done. The last unit is always reported.
func (m *meter) at(done, total int64) { m.label("", done, total) }

// until is at for work that ends when ctx does.
func (m *meter) until(ctx context.Context) func(done, total int64) error {
	return func(done, total int64) error {
		m.at(done, total)
		return ctx.Err()
	}
}

// label is at with the name of what is being done.
func (m *meter) label(label string, done, total int64) {
	now := time.Now()
	if m.started.IsZero() {
		m.started, m.from = now, done
	}
	if now.Sub(m.reported) < reportEvery && done != total {
		return
	}
	m.reported = now
	p := &event.ProgressPart{Label: label, Done: done, Total: total, Unit: m.unit}
	if elapsed := now.Sub(m.started); elapsed >= reportEvery && done > m.from {
		p.Rate = float64(done-m.from) / elapsed.Seconds()
		p.ETA = float64(max(0, total-done)) / p.Rate
	}
	m.emit(event.Event{Kind: event.Progress, Progress: p})
}

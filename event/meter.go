package event

import (
	"context"
	"time"
)

// reportEvery is the least time between two progress events of a meter.
const reportEvery = 100 * time.Millisecond

// Meter turns counts into Progress events with a rate and the time left. It starts with its first count.
type Meter struct {
	emit              func(Event)
	unit              string
	started, reported time.Time
	from              int64  // the first count
	label             string // of the last report
}

// NewMeter is a meter that counts in a unit ("bytes", "rows") and gives its events to emit.
func NewMeter(unit string, emit func(Event)) *Meter { return &Meter{emit: emit, unit: unit} }

// At reports that done of total units are done. The last unit is always reported.
func (m *Meter) At(done, total int64) { m.Label("", done, total) }

// Until is At for work that ends when ctx does.
func (m *Meter) Until(ctx context.Context) func(done, total int64) error {
	return func(done, total int64) error {
		m.At(done, total)
		return ctx.Err()
	}
}

// Label is At with the name of what is being done. The first count under a name is always reported.
func (m *Meter) Label(label string, done, total int64) {
	now := time.Now()
	if m.started.IsZero() {
		m.started, m.from = now, done
	}
	if now.Sub(m.reported) < reportEvery && done != total && label == m.label {
		return
	}
	m.reported, m.label = now, label
	p := &ProgressPart{Label: label, Done: done, Total: total, Unit: m.unit}
	if elapsed := now.Sub(m.started); elapsed >= reportEvery && done > m.from {
		p.Rate = float64(done-m.from) / elapsed.Seconds()
		p.ETA = float64(max(0, total-done)) / p.Rate
	}
	m.emit(Event{Kind: Progress, Progress: p})
}

package pipeline

import (
	"time"

	"quartet/event"
)

// reportEvery is the least time between two progress events of a stage.
const reportEvery = 100 * time.Millisecond

// meter turns counts into progress events with a rate and the time left.
type meter struct {
	emit        func(event.Event)
	label, unit string
	started     time.Time
	reported    time.Time
}

func (j *job) meter(label, unit string) *meter {
	return &meter{emit: j.emit, label: label, unit: unit, started: time.Now()}
}

// at reports that done of total units are done. The last unit is always reported.
func (m *meter) at(done, total int64) {
	now := time.Now()
	if now.Sub(m.reported) < reportEvery && done != total {
		return
	}
	m.reported = now
	p := &event.ProgressPart{Label: m.label, Done: done, Total: total, Unit: m.unit}
	if elapsed := now.Sub(m.started).Seconds(); elapsed > 0 && done > 0 {
		p.Rate = float64(done) / elapsed
		p.ETA = float64(max(0, total-done)) / p.Rate
	}
	m.emit(event.Event{Kind: event.Progress, Progress: p})
}

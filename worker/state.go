package worker

import (
	"maps"
	"slices"

	"quartet/event"
	"quartet/pipeline"
	"quartet/worker/client"
)

// What a snapshot holds at most of the training and of the log.
const (
	curvePoints  = 4096
	recentEvents = 500
)

// state is what the events have told about the workspace so far, as far as it cannot be read from the disk.
type state struct {
	run     string // at work, "" for none
	stage   string
	curve   []event.TrainPart
	stride  int // of the steps, every stride-th is kept
	recent  []event.Event
	working map[string]event.Event
	memory  map[string]event.Uses
}

func newState() *state {
	return &state{stride: 1, working: map[string]event.Event{}, memory: map[string]event.Uses{}}
}

// apply takes one event.
func (s *state) apply(e event.Event) {
	switch e.Kind {
	case event.Plan:
		s.run = e.Run
	case event.StageStarted:
		s.stage = e.Stage
	case event.Progress:
		s.working[e.Stage] = e
	case event.TrainStep:
		s.working[e.Stage] = e
		s.step(*e.Train)
	case event.StageDone, event.StageFailed:
		s.stage = ""
		delete(s.working, e.Stage)
	case event.Memory:
		s.memory[e.Stage] = e.Memory
	case event.RunDone:
		s.run, s.stage = "", ""
		clear(s.working)
	}
	switch e.Kind {
	case event.StageStarted, event.Preview, event.Log, event.Warning, event.StageDone, event.StageFailed, event.RunDone:
		if len(s.recent) == recentEvents {
			s.recent = slices.Delete(s.recent, 0, recentEvents/4)
		}
		s.recent = append(s.recent, e)
	}
}

// step adds a step to the curve. One that was done before takes the place of the former and of those after it: the training
// went on from a checkpoint, or began anew.
func (s *state) step(t event.TrainPart) {
	at, _ := slices.BinarySearchFunc(s.curve, t.Step, func(t event.TrainPart, step int) int { return t.Step - step })
	s.curve = s.curve[:at]
	if at == 0 {
		s.stride = 1
	}
	if (t.Step-1)%s.stride == 0 || t.Skipped {
		s.curve = append(s.curve, t)
	}
	for len(s.curve) > curvePoints {
		s.stride *= 2
		s.curve = slices.DeleteFunc(s.curve, func(t event.TrainPart) bool { return (t.Step-1)%s.stride != 0 })
	}
}

// into fills a snapshot in. The snapshot shares nothing with the state.
func (s *state) into(snap *client.Snapshot) {
	snap.Curve, snap.Recent, snap.Working = slices.Clone(s.curve), slices.Clone(s.recent), maps.Clone(s.working)
	snap.Memory = map[string]event.Uses{}
	for stage, uses := range s.memory {
		snap.Memory[stage] = maps.Clone(uses)
	}
}

// remembered is the state that a workspace's journal tells.
func remembered(w *pipeline.Workspace) (*state, error) {
	s := newState()
	err := event.ReadJournal(w.JournalDir(), func(e event.Event) bool {
		if e.Kind != event.TrainStep || e.Train != nil {
			s.apply(e)
		}
		return true
	})
	s.run, s.stage = "", "" // whatever was at work has gone with its process
	clear(s.working)
	return s, err
}

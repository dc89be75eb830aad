package tui

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"quartet/eval"
	"quartet/event"
	"quartet/worker/client"
)

// stageNames are the stages of every workspace in order; uploadStage comes after them where something is to be uploaded.
var stageNames = []string{"base", "quantize", "lora", "lora_quantize", "evaluate"}

const uploadStage = "upload"

// stage is what is known of one stage.
type stage struct {
	plan     event.PlanPart
	progress *event.ProgressPart
	train    *event.TrainPart
	since    time.Time // when it started, while it runs
	seconds  float64   // how long its last run took
	figures  map[string]event.Float
	size     int64
	memory   event.Uses // that it has reserved, or had in its last run
	failure  string     // why its last run ended, in one line
}

func (s *stage) running() bool { return s.plan.State == "running" }

// state is the workspace as the events tell it. It belongs to the model; a new one comes from a snapshot.
type state struct {
	info    client.Info
	seq     int64
	stages  map[string]*stage
	names   []string // of the stages, in order
	curve   *curve
	results *eval.Results
	preview *event.PreviewPart
	lines   []logLine
	missed  int64 // events that the worker dropped because this client was slow
	runs    int   // runs that ended, so that the plan is asked for again
	busy    bool
}

// logLine is one line of the log.
type logLine struct {
	at    time.Time
	stage string
	role  role
	text  string // untrusted
}

// logLimit is how many lines of the log are kept.
const logLimit = 5000

func newState() *state {
	s := &state{stages: map[string]*stage{}, curve: newCurve()}
	for _, name := range stageNames {
		s.add(name)
	}
	return s
}

// stateOf is a snapshot's state. It takes time in proportion to the snapshot, so it is called outside Update.
func stateOf(snap *client.Snapshot) *state {
	s := newState()
	s.info, s.seq = snap.Info, snap.Seq
	for _, t := range snap.Curve {
		s.curve.add(t, time.Time{})
	}
	for _, e := range snap.Recent {
		s.apply(e)
	}
	s.plan(snap.Stages)
	if snap.Results != nil {
		s.apply(*snap.Results)
	}
	for name, e := range snap.Working {
		if st := s.stages[name]; st != nil {
			s.apply(e)
		}
	}
	for name, bytes := range snap.Sizes {
		if st := s.stages[name]; st != nil {
			st.size = bytes
		}
	}
	for name, memory := range snap.Memory {
		if st := s.stages[name]; st != nil {
			st.memory = memory
		}
	}
	s.busy = snap.Info.Run != ""
	return s
}

func (s *state) add(name string) {
	s.names, s.stages[name] = append(s.names, name), &stage{plan: event.PlanPart{Stage: name}}
}

// plan takes over how the stages stand.
func (s *state) plan(parts []event.PlanPart) {
	uploads := slices.ContainsFunc(parts, func(p event.PlanPart) bool { return p.Stage == uploadStage })
	switch known := s.stages[uploadStage] != nil; {
	case uploads && !known:
		s.add(uploadStage)
	case known && !uploads && len(parts) > 0:
		s.names = s.names[:len(stageNames)]
		delete(s.stages, uploadStage)
	}
	for _, p := range parts {
		if st := s.stages[p.Stage]; st != nil {
			st.plan = p
			if p.State == "failed" && st.failure == "" {
				st.failure = p.Reason
			}
		}
	}
}

// fetches reports whether a stage is going to fetch something whose size is not known.
func (s *state) fetches() bool {
	for _, st := range s.stages {
		if st.plan.Fetch != "" && st.plan.FetchBytes == 0 {
			return true
		}
	}
	return false
}

// weighed takes over how much the stages fetch, and no more: a run may have begun since it was asked.
func (s *state) weighed(parts []event.PlanPart) {
	for _, p := range parts {
		if st := s.stages[p.Stage]; st != nil && st.plan.Fetch == p.Fetch {
			st.plan.FetchBytes = p.FetchBytes
		}
	}
}

// apply takes one event.
func (s *state) apply(e event.Event) {
	if e.Stage == uploadStage && s.stages[e.Stage] == nil {
		s.add(e.Stage)
	}
	st := s.stages[e.Stage]
	if st == nil {
		st = &stage{} // of an unknown stage, or of the run as a whole
	}
	switch e.Kind {
	case event.Plan:
		s.plan(e.Plan)
		s.busy = true
	case event.StageStarted:
		st.progress, st.train, st.failure, st.since = nil, nil, "", e.Time
		st.plan.State = "running"
		s.busy = true
		s.note(e, dim, "starts: "+e.Text)
	case event.StageFresh:
		st.plan.State, st.plan.Reason, st.plan.Run = "fresh", "", false
	case event.Progress:
		st.progress = e.Progress
	case event.TrainStep:
		if e.Train != nil {
			st.train = e.Train
			s.curve.add(*e.Train, e.Time)
			if e.Train.Skipped {
				s.note(e, warn, "step skipped: the gradient overflowed")
			}
		}
	case event.Memory:
		st.memory = e.Memory
	case event.Preview:
		s.preview = e.Preview
	case event.Log:
		s.note(e, plain, e.Text)
	case event.Warning:
		s.note(e, warn, "warning: "+e.Text)
	case event.StageDone:
		st.plan.State, st.plan.Reason, st.plan.Run, st.failure = "fresh", "", false, ""
		st.progress, st.train, st.seconds, st.figures = nil, nil, e.Seconds, e.Figures
		if bytes, ok := e.Figures["disk_bytes"]; ok {
			st.size = int64(bytes)
		}
		s.note(e, good, "done in "+seconds(e.Seconds))
	case event.StageFailed:
		st.plan.State, st.failure, st.progress = "failed", e.Text, nil
		text, r := "failed: "+e.Text, bad
		if e.Canceled {
			st.plan.State, text, r = "interrupted", "interrupted: "+e.Text, warn
		}
		st.train = nil
		s.note(e, r, text)
	case event.Results:
		var r eval.Results
		if err := json.Unmarshal(e.Results, &r); err != nil {
			s.note(e, bad, "the results cannot be read: "+err.Error()+"; evaluate again")
			return
		}
		s.results = &r
	case event.Clients:
		s.info.Clients = e.Clients
	case event.RunDone:
		s.busy = false
		s.runs++
		for _, st := range s.stages {
			if st.running() {
				st.plan.State, st.progress, st.train = "interrupted", nil, nil
			}
		}
		if e.Text == "" {
			s.note(e, good, "run done in "+seconds(e.Seconds))
		} else if !e.Canceled {
			s.note(e, bad, "run failed: "+e.Text)
		}
	}
}

func (s *state) note(e event.Event, r role, text string) {
	if len(s.lines) >= logLimit {
		s.lines = slices.Delete(s.lines, 0, logLimit/10)
	}
	s.lines = append(s.lines, logLine{e.Time, e.Stage, r, text})
}

// at is the stage at work, "" for none.
func (s *state) at() string {
	for _, name := range s.names {
		if s.stages[name].running() {
			return name
		}
	}
	return ""
}

// uses are a memory's uses in the order in which the bar shows them, the known ones first.
func uses(memory event.Uses) []string {
	known := []string{"weights", "adapter", "optimizer", "activations", "cache"}
	var all []string
	for _, use := range known {
		if memory[use] > 0 {
			all = append(all, use)
		}
	}
	for _, use := range slices.Sorted(maps.Keys(memory)) {
		if !slices.Contains(known, use) && memory[use] > 0 {
			all = append(all, use)
		}
	}
	return all
}

package pipeline

import (
	"os"
	"path/filepath"
)

// Remains are what runs have left in a workspace besides the artefacts.
type Remains struct {
	Holder      *Holder  // the process that works here at the moment, nil for none
	Killed      *Holder  // the process that was at a run when it ended, nil for none; its lock ended with it
	Temporaries []string // folders of runs that work here or were killed; absolute paths
	Pending     []string // stages whose moves into place a crash cut short
	Kept        []string // what a stage replaced but the program had not made; absolute paths
}

// Remains looks for what runs have left. It changes nothing.
func (w *Workspace) Remains() Remains {
	r := Remains{Holder: w.holder()}
	if f, err := os.Open(w.state("lock")); err == nil && r.Holder == nil {
		if h := readHolder(f); h.Run != "" {
			r.Killed = &h
		}
		f.Close()
	}
	for _, stage := range Stages {
		r.Temporaries = append(r.Temporaries, w.temporaries(stage)...)
		if exists(w.pendingPath(stage)) {
			r.Pending = append(r.Pending, stage)
		}
		if kept, err := filepath.Glob(w.foreignPath(w.Path(w.folder(stage)), "*")); err == nil {
			r.Kept = append(r.Kept, kept...)
		}
	}
	return r
}

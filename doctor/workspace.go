package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"quartet/config"
	"quartet/console"
	"quartet/event"
	"quartet/pipeline"
	"quartet/tokenizer"
)

// workspace examines a workspace and what its configuration names in it.
func (x *exam) workspace(dir string) {
	x.r.Kind = Workspace
	w, err := pipeline.Open(dir)
	if wrong := (*config.Error)(nil); errors.As(err, &wrong) {
		text := wrong.Problem
		if wrong.Allowed != "" {
			text += "; allowed: " + wrong.Allowed
		}
		x.fail(fmt.Sprintf("%s:%d", workspaceName, wrong.Line), nil, "%s", text)
		return
	}
	if err != nil {
		x.fail(workspaceName, nil, "%s", err)
		return
	}
	x.remains(w)
	x.stages(w)
	p := w.Config.Paths
	base := w.Path(p.Base)
	x.part(w.Dir, base, Options{})
	x.part(w.Dir, w.Path(p.Quantized), Options{})
	x.part(w.Dir, w.Path(p.LoRA), Options{Base: base})
	x.part(w.Dir, w.Path(p.LoRAQuantized), Options{})
	rules := RulesOf(w)
	x.part(w.Dir, w.DatasetFile(), Options{Rules: rules})
	if held := w.Config.Dataset.HeldOutFile; held != "" {
		rules.Truncate = true // the evaluation takes rows of any length
		x.part(w.Dir, w.Path(held), Options{Rules: rules})
	}
}

// RulesOf are the rules of a workspace, with the tokenizer of its base model where there is one.
func RulesOf(w *pipeline.Workspace) Rules {
	d := w.Config.Dataset
	r := Rules{Template: w.Template(), MaxLength: d.MaxLength, Truncate: d.Truncation}
	if t, err := tokenizer.Load(w.Path(w.Config.Paths.Base)); err == nil {
		r.Tokenizer = t
	}
	return r
}

// part examines something in the workspace dir, if it is there.
func (x *exam) part(dir, path string, o Options) {
	if _, err := os.Lstat(path); err != nil || x.ctx.Err() != nil {
		return
	}
	o.Deep = x.Deep
	p := &exam{ctx: x.ctx, Options: o, r: &Report{Path: path, Kind: Unknown, Findings: []Finding{}}}
	if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) {
		p.r.Path = filepath.Join(x.r.Path, rel)
	}
	p.look(path)
	x.r.Parts = append(x.r.Parts, p.r)
}

// remains tells what runs have left.
func (x *exam) remains(w *pipeline.Workspace) {
	r := w.Remains()
	inside := func(path string) string {
		if rel, err := filepath.Rel(w.Dir, path); err == nil {
			return rel
		}
		return path
	}
	working := r.Holder != nil && (r.Holder.Run != "" || r.Holder.PID == 0)
	switch {
	case working:
		x.note(".quartet/lock", "%s works here; `quartet attach` follows it", r.Holder)
	case r.Holder != nil:
		x.note(".quartet/lock", "a worker waits here, %s; `quartet stop` ends it", r.Holder)
	case r.Killed != nil:
		x.warn(".quartet/lock", "%s ended in the middle of a run; its lock is gone with it, and `quartet run` goes on", r.Killed)
	}
	if working {
		return // the rest is that run's
	}
	for _, stage := range r.Pending {
		x.warn(".quartet/pending/"+stage+".json", "a crash cut the move of %s into its place short; `quartet run` ends it", stage)
	}
	for _, path := range r.Temporaries {
		x.warn(inside(path), "left by a run that was killed, %s; `quartet run` removes it", console.Bytes(bytesIn(path)))
	}
	for _, path := range r.Kept {
		x.note(inside(path), "kept because the program had not made it, %s; remove it when it is not wanted", console.Bytes(bytesIn(path)))
	}
}

// stages tells how the stages stand, and whether what is to run has room.
func (x *exam) stages(w *pipeline.Workspace) {
	plan, err := pipeline.Predict(w, pipeline.Options{})
	if err != nil {
		x.fail("", nil, "%s", err)
		return
	}
	var states []string
	var need int64
	for _, p := range plan {
		states = append(states, p.Stage+" "+p.State)
		if p.Run {
			need += p.DiskBytes
		}
		x.stage(p)
	}
	x.r.About = strings.Join(states, ", ")
	var disk unix.Statfs_t
	if unix.Statfs(w.Dir, &disk) != nil {
		return
	}
	if free := int64(disk.Bavail) * disk.Bsize; free < need {
		x.fail("", nil, "what is to run writes %s, but the disk has %s free; free some space or set other paths in config.toml", console.Bytes(need), console.Bytes(free))
	}
}

func (x *exam) stage(p event.PlanPart) {
	switch pipeline.State(p.State) {
	case pipeline.Failed:
		x.fail(p.Stage, nil, "failed: %.300s; `quartet run` tries again", p.Reason)
	case pipeline.Interrupted:
		x.warn(p.Stage, "was interrupted: %s; `quartet run` goes on", p.Reason)
	case pipeline.Stale:
		x.note(p.Stage, "stale: %s; `quartet run` makes it anew", p.Reason)
	}
}

// bytesIn adds up the files of a folder.
func bytesIn(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

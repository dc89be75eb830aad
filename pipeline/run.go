package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quartet/event"
	"quartet/kernels"
)

// Options are what a run does.
type Options struct {
	Stages []string // the stages to run, with the stale ones that they need; none for all
	Force  bool     // run the asked stages though they are fresh
	// Backend gives the device's backend, which stays the caller's; nil for one of the run's own.
	Backend func(device string) (b kernels.Backend, note string, err error)
	// Turn is locked while a stage computes on the device, and let go for others between pieces of its work; nil where
	// nobody else uses the device.
	Turn sync.Locker
	// Others is how often others have had their turn so far, by which an evaluation tells timings that they disturbed; may be
	// nil.
	Others func() int
	// Lock is the workspace's, which the caller holds; nil to take it for the run.
	Lock *Lock
	// Source brings a base model and a dataset of the hub; nil where nothing can be downloaded.
	Source Source
	// Uploader takes variants elsewhere; nil where nothing can be uploaded.
	Uploader Uploader

	crash crashPoint // of tests
}

// Run brings the asked stages up to date: it runs those that are not fresh, in order, and tells sink what happens, on the
// calling goroutine. The same events go to the workspace's journal. It first ends what a crash left half done.
//
// When a stage fails, its former artefact stays as it was and the run ends with its error, which is one line. When ctx is
// cancelled, training leaves a checkpoint that the next run goes on from, and the error wraps ctx's. A workspace in which
// another process works is a Locked error.
func Run(ctx context.Context, w *Workspace, o Options, sink event.Sink) (err error) {
	if err := w.CheckStages(o.Stages); err != nil {
		return err
	}
	if o.Source == nil {
		o.Source = noSource{}
	}
	if o.Uploader == nil {
		o.Uploader = noUploader{}
	}
	if o.crash == nil {
		o.crash = func(string) {}
	}
	if o.Lock == nil {
		if o.Lock, err = w.Lock(); err != nil {
			return err
		}
		defer o.Lock.Release()
	}
	for _, dir := range []string{w.state("stages"), w.state("pending")} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return fmt.Errorf("open workspace %s: %w", w.Dir, obstacle(err))
		}
	}
	started := time.Now()
	run := newRun(started)
	if err := o.Lock.works(run); err != nil {
		return err
	}
	defer o.Lock.works("")
	journal, err := event.OpenJournal(w.JournalDir())
	if err != nil {
		return err
	}
	defer journal.Close()
	d, err := openDigester(w.state("digests.json"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.save()) }()

	r := &runner{w: w, d: d, o: o, run: run, sink: event.Tee(journal.Sink(), sink)}
	if err := w.recoverAll(d, o.crash); err != nil {
		return err
	}
	err = r.all(ctx)
	if closed := r.close(); err == nil {
		err = closed
	}
	done := event.Event{Kind: event.RunDone, Seconds: time.Since(started).Seconds()}
	if err != nil {
		done.Text, done.Canceled = err.Error(), ctx.Err() != nil
	}
	if broken := journal.Err(); broken != nil {
		r.emit(event.Event{Kind: event.Warning, Text: broken.Error()})
	}
	r.emit(done)
	return err
}

// runner is one run of the pipeline.
type runner struct {
	w       *Workspace
	d       *digester
	o       Options
	run     string
	sink    event.Sink
	backend kernels.Backend // nil until a stage needs it
}

func (r *runner) emit(e event.Event) {
	e.Time, e.Run = time.Now(), r.run
	r.sink(e)
}

// close frees what the run's own backend holds.
func (r *runner) close() error {
	if r.backend == nil || r.o.Backend != nil {
		return nil
	}
	return CloseBackend(r.backend)
}

func (r *runner) all(ctx context.Context) error {
	facts, err := r.look()
	if err != nil {
		return err
	}
	plan := decide(facts, r.o.Stages, r.o.Force)
	r.w.predict(plan, facts)
	r.emit(event.Event{Kind: event.Plan, Plan: plan.parts()})
	for i, s := range plan {
		if !s.Run {
			if s.State == Fresh {
				r.emit(event.Event{Kind: event.StageFresh, Stage: s.Stage})
			}
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("stopped before stage %s: %w", s.Stage, err)
		}
		if facts, err = r.look(); err != nil {
			return err
		}
		now := decide(facts, r.o.Stages, r.o.Force)[i]
		if !now.Run { // the stages before it gave the same as before
			r.emit(event.Event{Kind: event.StageFresh, Stage: s.Stage})
			continue
		}
		if err := r.update(ctx, facts[i], now, s.Prediction); err != nil {
			return err
		}
	}
	return nil
}

// look gathers the facts for the process that holds the lock: a mark it finds is of a run that has ended.
func (r *runner) look() ([]facts, error) {
	all, err := r.w.look(r.d)
	for i := range all {
		all[i].running = false
	}
	return all, err
}

// parts is the plan as an event has it.
func (p Plan) parts() []event.PlanPart {
	parts := make([]event.PlanPart, len(p))
	for i, s := range p {
		parts[i] = event.PlanPart{
			Stage: s.Stage, State: string(s.State), Reason: s.Reason, Run: s.Run,
			MemoryBytes: s.Memory.Total(), Memory: s.Memory, DiskBytes: s.DiskBytes, Seconds: s.Seconds, Fetch: s.Fetch, Uploads: s.Uploads,
		}
	}
	return parts
}

// update runs one stage and puts its artefact in place.
func (r *runner) update(ctx context.Context, f facts, s StagePlan, need Prediction) error {
	started := time.Now()
	r.emit(event.Event{Kind: event.StageStarted, Stage: s.Stage, Text: s.Reason})
	m := mark{Run: r.run, Started: started.UTC()}
	j := &job{runner: r, facts: f, need: need, figures: map[string]float64{}}
	p, err := j.make(ctx, m)
	if err == nil {
		p.Manifest.Seconds = time.Since(started).Seconds()
		err = j.finish(p)
	}
	if err != nil {
		return r.fail(ctx, j, m, err)
	}
	done := event.Event{Kind: event.StageDone, Stage: s.Stage, Seconds: p.Manifest.Seconds, Figures: map[string]event.Float{}}
	for name, value := range p.Manifest.Figures {
		done.Figures[name] = event.Float(value)
	}
	r.emit(done)
	return j.announce()
}

// fail records and reports why a stage ended, in one line. What the stage had written is removed.
func (r *runner) fail(ctx context.Context, j *job, m mark, err error) error {
	stopped := ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)))
	line := strings.ReplaceAll(err.Error(), "\n", "; ")
	if stopped {
		line = strings.TrimSuffix(strings.TrimSuffix(line, ": "+ctx.Err().Error()), ": "+context.Cause(ctx).Error())
	}
	m.Error, m.Stopped = line, stopped
	if exists(r.w.pendingPath(j.stage)) {
		line += "; the next run finishes it"
	} else {
		os.RemoveAll(j.temp) // what stays is removed by the next run
	}
	writeJSON(r.w.markPath(j.stage), m) // the error itself matters more than its record
	r.emit(event.Event{Kind: event.StageFailed, Stage: j.stage, Text: line, Canceled: stopped})
	return fmt.Errorf("stage %s: %w", j.stage, oneLine{err, line})
}

// oneLine is an error with its text in one line.
type oneLine struct {
	error
	line string
}

func (o oneLine) Error() string { return o.line }
func (o oneLine) Unwrap() error { return o.error }

// job is the making of one stage's artefact.
type job struct {
	*runner
	facts
	temp    string // the folder to write into, "" where nothing is written
	need    Prediction
	turn    bool // it holds the turn on the device
	figures map[string]float64
}

func (j *job) emit(e event.Event) {
	e.Stage = j.stage
	j.runner.emit(e)
}

func (j *job) log(format string, args ...any) {
	j.emit(event.Event{Kind: event.Log, Text: fmt.Sprintf(format, args...)})
}

func (j *job) warn(line string) { j.emit(event.Event{Kind: event.Warning, Text: line}) }

func (j *job) meter(unit string) *event.Meter { return event.NewMeter(unit, j.emit) }

// path is the folder of a stage's artefact.
func (j *job) path(stage string) string { return j.w.Path(j.w.folder(stage)) }

// device is the backend, which is made when first needed. From then on until the stage's work ends it is the stage's turn.
func (j *job) device() (kernels.Backend, error) {
	if j.o.Turn != nil && !j.turn {
		j.o.Turn.Lock()
		j.turn = true
	}
	if j.backend == nil {
		open := j.o.Backend
		if open == nil {
			open = OpenBackend
		}
		b, note, err := open(j.w.Config.Device)
		if err != nil {
			return nil, err
		}
		if note != "" {
			j.warn(note)
		}
		j.runner.backend = b
	}
	return j.backend, nil
}

// reserved tells what memory the stage has by now, by use.
func (j *job) reserved(byUse map[string]int64) {
	j.emit(event.Event{Kind: event.Memory, Memory: byUse})
}

// between lets others use the device, and ends the work when ctx has ended.
func (j *job) between(ctx context.Context) func() error {
	return func() error {
		if j.turn {
			j.o.Turn.Unlock()
			j.o.Turn.Lock()
		}
		return ctx.Err()
	}
}

// work lets the stage write its artefact.
func (j *job) work(ctx context.Context) error {
	defer j.leave()
	return works[j.stage](ctx, j)
}

// leave ends the stage's turn on the device.
func (j *job) leave() {
	if j.turn {
		j.o.Turn.Unlock()
		j.turn = false
	}
}

// steady reports bytes as they are done; between them others may use the device.
func (j *job) steady(ctx context.Context) func(done, total int64) error {
	meter, between := j.meter("bytes"), j.between(ctx)
	return func(done, total int64) error {
		meter.At(done, total)
		return between()
	}
}

// make lets the stage write its artefact into a temporary folder beside its place, syncs it, and says what is to be moved.
func (j *job) make(ctx context.Context, m mark) (pending, error) {
	if err := writeJSON(j.w.markPath(j.stage), m); err != nil {
		return pending{}, err
	}
	if err := j.fetchDataset(ctx); err != nil {
		return pending{}, err
	}
	for name, in := range j.inputs {
		if in.err != nil {
			return pending{}, fmt.Errorf("input %s: %w", name, in.err)
		}
	}
	p := pending{Manifest: Manifest{
		Format: j.format, Stage: j.stage, Run: m.Run, Started: m.Started, Config: j.config,
		Inputs: map[string]Tree{}, Folder: j.folder, Figures: j.figures,
	}}
	for name, in := range j.inputs {
		p.Manifest.Inputs[name] = in.tree
	}
	target := j.w.Path(j.folder)
	if j.adopts() {
		if err := verify(target); err != nil {
			return p, err
		}
		tree, err := j.d.tree(target, every)
		if err != nil {
			return p, fmt.Errorf("read %s: %w", target, obstacle(err))
		}
		p.Manifest.Outputs, p.Manifest.Adopted = tree, true
		return p, nil
	}
	j.temp = j.w.tempPath(j.stage, m.Run)
	if err := os.MkdirAll(j.temp, 0o777); err != nil {
		return p, fmt.Errorf("make folder %s: %w", j.temp, obstacle(err))
	}
	if err := j.fits(); err != nil {
		return p, err
	}
	if err := j.work(ctx); err != nil {
		return p, err
	}
	if j.backend != nil {
		p.Manifest.Device = j.backend.Name()
	}
	j.crashAt("written")
	if err := settle(j.temp); err != nil {
		return p, err
	}
	tree, err := j.d.tree(j.temp, every)
	if err != nil {
		return p, fmt.Errorf("read %s: %w", j.temp, obstacle(err))
	}
	j.figures["disk_bytes"] = float64(tree.Bytes())
	p.Manifest.Outputs, p.Temp = tree, j.temp
	p.Items = []item{{j.temp, target, tree.digest()}}
	if amongResults(j.stage) {
		p.Items = nil
		for _, f := range tree {
			p.Items = append(p.Items, item{filepath.Join(j.temp, f.Name), filepath.Join(target, f.Name), f.Digest})
		}
	}
	p.Former = j.former(target)
	return p, nil
}

// fits refuses work whose result has no room on the disk. A base may be linked, which needs none.
func (j *job) fits() error {
	var disk unix.Statfs_t
	if j.stage == Base || unix.Statfs(j.temp, &disk) != nil {
		return nil
	}
	if free := int64(disk.Bavail) * disk.Bsize; free < j.need.DiskBytes {
		return fmt.Errorf("write %s: it needs %d MB, but the disk has %d MB free; free some space or set another path in config.toml",
			j.folder, j.need.DiskBytes/1e6+1, free/1e6)
	}
	return nil
}

func (j *job) crashAt(step string) { j.o.crash(j.stage + ": " + step) }

// former is what the new artefact is going to replace, nil for nothing.
func (j *job) former(target string) *former {
	if !j.w.occupied(j.stage) {
		return nil
	}
	if j.manifest == nil {
		return &former{Foreign: true}
	}
	f := &former{Manifest: *j.manifest}
	names := every
	if amongResults(j.stage) {
		names = func(name string) bool { return slices.Contains(keeps[j.stage], name) }
	}
	now, err := j.d.tree(target, names)
	f.Foreign = err != nil
	for _, file := range now {
		if was, ok := j.manifest.Outputs.find(file.Name); !ok || was.Digest != file.Digest {
			f.Foreign = true
		}
	}
	return f
}

// finish makes the artefact the workspace's own; from here on a crash is brought to the end by the next run.
func (j *job) finish(p pending) error {
	if err := writeJSON(j.w.pendingPath(j.stage), p); err != nil {
		return err
	}
	j.crashAt("pending")
	if err := j.d.save(); err != nil {
		return err
	}
	if p.Former != nil && p.Former.Foreign {
		j.warn(fmt.Sprintf("%s held something that this workspace did not make; it is kept as %s", j.folder, j.w.foreignPath(j.folder, p.Manifest.Run)))
	}
	if err := j.w.commit(j.d, p, func(step string) { j.crashAt(step) }); err != nil {
		return err
	}
	if j.stage == LoRA {
		return j.w.dropCheckpoint()
	}
	return nil
}

// Package worker is the process that does a workspace's work: it holds the workspace's lock and the device, runs stages, lets
// the variants answer, and tells every client that asks over a Unix socket what happens. It lives in a session of its own, so
// that it goes on when the terminal that started it is gone.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"quartet/event"
	"quartet/kernels"
	"quartet/pipeline"
	"quartet/visible"
	"quartet/worker/client"
)

// grace is how long a worker that ends waits for the run at work to leave its checkpoint. Then it ends all the same: what a
// stage had not finished is never in place, and training's last regular checkpoint is whole.
const grace = 4 * time.Second

// Options are what a worker is started with.
type Options struct {
	Source   pipeline.Source   // of models and datasets that are not here
	Uploader pipeline.Uploader // of variants
	// Weigh fills in how much the stages of a plan fetch, where that is known soon; nil for nowhere.
	Weigh func(ctx context.Context, w *pipeline.Workspace, parts []event.PlanPart)
	Log   *log.Logger // what goes wrong, and what was asked
}

// worker is the process's one worker.
type worker struct {
	o       Options
	dir     string
	lock    *pipeline.Lock
	device  device
	library *library
	feed    *feed
	prompts turn // one prompt is answered at a time
	started time.Time
	gpu     string // the device's name

	ctx  context.Context // of all work
	stop context.CancelFunc
	runs sync.WaitGroup

	mu      sync.Mutex // of what follows, and of state
	state   *state
	cancel  context.CancelFunc // of the run at work, nil for none
	chats   int                // prompts being answered, or waiting
	others  int                // evaluations for a client
	clients int                // that follow the events
	active  time.Time          // when something was last going on
}

// Serve is the worker of the workspace in dir until it is asked to stop, ctx ends, or nothing has happened for as long as the
// configuration says. A workspace that another process holds is a pipeline.Locked error.
func Serve(ctx context.Context, dir string, o Options) error {
	workspace, err := pipeline.Open(dir)
	if err != nil {
		return err
	}
	if workspace.Dir, err = filepath.EvalSymlinks(workspace.Dir); err != nil {
		return err
	}
	lock, err := workspace.Lock()
	if err != nil {
		return err
	}
	socket, err := client.Socket(workspace.Dir)
	if err != nil {
		return err
	}
	w := &worker{o: o, dir: workspace.Dir, lock: lock, feed: newFeed(), started: time.Now(), active: time.Now()}
	w.library = newLibrary(&w.device)
	w.ctx, w.stop = context.WithCancel(ctx)
	defer w.stop()
	if w.state, err = remembered(workspace); err != nil {
		return err
	}
	if w.gpu, err = w.device.name(workspace.Config.Device); err != nil {
		w.warn(err.Error())
	}
	listener, err := listen(socket)
	if err != nil {
		return err
	}
	defer os.Remove(socket)
	server := &http.Server{Handler: w.routes(), ErrorLog: o.Log, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	o.Log.Printf("worker of %s, process %d, version %s", visible.Line(w.dir), os.Getpid(), client.Version())
	for _, text := range shortLived() {
		w.warn(text)
	}

	err = w.wait(served, time.Duration(workspace.Config.Worker.IdleMinutes)*time.Minute, lookEvery)
	ended := w.end()
	w.feed.end()
	closing, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if server.Shutdown(closing) != nil { // a client that does not read
		server.Close()
	}
	if ended {
		w.evict(true)
		lock.Release()
	}
	o.Log.Printf("the worker ends")
	return err
}

// wait returns when the worker is to end. It looks every so often whether it is still needed.
func (w *worker) wait(served <-chan error, idle, every time.Duration) error {
	look := time.NewTicker(every)
	defer look.Stop()
	for {
		select {
		case err := <-served:
			return fmt.Errorf("serve the worker's socket: %w", err)
		case <-w.ctx.Done():
			return nil
		case <-look.C:
		}
		if _, err := os.Stat(w.dir); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the workspace %s is gone", visible.Line(w.dir))
		}
		quiet, alone := w.quiet()
		if idle > 0 && quiet >= idle {
			w.evict(true)
			if alone {
				w.o.Log.Printf("nothing to do for %v", idle)
				return nil
			}
		}
	}
}

// lookEvery is how often the worker looks whether it is still needed.
const lookEvery = 2 * time.Second

// quiet is for how long the worker has had nothing to do, and whether no client follows its events.
func (w *worker) quiet() (d time.Duration, alone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil || w.chats > 0 || w.others > 0 {
		w.active = time.Now()
	}
	return time.Since(w.active), w.clients == 0
}

// end cancels everything and reports whether all has ended within the grace.
func (w *worker) end() bool {
	w.mu.Lock() // what has been counted by now is waited for, and the rest is refused
	w.stop()
	w.mu.Unlock()
	done := make(chan struct{})
	go func() {
		w.runs.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(grace):
		w.o.Log.Printf("the work did not end within %v; the next run goes on from what is on disk", grace)
		return false
	}
}

// publish tells everybody of an event.
func (w *worker) publish(e event.Event) {
	w.feed.publish(e, func(int64) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.state.apply(e)
	})
}

// warn tells everybody, and the log, what is odd.
func (w *worker) warn(text string) {
	w.o.Log.Print(visible.Line(text))
	w.publish(event.Event{Time: time.Now(), Kind: event.Warning, Text: text})
}

// touch notes that something is going on.
func (w *worker) touch() {
	w.mu.Lock()
	w.active = time.Now()
	w.mu.Unlock()
}

// run starts stages. It is an error while a run is at work, and where the configuration cannot be read.
func (w *worker) run(r client.RunRequest) error {
	workspace, err := w.open()
	if err != nil {
		return err
	}
	if err := workspace.CheckStages(r.Stages); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ctx.Err() != nil:
		return errEnding
	case w.cancel != nil:
		return errBusy
	}
	ctx, cancel := context.WithCancel(w.ctx)
	w.cancel = cancel
	w.runs.Go(func() {
		defer cancel()
		w.finish(w.work(ctx, workspace, r))
	})
	return nil
}

// errEnding is the answer of a worker that was asked to stop.
var errEnding = errors.New("the worker is ending; try again in a moment")

// errBusy is the answer to a second run.
var errBusy = errors.New("a run is at work here already; `quartet attach` follows it, and it must end or be cancelled first")

// work does a run and returns its last event. Before it, the models that chats have left are freed, so that the run has the memory.
func (w *worker) work(ctx context.Context, workspace *pipeline.Workspace, r client.RunRequest) event.Event {
	w.evict(true)
	open, leave := w.backend()
	defer leave()
	last := event.Event{Kind: event.RunDone}
	err := pipeline.Run(ctx, workspace, pipeline.Options{
		Stages: r.Stages, Force: r.Force, Source: w.o.Source, Uploader: w.o.Uploader, Lock: w.lock, Turn: &w.device.turn, Others: w.device.turn.handovers, Backend: open,
	}, func(e event.Event) {
		if e.Kind == event.RunDone {
			last = e
			return
		}
		w.publish(e)
	})
	w.evict(false)
	if err != nil {
		w.o.Log.Printf("run: %s", visible.Line(err.Error()))
	}
	if last.Time.IsZero() { // it failed before it began
		last.Time, last.Canceled = time.Now(), ctx.Err() != nil
		if err != nil {
			last.Text = err.Error()
		}
	}
	return last
}

// finish tells everybody of a run's end. Whoever hears of it can ask for the next run.
func (w *worker) finish(last event.Event) {
	w.feed.publish(last, func(int64) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.state.apply(last)
		w.cancel, w.active = nil, time.Now()
	})
}

// backend is the device for a run, as pipeline.Options wants it; leave gives it back after the run.
func (w *worker) backend() (open func(device string) (kernels.Backend, string, error), leave func()) {
	opened := false
	open = func(device string) (kernels.Backend, string, error) {
		b, note, err := w.device.use(device)
		opened = err == nil
		return b, note, err
	}
	return open, func() {
		if !opened {
			return
		}
		if err := w.device.leave(); err != nil {
			w.warn(err.Error())
		}
	}
}

// evict frees the models that no answer is using; without all, those of them whose files have changed.
func (w *worker) evict(all bool) {
	w.device.turn.Lock()
	defer w.device.turn.Unlock()
	if err := w.library.evict(all); err != nil {
		w.warn(err.Error())
	}
}

// cancelRun ends the run at work, if any.
func (w *worker) cancelRun() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		w.cancel()
	}
}

// open reads the workspace's configuration as it is now.
func (w *worker) open() (*pipeline.Workspace, error) { return pipeline.Open(w.dir) }

// info is who the worker is and what it does.
func (w *worker) info() client.Info {
	host, _ := os.Hostname()
	name := filepath.Base(w.dir)
	if workspace, err := w.open(); err == nil {
		name = workspace.Config.Model.Name
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return client.Info{
		Version: client.Version(), Workspace: w.dir, Name: name, Host: host, PID: os.Getpid(), Started: w.started, Device: w.gpu,
		Run: w.state.run, Stage: w.state.stage, Chats: w.chats, Clients: w.clients,
	}
}

// snapshot is the workspace's state in one piece.
func (w *worker) snapshot() (*client.Snapshot, error) {
	workspace, err := w.open()
	if err != nil {
		return nil, err
	}
	snap := &client.Snapshot{Info: w.info(), Sizes: map[string]int64{}}
	w.feed.mu.Lock()
	w.mu.Lock()
	snap.Seq = w.feed.seq
	w.state.into(snap)
	w.mu.Unlock()
	w.feed.mu.Unlock()
	if snap.Stages, err = pipeline.Predict(workspace, pipeline.Options{}); err != nil {
		return nil, err
	}
	now, err := pipeline.Status(workspace)
	if err != nil {
		return nil, err
	}
	for _, p := range now {
		snap.Sizes[p.Stage] = p.DiskBytes
	}
	if results, err := os.ReadFile(workspace.ResultsFile()); err == nil {
		snap.Results = &event.Event{Kind: event.Results, Stage: pipeline.Evaluate, Results: results}
	}
	return snap, nil
}

package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quartet/demo"
	"quartet/event"
	"quartet/pipeline"
	"quartet/worker/client"
)

// workspace is the demo's workspace with so many rows to train on, two epochs of them, and little to evaluate.
func workspace(t *testing.T, rows int) string {
	t.Helper()
	dir := t.TempDir()
	if err := demo.WriteWorkspace(dir); err != nil {
		t.Fatal(err)
	}
	set(t, dir, map[string]string{"num_samples": fmt.Sprint(rows), "held_out": "2", "max_new_tokens": "6", "save_strategy": `"steps"`, "save_steps": "2", "warmup_steps": "2"})
	return dir
}

// set changes settings of a workspace.
func set(t *testing.T, dir string, settings map[string]string) {
	t.Helper()
	path := filepath.Join(dir, "config.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range settings {
		line := regexp.MustCompile(`(?m)^` + key + ` = .*$`)
		if !line.Match(text) {
			t.Fatalf("config.toml has no %s", key)
		}
		text = line.ReplaceAll(text, []byte(key+" = "+value))
	}
	if err := os.WriteFile(path, text, 0o666); err != nil {
		t.Fatal(err)
	}
}

// served is a worker in this process.
type served struct {
	*client.Client
	log  *bytes.Buffer // complete once the worker has ended
	end  func() error  // ends the worker, and returns Serve's error
	done <-chan struct{}
}

func serve(t *testing.T, dir string) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var text bytes.Buffer
	var failed error
	done := make(chan struct{})
	go func() {
		weigh := func(_ context.Context, _ *pipeline.Workspace, parts []event.PlanPart) { parts[0].FetchBytes = 7 }
		failed = Serve(ctx, dir, Options{Log: log.New(&text, "", 0), Weigh: weigh})
		close(done)
	}()
	s := &served{log: &text, done: done, end: sync.OnceValue(func() error {
		cancel()
		<-done
		return failed
	})}
	t.Cleanup(func() { s.end() })
	for {
		c, err := client.Dial(dir)
		if err == nil {
			s.Client = c
			return s
		}
		select {
		case <-done:
			t.Fatalf("the worker ended: %v\n%s", failed, text.String())
		case <-time.After(5 * time.Millisecond):
		}
		if !errors.Is(err, client.ErrNone) {
			t.Fatal(err)
		}
	}
}

// until follows a worker's events after a number until one is as wanted, and returns them all.
func (s *served) until(t *testing.T, after int64, wanted func(event.Event) bool) (all []client.Numbered) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	found := errors.New("found")
	err := s.Events(ctx, after, func(n client.Numbered) error {
		all = append(all, n)
		if wanted(n.Event) {
			return found
		}
		return nil
	})
	if err != found {
		t.Fatalf("after %d events: %v", len(all), err)
	}
	return all
}

func kind(k event.Kind) func(event.Event) bool {
	return func(e event.Event) bool { return e.Kind == k }
}

func (s *served) mustRun(t *testing.T, r client.RunRequest) []client.Numbered {
	t.Helper()
	snap, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return s.until(t, snap.Seq, kind(event.RunDone))
}

// TestWorkspaceIsServed runs all stages for one client while another follows, and asks for everything that can be asked for.
func TestWorkspaceIsServed(t *testing.T) {
	dir := workspace(t, 24)
	s := serve(t, dir)
	other, err := client.Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	var second []client.Numbered
	followed := make(chan error)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		followed <- other.Events(ctx, 0, func(n client.Numbered) error {
			if n.Event.Kind != event.Clients {
				second = append(second, n)
			}
			if n.Event.Kind == event.RunDone {
				stop()
			}
			return nil
		})
	}()
	first := slices.DeleteFunc(s.mustRun(t, client.RunRequest{}), func(n client.Numbered) bool { return n.Event.Kind == event.Clients })
	if err := <-followed; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	a, _ := json.Marshal(first)
	b, _ := json.Marshal(second)
	if !bytes.Equal(a, b) {
		t.Errorf("two clients saw different events, %d and %d", len(first), len(second))
	}
	if last := first[len(first)-1].Event; last.Text != "" {
		t.Fatalf("the run failed: %s", last.Text)
	}
	snap, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range snap.Stages {
		if p.State != "fresh" || snap.Sizes[p.Stage] == 0 {
			t.Errorf("%s is %s, %d bytes", p.Stage, p.State, snap.Sizes[p.Stage])
		}
	}
	if len(snap.Curve) != 12 || snap.Results == nil || len(snap.Recent) < 10 || len(snap.Working) > 0 || snap.Info.Run != "" {
		t.Errorf("the snapshot has %d steps, results %v, %d recent events, at work %v, run %q", len(snap.Curve), snap.Results != nil, len(snap.Recent), snap.Working, snap.Info.Run)
	}
	if parts, err := s.Plan(t.Context(), client.RunRequest{Stages: []string{"lora"}, Force: true}); err != nil || !parts[2].Run || parts[1].Run {
		t.Errorf("plan %+v, %v", parts, err)
	}
	for _, weigh := range []bool{false, true} {
		if parts, err := s.Plan(t.Context(), client.RunRequest{Weigh: weigh}); err != nil || (parts[0].FetchBytes == 7) != weigh {
			t.Errorf("weighed %v: %+v, %v", weigh, parts, err)
		}
	}
	text := map[string]string{}
	ends := map[string]string{}
	if err := s.Chat(t.Context(), client.ChatRequest{Prompt: "What kind of animal is a bee?", Race: true}, func(e client.ChatEvent) {
		text[e.Variant] += e.Text
		ends[e.Variant] = e.State + e.Reason
		if e.State == "done" && (e.Timing == nil || e.Timing.Tokens != 6 || e.Timing.TTFT <= 0 || e.Timing.MemoryBytes < 1e6 || !e.Timing.Shared) {
			t.Errorf("%s: %+v", e.Variant, e.Timing)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if len(ends) != 4 {
		t.Errorf("%d answers", len(ends))
	}
	for variant, end := range ends {
		if end != "done" || text[variant] == "" {
			t.Errorf("%s: %s, %q", variant, end, text[variant])
		}
	}
	one := ""
	if err := s.Chat(t.Context(), client.ChatRequest{Prompt: "What kind of animal is a bee?", Variants: []string{"lora"}}, func(e client.ChatEvent) { one += e.Text }); err != nil || one != text["lora"] {
		t.Errorf("%v: alone lora says %q, in the race %q", err, one, text["lora"])
	}
	progress := 0
	results, err := s.Measure(t.Context(), []string{"quantized"}, func(event.Event) { progress++ })
	var measured struct{ Variants []struct{ Name string } }
	if err != nil || json.Unmarshal(results, &measured) != nil || len(measured.Variants) != 2 || progress == 0 {
		t.Errorf("measured %v after %d reports, %v", measured, progress, err)
	}
	if written, err := s.Report(t.Context(), true); err != nil || len(written) != 2 {
		t.Errorf("report %v, %v", written, err)
	}
	for _, c := range []struct {
		what string
		err  error
		want string
	}{
		{"stage", s.Run(t.Context(), client.RunRequest{Stages: []string{"loar"}}), `no stage "loar"`},
		{"variant", s.Chat(t.Context(), client.ChatRequest{Prompt: "a", Variants: []string{"loar"}}, func(client.ChatEvent) {}), `no variant "loar"`},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, c.err)
		}
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if _, err := client.Dial(dir); !errors.Is(err, client.ErrNone) {
		t.Errorf("after the end: %v", err)
	}

	s = serve(t, dir) // a new worker knows all of it
	again, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(again.Curve) != 12 || again.Results == nil || len(again.Recent) != len(snap.Recent) {
		t.Errorf("a new worker knows %d steps, results %v, %d recent events", len(again.Curve), again.Results != nil, len(again.Recent))
	}
}

// TestOnlyOneWorker tries what must not be two: workers, runs, and a run beside a worker. A dead worker's socket is no hindrance.
func TestOnlyOneWorker(t *testing.T) {
	dir := workspace(t, 400)
	path, err := client.Socket(dir)
	if err != nil {
		t.Fatal(err)
	}
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	if _, err := client.Dial(dir); !errors.Is(err, client.ErrNone) {
		t.Errorf("a dead worker's socket: %v", err)
	}
	s := serve(t, dir)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	host, _ := os.Hostname()
	err = Serve(t.Context(), dir, Options{Log: log.Default()})
	if want := fmt.Sprintf("a worker holds it, process %d on %s, since ", os.Getpid(), host); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a second worker: %v", err)
	}
	if err := s.Run(t.Context(), client.RunRequest{}); err != nil {
		t.Fatal(err)
	}
	s.until(t, 0, kind(event.TrainStep))
	if err := s.Run(t.Context(), client.RunRequest{}); err == nil || !strings.Contains(err.Error(), "at work here already") {
		t.Errorf("a second run: %v", err)
	}
	if snap, err := s.Snapshot(t.Context()); err != nil || snap.Info.Run == "" || snap.Info.Stage != "lora" || snap.Stages[2].State != "running" || len(snap.Working) == 0 {
		t.Errorf("a snapshot of the run: %+v, %v", snap, err)
	}
	w, err := pipeline.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := pipeline.Run(t.Context(), w, pipeline.Options{}, func(event.Event) {}); !errors.As(err, &pipeline.Locked{}) {
		t.Errorf("a run beside the worker: %v", err)
	}
	started := time.Now()
	if err := s.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := s.until(t, 0, kind(event.RunDone))
	if took := time.Since(started); took > time.Second {
		t.Errorf("cancelling took %v", took)
	}
	if last := all[len(all)-1].Event; !last.Canceled {
		t.Errorf("the run's end: %+v", last)
	}
	parts, err := s.Plan(t.Context(), client.RunRequest{})
	if err != nil || parts[2].State != "interrupted" || !strings.HasPrefix(parts[2].Reason, "goes on from step ") {
		t.Errorf("after cancelling: %+v, %v", parts, err)
	}
}

// TestChatWhileTraining asks while the demo trains: the first token comes soon, and the training's adapter stays the same to the bit.
func TestChatWhileTraining(t *testing.T) {
	adapter := func(dir string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, "models/phi-tiny-lora/adapter_model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	alone := workspace(t, 60)
	serve(t, alone).mustRun(t, client.RunRequest{Stages: []string{"lora"}})

	dir := workspace(t, 60)
	s := serve(t, dir)
	if err := s.Run(t.Context(), client.RunRequest{Stages: []string{"lora"}}); err != nil {
		t.Fatal(err)
	}
	s.until(t, 0, kind(event.TrainStep))
	asked := time.Now()
	var first time.Duration
	shared := false
	if err := s.Chat(t.Context(), client.ChatRequest{Prompt: "Hello", Variants: []string{"base"}}, func(e client.ChatEvent) {
		if e.Text != "" && first == 0 {
			first = time.Since(asked)
		}
		shared = shared || e.Timing != nil && e.Timing.Shared
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("the first token came after %v", first)
	if first == 0 || first > 2*time.Second {
		t.Errorf("the first token came after %v; the bar is 2 s", first)
	}
	if !shared {
		t.Error("the timings don't say that a training ran meanwhile")
	}
	s.until(t, 0, kind(event.RunDone))
	if !bytes.Equal(adapter(dir), adapter(alone)) {
		t.Error("the adapter differs from one that was trained without chat")
	}
}

// TestModelsAreReloaded answers with an adapter, trains another in its place, and answers with that.
func TestModelsAreReloaded(t *testing.T) {
	dir := workspace(t, 24)
	s := serve(t, dir)
	answer := func() (text string) {
		if err := s.Chat(t.Context(), client.ChatRequest{Prompt: "What kind of animal is a bee?", Variants: []string{"lora"}}, func(e client.ChatEvent) {
			text += e.Text + e.Reason
		}); err != nil {
			t.Fatal(err)
		}
		return text
	}
	s.mustRun(t, client.RunRequest{Stages: []string{"base"}})
	if got := answer(); got != "phi-tiny-lora is not there yet; run the stage that makes it" {
		t.Errorf("without an adapter: %q", got)
	}
	s.mustRun(t, client.RunRequest{Stages: []string{"lora"}})
	before := answer()
	set(t, dir, map[string]string{"learning_rate": "5e-2", "num_epochs": "3"})
	s.mustRun(t, client.RunRequest{Stages: []string{"lora"}})
	if after := answer(); after == before || after == "" {
		t.Errorf("%q before and %q after a training that changed everything", before, after)
	}
}

func TestIdleWorkerEnds(t *testing.T) {
	w := &worker{o: Options{Log: log.New(&bytes.Buffer{}, "", 0)}, dir: t.TempDir(), active: time.Now().Add(-time.Hour)}
	w.library = newLibrary(&w.device)
	w.ctx, w.stop = context.WithCancel(t.Context())
	defer w.stop()
	w.clients = 1
	ended := make(chan error, 1)
	go func() { ended <- w.wait(nil, time.Minute, time.Millisecond) }()
	select {
	case err := <-ended:
		t.Fatalf("it ended under a client's eyes: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	w.mu.Lock()
	w.clients = 0
	w.mu.Unlock()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	gone := &worker{o: w.o, dir: filepath.Join(w.dir, "gone"), active: time.Now(), ctx: w.ctx}
	if err := gone.wait(nil, 0, time.Millisecond); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("a workspace that was removed: %v", err)
	}
}

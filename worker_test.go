package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"quartet/event"
	"quartet/pipeline"
	"quartet/worker/client"
)

// adapter is the artefact that a training makes.
const adapter = "models/phi-tiny-lora/adapter_model.safetensors"

// undisturbed is the adapter of a run of the lora stage in which nothing happens, with so many rows and epochs.
func undisturbed(t *testing.T, quartet string, settings map[string]string) []byte {
	t.Helper()
	dir := smallWorkspace(t)
	set(t, dir, settings)
	if out, err := exec.Command(quartet, "run", "lora", "--foreground", "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return readAdapter(t, dir)
}

func readAdapter(t *testing.T, dir string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, adapter))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// dial asks the worker of a workspace, which is another version than the test's own program. The worker is stopped in the end.
func dial(t *testing.T, dir string) *client.Client {
	t.Helper()
	c, err := client.Dial(dir)
	if err != nil && !errors.As(err, new(client.Mismatch)) {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c, err := client.Dial(dir); !errors.Is(err, client.ErrNone) && c != nil {
			c.Stop(context.Background())
		}
	})
	return c
}

func info(t *testing.T, c *client.Client) *client.Info {
	t.Helper()
	i, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// finished waits until the worker's first run has ended.
func finished(t *testing.T, c *client.Client) {
	t.Helper()
	await(t, c, func(e event.Event) bool { return e.Kind == event.RunDone })
}

// await waits for the first event of a worker that is as wanted.
func await(t *testing.T, c *client.Client, wanted func(event.Event) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	found := errors.New("found")
	if err := c.Events(ctx, 0, func(n client.Numbered) error {
		if wanted(n.Event) {
			return found
		}
		return nil
	}); err != found {
		t.Fatal(err)
	}
}

// trained are the steps of training in a workspace's journal, in order, one slice for each run.
func trained(t *testing.T, dir string) (runs [][]int) {
	t.Helper()
	w, err := pipeline.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := event.ReadJournal(w.JournalDir(), func(e event.Event) bool {
		switch {
		case e.Kind == event.Plan:
			runs = append(runs, nil)
		case e.Kind == event.TrainStep:
			runs[len(runs)-1] = append(runs[len(runs)-1], e.Train.Step)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return runs
}

// TestWorkerKilled kills the worker in the middle of a training that was begun in the workbench: the workbench says so within a second and
// offers to resume; its key starts a worker over the dead one's lock and socket, and the training goes on to the adapter of
// an undisturbed run.
func TestWorkerKilled(t *testing.T) {
	quartet := program(t)
	settings := map[string]string{"num_samples": "100"}
	want := undisturbed(t, quartet, settings)
	dir := smallWorkspace(t)
	set(t, dir, settings)

	bench := onPTY(t, nil, quartet, "workbench", "-C", dir)
	bench.shows(t, "idle", 20*time.Second)
	c := dial(t, dir)
	lost := make(chan time.Time, 1)
	sawStep := make(chan struct{})
	go func() {
		steps := 0
		err := c.Events(t.Context(), 0, func(n client.Numbered) error {
			if n.Event.Kind == event.TrainStep {
				if steps++; steps == 8 {
					close(sawStep)
				}
			}
			return nil
		})
		if !errors.Is(err, client.ErrLost) {
			t.Errorf("the stream of events ended with %v", err)
		}
		lost <- time.Now()
	}()
	bench.press(t, "a")
	select {
	case <-sawStep:
	case <-time.After(30 * time.Second):
		t.Fatal("no training began")
	}
	dead := info(t, c)
	if err := syscall.Kill(dead.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	bench.shows(t, "no worker", time.Second)
	told := (<-lost).Sub(killed)
	t.Logf("told after %v, on the screen after %v", told, time.Since(killed))
	if told > time.Second {
		t.Errorf("a client is told after %v; the bar is 1 s", told)
	}
	bench.shows(t, "resumes", time.Second)
	bench.shows(t, "the worker has gone; training goes on from", time.Second)
	path, err := client.Socket(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{path, filepath.Join(dir, ".quartet", "lock")} {
		if _, err := os.Lstat(left); err != nil {
			t.Errorf("the dead worker's %v should lie in the way", err)
		}
	}
	bench.press(t, "w")
	bench.shows(t, "runs lora", 20*time.Second)
	c = dial(t, dir)
	if i := info(t, c); i.PID == dead.PID {
		t.Errorf("the new worker is %+v", i)
	}
	finished(t, c)
	if !bytes.Equal(readAdapter(t, dir), want) {
		t.Error("the adapter differs from an undisturbed run's")
	}
	runs := trained(t, dir)
	if len(runs) != 2 || len(runs[0]) < 8 || runs[1][0] < 2 || runs[1][0] > runs[0][len(runs[0])-1]+1 || runs[1][len(runs[1])-1] != 25 {
		t.Errorf("the runs trained the steps %v", runs)
	}
}

// TestClientsKilled kills the clients of a training one after another, at random moments and on terminals of their own,
// the one that began it first. The worker stays the same process, no step is lost or done twice, and the adapter is that of an undisturbed run. QUARTET_KILLS
// says how many are killed.
func TestClientsKilled(t *testing.T) {
	kills, settings := 6, map[string]string{"num_samples": "200"}
	if n, err := strconv.Atoi(os.Getenv("QUARTET_KILLS")); err == nil {
		kills, settings = n, map[string]string{"num_samples": "400", "num_epochs": strconv.Itoa(2 + n/15)}
	}
	quartet := program(t)
	began := time.Now()
	want := undisturbed(t, quartet, settings)
	pause := time.Since(began) / time.Duration(kills+6) // so that all fall into the training, also where it is faster than before
	dir := smallWorkspace(t)
	set(t, dir, settings)
	ways := [][]string{{"workbench"}, {"attach"}, {"attach", "--json"}}

	x := onPTY(t, nil, quartet, "run", "lora", "-C", dir)
	x.shows(t, "goes on when this terminal closes", 20*time.Second)
	c := dial(t, dir)
	await(t, c, func(e event.Event) bool { return e.Kind == event.StageStarted && e.Stage == "lora" })
	first := info(t, c)
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	count := map[string]int{}
	for i := range kills {
		if i > 0 {
			x = onPTY(t, nil, quartet, append(ways[i/len(killings)%len(ways)], "-C", dir)...)
		}
		time.Sleep(time.Duration(random.Int64N(int64(pause))))
		if now := info(t, c); now.Stage != "lora" || now.PID != first.PID {
			t.Fatalf("before kill %d of %d the worker is %+v; give the training more epochs", i+1, kills, now)
		}
		how := killings[i%len(killings)]
		if err := how.do(x); err != nil {
			t.Fatal(err)
		}
		count[how.name]++
		ended := make(chan struct{})
		go func() {
			x.end()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatalf("quartet %v still runs 10 s after %s", x.cmd.Args[1:], how.name)
		}
		x.tty.Close()
	}
	again := onPTY(t, nil, quartet, "workbench", "-C", dir)
	took := again.shows(t, "average", 10*time.Second) // of all losses so far
	snap, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	step := 0
	if len(snap.Curve) > 0 {
		step = snap.Curve[len(snap.Curve)-1].Step
	}
	again.press(t, "q")
	if err := again.end(); err != nil {
		t.Errorf("the workbench ended with %v", err)
	}
	finished(t, c)
	now := info(t, c)
	for deadline := time.Now().Add(5 * time.Second); now.Clients > 0 && time.Now().Before(deadline); now = info(t, c) {
		time.Sleep(5 * time.Millisecond) // it notices that the last stream has ended
	}
	if now.PID != first.PID || now.Clients != 0 {
		t.Errorf("in the end the worker is %+v", now)
	}
	runs := trained(t, dir)
	if len(runs) != 1 {
		t.Fatalf("%d runs", len(runs))
	}
	for i, s := range runs[0] {
		if s != i+1 {
			t.Fatalf("step %d stands where step %d should", s, i+1)
		}
	}
	if !bytes.Equal(readAdapter(t, dir), want) {
		t.Error("the adapter differs from an undisturbed run's")
	}
	t.Logf("%d kills %v, the last after step %d of %d; no step lost, the adapter is identical; a new workbench shows the history after %v", kills, count, step, len(runs[0]), took)
}

// TestSlowTerminals has three workbenches look on while the demo trains: one on a terminal that reads all, one on a line of 2 kB a second, and one
// that reads nothing. The training takes as long as alone, the worker's memory stays, and in the end all show the same.
func TestSlowTerminals(t *testing.T) {
	quartet := program(t)
	settings := map[string]string{"num_samples": "200"}
	alone := smallWorkspace(t)
	set(t, alone, settings)
	if out, err := exec.Command(quartet, "run", "lora", "--detach", "-C", alone).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := dial(t, alone)
	finished(t, c)
	want, peakAlone := readAdapter(t, alone), peak(t, info(t, c).PID)
	c.Stop(t.Context())

	dir := smallWorkspace(t)
	set(t, dir, settings)
	quick := onPTY(t, nil, quartet, "workbench", "-C", dir)
	quick.shows(t, "idle", 20*time.Second)
	c = dial(t, dir)
	over := make(chan struct{}) // the lines are as fast as any
	paced := func(f *os.File, piece []byte) (int, error) {
		select {
		case <-over:
			return f.Read(piece)
		case <-time.After(50 * time.Millisecond):
			return f.Read(piece[:100])
		}
	}
	deaf := func(f *os.File, piece []byte) (int, error) {
		<-over
		return f.Read(piece)
	}
	slow, stuck := onPTY(t, paced, quartet, "workbench", "-C", dir), onPTY(t, deaf, quartet, "workbench", "-C", dir)
	for deadline := time.Now().Add(20 * time.Second); info(t, c).Clients < 3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("only %d of three workbenches came", info(t, c).Clients)
		}
	}
	if err := c.Run(t.Context(), client.RunRequest{Stages: []string{"lora"}}); err != nil {
		t.Fatal(err)
	}
	finished(t, c)
	if !bytes.Equal(readAdapter(t, dir), want) {
		t.Error("the adapter differs from the one of a training that nobody looked at")
	}
	slowed, grown := float64(lasted(t, dir))/float64(lasted(t, alone)), peak(t, info(t, c).PID)-peakAlone
	t.Logf("three workbenches, one of 2 kB/s and one that reads nothing: training took %.2f times as long as alone, the worker's peak is %d kB above", slowed, grown/1000)
	if slowed > 3 {
		t.Errorf("the training took %.1f times as long as alone", slowed)
	}
	if grown > 32<<20 {
		t.Errorf("the worker's memory grew by %d bytes", grown)
	}
	held := peak(t, stuck.cmd.Process.Pid) - peak(t, quick.cmd.Process.Pid)
	if held > 16<<20 {
		t.Errorf("the workbench that cannot write holds %d bytes more than the one that can", held)
	}
	close(over)
	for name, x := range map[string]*terminal{"quick": quick, "slow": slow, "stuck": stuck} {
		took := x.shows(t, "step 50/50", 10*time.Second)
		x.shows(t, "idle", 10*time.Second)
		t.Logf("the %s one shows the end after %v", name, took)
	}
}

// lasted is the time from the first step of a workspace's training to its last.
func lasted(t *testing.T, dir string) time.Duration {
	t.Helper()
	w, err := pipeline.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var first, last time.Time
	if err := event.ReadJournal(w.JournalDir(), func(e event.Event) bool {
		if e.Kind == event.TrainStep {
			if first.IsZero() {
				first = e.Time
			}
			last = e.Time
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return last.Sub(first)
}

// peak is the most memory that a process has held, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kib int64
	if _, rest, ok := strings.Cut(string(text), "VmHWM:"); !ok {
		t.Fatalf("no VmHWM in %s", text)
	} else if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// TestStopLeavesNothing stops a worker that trains and answers. Its process, with its memory, and every other one of its session
// are gone within five seconds, the training's checkpoint is kept, and the workspace is free.
func TestStopLeavesNothing(t *testing.T) {
	quartet := program(t)
	dir := smallWorkspace(t)
	set(t, dir, map[string]string{"num_samples": "400", "num_epochs": "20", "max_new_tokens": "400"})
	if out, err := exec.Command(quartet, "run", "lora", "--detach", "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := dial(t, dir)
	await(t, c, func(e event.Event) bool { return e.Kind == event.TrainStep && e.Train.Step >= 4 })
	asked, answered := time.Now(), make(chan struct{})
	ended := make(chan error, 1)
	var first time.Duration
	go func() {
		ended <- c.Chat(t.Context(), client.ChatRequest{Prompt: "What kind of animal is a bee?", Variants: []string{"base"},
			Sampling: &client.Sampling{Temperature: 1, TopP: 1, RepetitionPenalty: 1, MaxNewTokens: 400, Seed: 1}}, func(e client.ChatEvent) {
			if e.Text != "" && first == 0 {
				first = time.Since(asked)
				close(answered)
			}
		})
	}()
	select {
	case <-answered:
	case <-time.After(20 * time.Second):
		t.Fatal("no answer while training runs")
	}
	if first > 2*time.Second {
		t.Errorf("the first token came after %v; the bar is 2 s", first)
	}
	worker := info(t, c)
	began := time.Now()
	if out, err := exec.Command(quartet, "stop", "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	took := time.Since(began)
	t.Logf("the first token of a chat came after %v; stopping took %v", first, took)
	if took > 5*time.Second {
		t.Errorf("stopping took %v; the bar is 5 s", took)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range processes {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if state, session := fields[0], fields[3]; session == strconv.Itoa(worker.PID) && state != "Z" {
			t.Errorf("a process of the worker's session is left: %s", text)
		}
	}
	<-ended
	if path, err := client.Socket(dir); err != nil {
		t.Error(err)
	} else if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	w, err := pipeline.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := w.Lock()
	if err != nil {
		t.Fatal(err)
	}
	lock.Release()
	out, err := exec.Command(quartet, "plan", "lora", "-C", dir).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "goes on from step ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestOneWorkerForAll has four clients begin at once: one worker comes up, one run begins, and the others are told of it. A second worker is refused with
// the first one's identity.
func TestOneWorkerForAll(t *testing.T) {
	quartet := program(t)
	dir := smallWorkspace(t)
	set(t, dir, map[string]string{"num_samples": "400", "num_epochs": "20"})
	said := make(chan string)
	for range 4 {
		go func() {
			out, _ := exec.Command(quartet, "run", "lora", "--detach", "-C", dir).CombinedOutput()
			said <- string(out)
		}()
	}
	begun := 0
	for range 4 {
		switch out := <-said; {
		case strings.HasPrefix(out, "the worker has begun"):
			begun++
		case !strings.Contains(out, "a run is at work here already"):
			t.Errorf("one of the others is told %q", out)
		}
	}
	if begun != 1 {
		t.Errorf("%d runs began", begun)
	}
	first := info(t, dial(t, dir))
	out, err := exec.Command(quartet, "worker", "-C", dir).CombinedOutput()
	want := fmt.Sprintf("process %d on %s, since %s", first.PID, first.Host, first.Started.Local().Format("2006-01-02 15:04"))
	if err == nil || !strings.Contains(string(out), want) || bytes.Count(out, []byte("\n")) != 1 {
		t.Errorf("a second worker: %v, %q, want %q", err, out, want)
	}
	if now := info(t, dial(t, dir)); now.PID != first.PID {
		t.Errorf("process %d serves in place of %d", now.PID, first.PID)
	}
}

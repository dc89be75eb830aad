package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// idle waits until the run at work has ended.
func idle(t *testing.T, c *client.Client, patience time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(patience); info(t, c).Run != ""; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the run did not end within %v", patience)
		}
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
	idle(t, c, time.Minute)
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
	kills, settings := 6, map[string]string{"num_samples": "200", "num_epochs": "1"}
	if n, err := strconv.Atoi(os.Getenv("QUARTET_KILLS")); err == nil {
		kills, settings = n, map[string]string{"num_samples": "400", "num_epochs": strconv.Itoa(2 + n/8)}
	}
	quartet := program(t)
	want := undisturbed(t, quartet, settings)
	dir := smallWorkspace(t)
	set(t, dir, settings)
	ways := [][]string{{"workbench"}, {"attach"}, {"attach", "--json"}}

	x := onPTY(t, nil, quartet, "run", "lora", "-C", dir)
	x.shows(t, "goes on when this terminal closes", 20*time.Second)
	c := dial(t, dir)
	for deadline := time.Now().Add(20 * time.Second); info(t, c).Stage != "lora"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no training began")
		}
	}
	first := info(t, c)
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	count := map[string]int{}
	for i := range kills {
		if i > 0 {
			x = onPTY(t, nil, quartet, append(ways[i/len(killings)%len(ways)], "-C", dir)...)
		}
		time.Sleep(time.Duration(random.IntN(150)) * time.Millisecond)
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
	step := 0
	if snap, err := c.Snapshot(t.Context()); err == nil && len(snap.Curve) > 0 {
		step = snap.Curve[len(snap.Curve)-1].Step
	}
	if now := info(t, c); now.Stage != "lora" {
		t.Fatalf("the training ended before the last kill; give it more epochs")
	}
	idle(t, c, 2*time.Minute)
	if now := info(t, c); now.PID != first.PID || now.Clients != 0 {
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
	t.Logf("%d kills %v, the last after step %d of %d; no step lost, the adapter is identical", kills, count, step, len(runs[0]))
}

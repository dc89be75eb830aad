package worker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"quartet/event"
	"quartet/worker/client"
)

// TestTurnIsFair holds the turn, lets others queue, and hands it round.
func TestTurnIsFair(t *testing.T) {
	var all turn
	all.Lock()
	var mu sync.Mutex
	var got []int
	var wait sync.WaitGroup
	for i := range 10 {
		wait.Go(func() {
			all.Lock()
			defer all.Unlock()
			mu.Lock()
			got = append(got, i)
			mu.Unlock()
		})
		for queued := 0; queued <= i; runtime.Gosched() {
			all.mu.Lock()
			queued = len(all.waiting)
			all.mu.Unlock()
		}
	}
	all.Unlock()
	wait.Wait()
	if !reflect.DeepEqual(got, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
		t.Errorf("the turns came as %v", got)
	}
}

func step(n int) event.Event {
	return event.Event{Kind: event.TrainStep, Stage: "lora", Train: &event.TrainPart{Step: n, Steps: 1 << 20, Loss: 1}}
}

func TestFeedKeepsWhatMustBeDelivered(t *testing.T) {
	f := newFeed()
	for i := range 10_000 {
		f.publish(step(i+1), func(int64) {})
		if i%20 == 0 {
			f.publish(event.Event{Kind: event.Warning, Text: fmt.Sprint(i)}, func(int64) {})
		}
	}
	events, _, _, err := f.after(0)
	if err != nil {
		t.Fatal(err)
	}
	warnings, last := 0, int64(0)
	for _, n := range events {
		if n.Seq <= last {
			t.Fatalf("%d after %d", n.Seq, last)
		}
		last = n.Seq
		if n.Event.Kind == event.Warning {
			warnings++
		}
	}
	if warnings != 500 || len(events)-warnings != catchUp || last != 10_500 {
		t.Errorf("%d warnings, %d steps, the last number %d", warnings, len(events)-warnings, last)
	}
	for range 2 * lastingEvents {
		f.publish(event.Event{Kind: event.Log}, func(int64) {})
	}
	if _, _, _, err := f.after(0); err != errBehind {
		t.Errorf("a client that missed warnings: %v", err)
	}
	if len(f.lasting) > lastingEvents || len(f.passing) > passingEvents {
		t.Errorf("it holds %d and %d events", len(f.lasting), len(f.passing))
	}
}

// TestSlowClients has clients that read 2 kB/s, or nothing, beside one that reads all: publishing never waits, memory stays
// bounded, and the slow one gets what is new.
func TestSlowClients(t *testing.T) {
	w := &worker{feed: newFeed(), state: newState()}
	path := filepath.Join(t.TempDir(), "s")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /events", w.events)
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	defer server.Close()
	connect := func() net.Conn {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "GET /events?after=0 HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n")
		return c
	}
	const clients = 20
	for range clients - 2 {
		connect() // never reads
	}
	slow, quick := connect(), connect()
	got := make(chan []byte)
	go func() {
		data, _ := io.ReadAll(quick)
		got <- data
	}()
	for w.following() < clients {
		runtime.Gosched()
	}
	const steps = 200_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	started := time.Now()
	longest := time.Duration(0)
	for i := range steps {
		at := time.Now()
		w.publish(step(i + 1))
		longest = max(longest, time.Since(at))
	}
	took := time.Since(started)
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d events in %v, the longest in %v, %d kB more memory", steps, took, longest, grown/1000)
	if grown > 24<<20 {
		t.Errorf("the memory grew by %d bytes", grown)
	}
	if took > 20*time.Second {
		t.Errorf("publishing took %v", took)
	}
	w.publish(event.Event{Kind: event.StageDone, Stage: "lora"})
	w.feed.end()

	var read []byte
	for !bytes.Contains(read, []byte(`"stage_done"`)) { // the rest of the line may be slow
		piece := make([]byte, 2000)
		n, err := slow.Read(piece)
		if err != nil {
			t.Fatalf("the slow client lost its stream: %v", err)
		}
		read = append(read, piece[:n]...)
	}
	if n := bytes.Count(read, []byte("\n")); n > 3000 {
		t.Errorf("the slow client had to read %d lines", n)
	}
	if data := <-got; !bytes.Contains(data, []byte(`"stage_done"`)) || !bytes.Contains(data, []byte(fmt.Sprintf(`"step":%d,`, steps))) {
		t.Error("the quick client missed the end")
	}
}

func (w *worker) following() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clients
}

// TestCurve takes more steps than are kept, a resumed training, and a new one.
func TestCurve(t *testing.T) {
	s := newState()
	for i := range 100_000 {
		s.apply(step(i + 1))
	}
	if len(s.curve) > curvePoints || len(s.curve) < curvePoints/2 || s.curve[0].Step != 1 {
		t.Errorf("%d points from step %d", len(s.curve), s.curve[0].Step)
	}
	s = newState()
	for i := range 60 {
		s.apply(step(i + 1))
	}
	for i := 50; i < 70; i++ { // as after a kill and a checkpoint at 50
		s.apply(step(i + 1))
	}
	for i, p := range s.curve {
		if p.Step != i+1 {
			t.Fatalf("point %d is of step %d", i, p.Step)
		}
	}
	if len(s.curve) != 70 {
		t.Errorf("%d points", len(s.curve))
	}
	s.apply(step(1))
	if len(s.curve) != 1 {
		t.Errorf("%d points at the beginning of another training", len(s.curve))
	}
}

// TestStreamJoinsWhatWaits adds an answer of many pieces that nobody reads.
func TestStreamJoinsWhatWaits(t *testing.T) {
	s := newStream(joinAnswers)
	for range 1000 {
		for _, v := range []string{"base", "lora"} {
			s.add(client.ChatEvent{Variant: v, State: "decoding", Text: "é"})
		}
	}
	s.add(client.ChatEvent{Variant: "base", State: "done", Timing: &client.ChatTiming{Tokens: 1000}})
	if len(s.waiting) != 3 || s.waiting[0].Text != strings.Repeat("é", 1000) || s.waiting[2].State != "done" {
		text, _ := json.Marshal(s.waiting)
		t.Errorf("%.300s", text)
	}
}

func TestShortLives(t *testing.T) {
	inSession := "0::/user.slice/user-1000.slice/session-3.scope\n"
	for _, c := range []struct {
		name string
		s    surroundings
		want string
	}{
		{"plain", surroundings{cgroup: inSession}, ""},
		{"default spelled out", surroundings{cgroup: inSession, logind: "#KillUserProcesses=yes\nKillUserProcesses=no\n"}, ""},
		{"kills", surroundings{cgroup: inSession, logind: "[Login]\nKillUserProcesses=yes\n"}, "loginctl enable-linger"},
		{"kills, by the last file", surroundings{cgroup: inSession, logind: "KillUserProcesses=no\n KillUserProcesses = True\n"}, "loginctl enable-linger"},
		{"lingers", surroundings{cgroup: inSession, logind: "KillUserProcesses=yes\n", linger: true}, ""},
		{"a service", surroundings{cgroup: "0::/user.slice/user-1000.slice/user@1000.service/run-u7.service\n", logind: "KillUserProcesses=yes\n"}, ""},
		{"a job", surroundings{job: "77"}, "Slurm job 77"},
	} {
		got := strings.Join(c.s.warnings(), "\n")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

package worker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"quartet/event"
	"quartet/worker/client"
)

// heap is what the process holds after a collection.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestBehindClientsBeginAnew has a client that stops reading while far more is told than the worker holds. It is told so, and a
// snapshot brings it to where one is that read everything.
func TestBehindClientsBeginAnew(t *testing.T) {
	dir := workspace(t, 24)
	w := &worker{dir: dir, feed: newFeed(), state: newState()}
	path, err := client.Socket(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: w.routes()}
	go server.Serve(l)
	defer server.Close()
	slow, err := client.Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	quick, err := client.Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	stopped, goOn, behind := make(chan struct{}), make(chan struct{}), make(chan error)
	seen := 0
	go func() {
		behind <- slow.Events(t.Context(), 0, func(client.Numbered) error {
			if seen++; seen == 1 {
				close(stopped)
				<-goOn
			}
			return nil
		})
	}()
	<-stopped
	const events = 20_000
	text := strings.Repeat("x", 200)
	before := heap()
	for i := range events {
		w.publish(event.Event{Kind: event.Warning, Run: "r", Text: fmt.Sprint(i, text)})
		w.publish(step(i + 1))
	}
	grown := heap() - before
	t.Logf("%d events of 5 MB in all for a client that reads nothing: %d kB more memory", 2*events, grown/1000)
	if grown > 4<<20 {
		t.Errorf("the memory grew by %d bytes", grown)
	}
	close(goOn)
	if err := <-behind; !errors.Is(err, client.ErrBehind) {
		t.Fatalf("after %d events: %v", seen, err)
	}
	if seen > events/4 {
		t.Errorf("the slow client was made to read %d events", seen)
	}
	var states [2][]byte
	for i, c := range []*client.Client{slow, quick} {
		snap, err := c.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if last := snap.Recent[len(snap.Recent)-1]; last.Text != fmt.Sprint(events-1, text) {
			t.Errorf("the newest that is remembered is %.20q", last.Text)
		}
		states[i], _ = json.Marshal([]any{snap.Curve, snap.Recent, snap.Working, snap.Memory, snap.Sizes})
	}
	if !bytes.Equal(states[0], states[1]) {
		t.Error("two clients are shown different states")
	}
}

// TestAnswersOfASlowReader streams a long answer to clients that read 2 kB a second, and nothing. Whoever answers is not held up, the memory
// is the text's, and in the end the text is whole.
func TestAnswersOfASlowReader(t *testing.T) {
	const pieces = 100_000
	l, err := listen(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	took := make(chan time.Duration, 2)
	var waiting [2]*stream[client.ChatEvent]
	var n int
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
		s := newStream(joinAnswers)
		waiting[n] = s
		n++
		sent := make(chan error, 1)
		go func() { sent <- s.send(rw) }()
		started := time.Now()
		for i := range pieces {
			s.add(client.ChatEvent{Variant: []string{"base", "lora"}[i%2], State: "decoding", Text: string(rune('a' + i/2%26))})
		}
		s.end()
		took <- time.Since(started)
		<-sent
	})}
	go server.Serve(l)
	defer server.Close()
	before := heap()
	var conns [2]net.Conn
	for i := range conns {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
		fmt.Fprintf(c, "POST /chat HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n")
		if i == 0 {
			piece := make([]byte, 200)
			for range 5 { // 2 kB/s
				if _, err := io.ReadFull(c, piece); err != nil {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond)
			}
		}
		if d := <-took; d > 30*time.Second { // 2 s with two free cores; hours, if the reader held it up
			t.Errorf("answering took %v", d)
		} else {
			t.Logf("%d pieces in %v", pieces, d)
		}
	}
	if grown := heap() - before; grown > 2<<20 {
		t.Errorf("the memory grew by %d bytes", grown)
	}
	for _, s := range waiting {
		s.mu.Lock()
		if len(s.waiting) > 2 {
			t.Errorf("%d pieces wait", len(s.waiting))
		}
		s.mu.Unlock()
	}
	answer, err := http.ReadResponse(bufio.NewReader(conns[1]), nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := map[string]string{}
	for line := range bytes.Lines(data) {
		var e client.ChatEvent
		if json.Unmarshal(line, &e) == nil {
			text[e.Variant] += e.Text
		}
	}
	if text["base"] != text["lora"] || len(text["base"]) != pieces/2 {
		t.Errorf("the answers arrived with %d and %d characters of %d", len(text["base"]), len(text["lora"]), pieces/2)
	}
}

// TestDeafClientsDontHoldTheEndUp asks for answers and for an evaluation while the demo trains, reads none of it, and ends the worker.
func TestDeafClientsDontHoldTheEndUp(t *testing.T) {
	dir := workspace(t, 400)
	s := serve(t, dir)
	s.mustRun(t, client.RunRequest{Stages: []string{"base", "quantize"}})
	if err := s.Run(t.Context(), client.RunRequest{Stages: []string{"lora"}}); err != nil {
		t.Fatal(err)
	}
	s.until(t, 0, kind(event.TrainStep))
	path, err := client.Socket(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range []string{
		`POST /chat {"prompt":"Hello","variants":["base","quantized"],"race":true,"sampling":{"max_new_tokens":400,"temperature":1,"top_p":1,"repetition_penalty":1}}`,
		`POST /measure {"variants":["quantized"]}`,
		`GET /events?after=0 `,
	} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		method, rest, _ := strings.Cut(request, " ")
		where, body, _ := strings.Cut(rest, " ")
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: worker\r\nContent-Length: %d\r\n\r\n%s", method, where, len(body), body)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.Chats == 1 && info.Clients == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the requests are not at work: %+v", info)
		}
	}
	started := time.Now()
	if err := s.end(); err != nil {
		t.Error(err)
	}
	took := time.Since(started)
	t.Logf("the worker ended %v after it was asked", took)
	if took > 2*time.Second {
		t.Errorf("ending took %v", took)
	}
}

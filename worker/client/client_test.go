package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quartet/event"
)

// serve answers on a socket as a worker might, and returns the socket's path.
func serve(t *testing.T, routes map[string]http.HandlerFunc) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for pattern, answer := range routes {
		mux.HandleFunc(pattern, answer)
	}
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return path
}

func identity(version string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(rw).Encode(Info{Version: version, PID: 4211})
	}
}

func TestDial(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	stale := filepath.Join(t.TempDir(), "stale")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for _, path := range []string{none, stale} {
		if _, err := dial(path); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	if _, err := dial(serve(t, map[string]http.HandlerFunc{"GET /info": identity(Version())})); err != nil {
		t.Error(err)
	}
	var other Mismatch
	c, err := dial(serve(t, map[string]http.HandlerFunc{"GET /info": identity("12\x1b[2J34")}))
	if c == nil || !errors.As(err, &other) || other.Worker.PID != 4211 {
		t.Fatalf("another version: %v, %v", c, err)
	}
	if want := `worker 4211 is quartet 12\x1b[2J34, this is ` + Version() + "; `quartet stop` ends it"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%q, want %q", err, want)
	}
	garbage := serve(t, map[string]http.HandlerFunc{"GET /info": func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "what?") }})
	if _, err := dial(garbage); err == nil || !strings.Contains(err.Error(), "ask the worker at "+garbage) {
		t.Errorf("no worker's answer: %v", err)
	}
}

// TestEventsEnd ends a stream of events in each way that there is.
func TestEventsEnd(t *testing.T) {
	ends := map[string]func(rw http.ResponseWriter){
		"behind": func(rw http.ResponseWriter) { json.NewEncoder(rw).Encode(Behind{true}) },
		"ended":  func(http.ResponseWriter) {},
		"cut":    func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"half a line": func(rw http.ResponseWriter) {
			fmt.Fprint(rw, `{"seq":`)
		},
	}
	path := serve(t, map[string]http.HandlerFunc{
		"GET /info": identity(Version()),
		"GET /events": func(rw http.ResponseWriter, q *http.Request) {
			json.NewEncoder(rw).Encode(Numbered{Seq: 8, Event: event.Event{Kind: event.Log, Text: q.URL.Query().Get("after")}})
			http.NewResponseController(rw).Flush()
			ends[strings.TrimPrefix(q.Header.Get("Accept"), "test/")](rw)
		},
	})
	for end := range ends {
		c, err := dial(path)
		if err != nil {
			t.Fatal(err)
		}
		inner := c.http.Transport
		c.http.Transport = tripper(func(q *http.Request) (*http.Response, error) {
			q.Header.Set("Accept", "test/"+end)
			return inner.RoundTrip(q)
		})
		seen := 0
		err = c.Events(t.Context(), 7, func(n Numbered) error {
			if n.Seq == 8 && n.Event.Text == "7" {
				seen++
			}
			return nil
		})
		want := ErrLost
		if end == "behind" {
			want = ErrBehind
		}
		if seen != 1 || !errors.Is(err, want) {
			t.Errorf("%s: %d events, %v", end, seen, err)
		}
	}
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }

// TestCanceled ends requests to a worker that does not answer.
func TestCanceled(t *testing.T) {
	path := serve(t, map[string]http.HandlerFunc{
		"GET /info":   identity(Version()),
		"GET /events": func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() },
		"POST /run": func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(http.StatusConflict)
			json.NewEncoder(rw).Encode(Refusal{"not now"})
		},
	})
	c, err := dial(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Events(ctx, 0, func(Numbered) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
	if err := c.Run(t.Context(), RunRequest{}); err == nil || err.Error() != "not now" {
		t.Errorf("refused: %v", err)
	}
}

// TestEnded looks at a process that runs, that has ended unnoticed, and that is gone.
func TestEnded(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if ended(pid) {
		t.Error("a process that runs has ended")
	}
	in.Close()
	for deadline := time.Now().Add(10 * time.Second); !ended(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a process that nobody waits for never ends")
		}
	}
	cmd.Wait()
	if !ended(pid) {
		t.Error("a process that is gone has not ended")
	}
}

func TestSocketFolder(t *testing.T) {
	workspace := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(workspace, link); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "sockets")
	a, err := socketIn(dir, workspace)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info, err)
	}
	if b, err := socketIn(dir, link); err != nil || a != b {
		t.Errorf("a link to the workspace leads to %s, not %s: %v", b, a, err)
	}
	if b, err := socketIn(dir, filepath.Dir(workspace)); err != nil || a == b {
		t.Errorf("another workspace has the same socket: %v", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := socketIn(dir, workspace); err == nil || !strings.Contains(err.Error(), "chmod 700 "+dir) {
		t.Errorf("a folder open to others: %v", err)
	}
	if _, err := socketIn(link, workspace); err == nil || !strings.Contains(err.Error(), "is not a folder") {
		t.Errorf("a link in place of the folder: %v", err)
	}
	if _, err := socketIn(dir, filepath.Join(workspace, "none")); err == nil || !strings.Contains(err.Error(), "no such folder") {
		t.Errorf("no workspace: %v", err)
	}
}

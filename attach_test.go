package main

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"quartet/event"
	"quartet/worker/client"
)

// TestFollowsThoughBehind follows a run whose worker says that too much was missed: what it remembers and was not shown yet is
// shown once, and the run's end is found.
func TestFollowsThoughBehind(t *testing.T) {
	dir := t.TempDir()
	path, err := client.Socket(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	at := func(second int, kind event.Kind, text string) event.Event {
		return event.Event{Time: time.Unix(int64(second), 0).UTC(), Kind: kind, Text: text}
	}
	streams := map[string][]any{
		"7":   {client.Numbered{Seq: 8, Event: at(8, event.Log, "seen")}, client.Behind{Behind: true}},
		"100": {client.Numbered{Seq: 101, Event: at(101, event.Log, "new")}, client.Numbered{Seq: 102, Event: at(102, event.RunDone, "it failed")}},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /info", func(rw http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(rw).Encode(client.Info{Version: client.Version()})
	})
	mux.HandleFunc("GET /snapshot", func(rw http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(rw).Encode(client.Snapshot{Seq: 100, Recent: []event.Event{at(8, event.Log, "seen"), at(50, event.Warning, "missed")}})
	})
	mux.HandleFunc("GET /events", func(rw http.ResponseWriter, q *http.Request) {
		for _, line := range streams[q.URL.Query().Get("after")] {
			json.NewEncoder(rw).Encode(line)
		}
	})
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	c, err := client.Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	err = follow(t.Context(), c, 7, func(e event.Event) { shown = append(shown, e.Text) })
	if err == nil || err.Error() != "it failed" {
		t.Errorf("the run ended with %v", err)
	}
	if err := follow(t.Context(), c, 102, func(e event.Event) { shown = append(shown, string(e.Kind)) }); !errors.Is(err, client.ErrLost) {
		t.Errorf("without a worker: %v", err)
	}
	if want := []string{"seen", "missed", "new", "it failed", "run_done"}; !slices.Equal(shown, want) {
		t.Errorf("shown %q, want %q", shown, want)
	}
}

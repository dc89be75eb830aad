package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"quartet/event"
	"quartet/pipeline"
	"quartet/worker/client"
)

// routes are what clients can ask. Every answer is JSON; streams are one value a line.
func (w *worker) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /info", ask(func(*http.Request) (any, error) { return w.info(), nil }))
	m.HandleFunc("GET /snapshot", ask(func(*http.Request) (any, error) { return w.snapshot() }))
	m.HandleFunc("GET /events", w.events)
	m.HandleFunc("POST /plan", ask(func(q *http.Request) (any, error) {
		var r client.RunRequest
		workspace, err := w.openFor(q, &r)
		if err != nil {
			return nil, err
		}
		parts, err := pipeline.Predict(workspace, pipeline.Options{Stages: r.Stages, Force: r.Force})
		if err == nil && r.Weigh && w.o.Weigh != nil {
			w.o.Weigh(q.Context(), workspace, parts)
		}
		return parts, err
	}))
	m.HandleFunc("POST /run", ask(func(q *http.Request) (any, error) {
		var r client.RunRequest
		if err := read(q, &r); err != nil {
			return nil, err
		}
		return nil, w.run(r)
	}))
	m.HandleFunc("POST /cancel", ask(func(*http.Request) (any, error) { w.cancelRun(); return nil, nil }))
	m.HandleFunc("POST /chat", w.chat)
	m.HandleFunc("POST /measure", w.measure)
	m.HandleFunc("POST /report", ask(func(q *http.Request) (any, error) {
		var r client.ReportRequest
		workspace, err := w.openFor(q, &r)
		if err != nil {
			return nil, err
		}
		return w.report(workspace, r.History)
	}))
	m.HandleFunc("POST /stop", ask(func(*http.Request) (any, error) { w.stop(); return nil, nil }))
	return http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
		w.touch()
		m.ServeHTTP(rw, q)
	})
}

// openFor is the workspace as it is now, for a request that is read into what it holds.
func (w *worker) openFor(q *http.Request, into any) (*pipeline.Workspace, error) {
	workspace, err := w.open()
	if err != nil {
		return nil, err
	}
	return workspace, read(q, into)
}

// requestBytes bounds what a request may hold.
const requestBytes = 1 << 20

func read(q *http.Request, into any) error {
	if err := json.NewDecoder(http.MaxBytesReader(nil, q.Body, requestBytes)).Decode(into); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	return nil
}

// ask answers with one value, or with why there is none.
func ask(answer func(*http.Request) (any, error)) http.HandlerFunc {
	return func(rw http.ResponseWriter, q *http.Request) {
		value, err := answer(q)
		if err != nil {
			refuse(rw, err)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		json.NewEncoder(rw).Encode(value) // a client that is gone needs no answer
	}
}

func refuse(rw http.ResponseWriter, err error) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(http.StatusConflict)
	json.NewEncoder(rw).Encode(client.Refusal{Error: err.Error()})
}

// events sends a client what happens, from after the event of a number on, until it goes or the worker ends. A client that
// reads slowly misses progress that newer progress replaces; one that misses more than that is told to begin anew.
func (w *worker) events(rw http.ResponseWriter, q *http.Request) {
	seq, err := strconv.ParseInt(q.URL.Query().Get("after"), 10, 64)
	if err != nil {
		refuse(rw, fmt.Errorf("read the request: after is no number"))
		return
	}
	w.follow(1)
	defer w.follow(-1)
	flush := http.NewResponseController(rw)
	encode := json.NewEncoder(rw)
	rw.WriteHeader(http.StatusOK)
	for {
		events, wake, ended, err := w.feed.after(seq)
		if err != nil {
			encode.Encode(client.Behind{Behind: true})
			return
		}
		for _, e := range events {
			if encode.Encode(e) != nil {
				return
			}
			seq = e.Seq
		}
		if flush.Flush() != nil {
			return
		}
		if len(events) > 0 {
			continue
		}
		if ended {
			return
		}
		select {
		case <-wake:
		case <-q.Context().Done():
			return
		}
	}
}

// follow counts the clients.
func (w *worker) follow(n int) {
	w.mu.Lock()
	w.clients += n
	w.active = time.Now()
	clients := w.clients
	w.mu.Unlock()
	w.publish(event.Event{Time: time.Now(), Kind: event.Clients, Clients: clients})
}

// chat streams the variants' answers to a prompt. When the client goes, they end.
func (w *worker) chat(rw http.ResponseWriter, q *http.Request) {
	var r client.ChatRequest
	if err := read(q, &r); err != nil {
		refuse(rw, err)
		return
	}
	over, err := w.count(&w.chats)
	if err != nil {
		refuse(rw, err)
		return
	}
	s := newStream(joinAnswers)
	ctx, cancel := w.bound(q.Context())
	done := make(chan error, 1)
	go func() {
		defer over()
		done <- w.answer(ctx, r, s.add)
		s.end()
	}()
	err = s.send(rw)
	cancel()
	if failed := <-done; failed != nil && err == nil && !s.begun {
		refuse(rw, failed)
	}
}

// measure streams the progress of an evaluation, and last its results or why there are none.
func (w *worker) measure(rw http.ResponseWriter, q *http.Request) {
	var r client.MeasureRequest
	workspace, err := w.open()
	if err == nil {
		err = read(q, &r)
	}
	var over func()
	if err == nil {
		over, err = w.count(&w.others)
	}
	if err != nil {
		refuse(rw, err)
		return
	}
	s := newStream(joinProgress)
	ctx, cancel := w.bound(q.Context())
	defer cancel()
	go func() {
		defer over()
		defer s.end()
		open, leave := w.backend()
		defer leave()
		results, err := pipeline.Measure(ctx, workspace, pipeline.Options{Turn: &w.device.turn, Others: w.device.turn.handovers, Backend: open}, r.Variants, s.add)
		last := event.Event{Time: time.Now(), Kind: event.Results, Stage: pipeline.Evaluate}
		if err == nil {
			last.Results, err = json.Marshal(results)
		}
		if err != nil {
			last.Kind, last.Text = event.StageFailed, err.Error()
		}
		s.add(last)
	}()
	s.send(rw)
}

// bound is a request's context that also ends with the worker.
func (w *worker) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(w.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// count counts something under way until over is called.
func (w *worker) count(n *int) (over func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		return nil, errEnding
	}
	*n++
	w.runs.Add(1)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		*n--
		w.active = time.Now()
		w.runs.Done()
	}, nil
}

// report writes the reports anew, while no run does.
func (w *worker) report(workspace *pipeline.Workspace, history bool) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		return nil, errBusy
	}
	return pipeline.Report(workspace, w.lock, history)
}

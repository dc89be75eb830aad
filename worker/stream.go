package worker

import (
	"encoding/json"
	"net/http"
	"sync"

	"quartet/event"
	"quartet/worker/client"
)

// stream is what one request brings forth on its way to its client. Whoever works for the request never waits for the client,
// and what the client has not read yet is joined, so that it holds no more than the answers' text however slowly that reads.
type stream[T any] struct {
	mu      sync.Mutex
	waiting []T
	join    func(waiting []T, v T) bool // puts v into one of those that wait, where that loses nothing
	wake    chan struct{}               // holds one token while there may be something to send
	ended   bool
	begun   bool // something was sent; of the sender
}

func newStream[T any](join func([]T, T) bool) *stream[T] {
	return &stream[T]{join: join, wake: make(chan struct{}, 1)}
}

// joinAnswers appends a piece of an answer to the variant's last one.
func joinAnswers(waiting []client.ChatEvent, e client.ChatEvent) bool {
	for i := len(waiting) - 1; i >= 0; i-- {
		last := &waiting[i]
		if last.Variant != e.Variant {
			continue
		}
		if last.State != e.State {
			return false
		}
		last.Text += e.Text
		if e.Timing != nil {
			last.Timing = e.Timing
		}
		return true
	}
	return false
}

// joinProgress puts progress in the place of older progress.
func joinProgress(waiting []event.Event, e event.Event) bool {
	if len(waiting) == 0 || !e.Kind.Lossy() {
		return false
	}
	last := &waiting[len(waiting)-1]
	if last.Kind != e.Kind || last.Stage != e.Stage {
		return false
	}
	*last = e
	return true
}

// add takes the next piece.
func (s *stream[T]) add(v T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.join(s.waiting, v) {
		s.waiting = append(s.waiting, v)
	}
	s.signal()
}

func (s *stream[T]) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.signal()
}

func (s *stream[T]) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// send writes what is added, until the end or the client's.
func (s *stream[T]) send(rw http.ResponseWriter) error {
	flush, encode := http.NewResponseController(rw), json.NewEncoder(rw)
	for range s.wake {
		s.mu.Lock()
		pieces, ended := s.waiting, s.ended
		s.waiting = nil
		s.mu.Unlock()
		for _, v := range pieces {
			s.begun = true
			if err := encode.Encode(v); err != nil {
				return err
			}
		}
		if s.begun {
			if err := flush.Flush(); err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
	}
	return nil
}

package event

import (
	"context"
	"io"
	"sync"
)

// Fanout gives events to any number of listeners without ever waiting for one.
type Fanout struct {
	mu        sync.Mutex
	listeners map[*Listener]struct{}
	closed    bool
}

// Listener is one reader of a Fanout. Beyond its limit of waiting events it misses those that are lossy, and counts
// them; the others are few and always wait for it.
type Listener struct {
	from    *Fanout
	limit   int
	wake    chan struct{} // holds one token while there may be something to read
	waiting []Event
	dropped int
	closed  bool
}

// Publish hands an event to every listener. It is a Sink.
func (f *Fanout) Publish(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.listeners {
		if e.Kind.Lossy() && len(l.waiting) >= l.limit {
			l.dropped++
			continue
		}
		l.waiting = append(l.waiting, e)
		l.signal()
	}
}

// Listen adds a listener, to which up to limit lossy events wait. It must be closed.
func (f *Fanout) Listen(limit int) *Listener {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &Listener{from: f, limit: limit, wake: make(chan struct{}, 1), closed: f.closed}
	if f.listeners == nil {
		f.listeners = map[*Listener]struct{}{}
	}
	f.listeners[l] = struct{}{}
	l.signal()
	return l
}

// Close lets every listener read what waits for it, and then io.EOF.
func (f *Fanout) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for l := range f.listeners {
		l.closed = true
		l.signal()
	}
}

func (l *Listener) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Next waits for events and takes all that wait, with how many were missed since the last call. It returns io.EOF after the
// end, and ctx's error when that comes first. It belongs to one goroutine.
func (l *Listener) Next(ctx context.Context) (events []Event, dropped int, err error) {
	for {
		l.from.mu.Lock()
		events, dropped = l.waiting, l.dropped
		l.waiting, l.dropped = nil, 0
		closed := l.closed
		l.from.mu.Unlock()
		if len(events) > 0 {
			return events, dropped, nil
		}
		if closed {
			return nil, dropped, io.EOF
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			return nil, dropped, ctx.Err()
		}
	}
}

// Close ends the listener: it gets no further events.
func (l *Listener) Close() {
	l.from.mu.Lock()
	defer l.from.mu.Unlock()
	delete(l.from.listeners, l)
	l.closed = true
	l.signal()
}

package worker

import "sync"

// turn is whose turn it is on the device. Unlike a mutex it is fair: whoever waits longest is next, so that a training that
// lets go between two layers lets a waiting answer in.
type turn struct {
	mu      sync.Mutex
	held    bool
	handed  int // how often it went from one to another who waited
	waiting []chan struct{}
}

// Lock waits for the turn.
func (t *turn) Lock() {
	t.mu.Lock()
	if !t.held {
		t.held = true
		t.mu.Unlock()
		return
	}
	mine := make(chan struct{})
	t.waiting = append(t.waiting, mine)
	t.mu.Unlock()
	<-mine
}

// Unlock hands the turn to whoever waits longest.
func (t *turn) Unlock() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == 0 {
		t.held = false
		return
	}
	t.handed++
	close(t.waiting[0])
	t.waiting = t.waiting[1:]
}

// handovers is how often the turn has gone from one to another who waited for it: a work during which it stays the same had
// the device for itself.
func (t *turn) handovers() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.handed
}

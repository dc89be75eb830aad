package worker

import (
	"errors"
	"slices"
	"sync"

	"quartet/event"
	"quartet/worker/client"
)

// How many events the feed holds for clients that are behind, whatever their number: of those that must be delivered, and of
// those that a later one replaces; and of the latter how many a client gets that has fallen behind.
const (
	lastingEvents = 1024
	passingEvents = 1024
	catchUp       = 128
)

// errBehind is why the stream of a client ends that missed events which must be delivered.
var errBehind = errors.New("the client is too far behind")

// feed numbers events and keeps the newest for the clients' streams. A client has no queue of its own: it asks for what came
// after the last one that it sent, so a slow one costs neither memory nor time.
type feed struct {
	mu      sync.Mutex
	seq     int64
	lasting []client.Numbered
	passing []client.Numbered
	lost    int64 // the number of the last event of lasting that was dropped
	wake    chan struct{}
	ended   bool
}

func newFeed() *feed { return &feed{wake: make(chan struct{})} }

// publish numbers an event. Its number is taken while note runs, so that what note changes and the number fit together.
func (f *feed) publish(e event.Event, note func(seq int64)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq++
	note(f.seq)
	list, most := &f.lasting, lastingEvents
	if e.Kind.Lossy() {
		list, most = &f.passing, passingEvents
	}
	if len(*list) == most {
		if !e.Kind.Lossy() {
			f.lost = (*list)[most/4-1].Seq
		}
		*list = slices.Delete(*list, 0, most/4)
	}
	*list = append(*list, client.Numbered{Seq: f.seq, Event: e})
	close(f.wake)
	f.wake = make(chan struct{})
}

// after gives the events after a number, in order, of the passing ones the newest; or, where there are none, a channel that is
// closed when there are. ended says that none will come.
func (f *feed) after(seq int64) (events []client.Numbered, wake <-chan struct{}, ended bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if seq < f.lost {
		return nil, nil, false, errBehind
	}
	newer := func(list []client.Numbered) []client.Numbered {
		at, _ := slices.BinarySearchFunc(list, seq+1, func(n client.Numbered, seq int64) int { return int(n.Seq - seq) })
		return list[at:]
	}
	passing := newer(f.passing)
	if behind := len(passing) - catchUp; behind > 0 {
		passing = passing[behind:]
	}
	events = append(append(events, newer(f.lasting)...), passing...)
	slices.SortFunc(events, func(a, b client.Numbered) int { return int(a.Seq - b.Seq) })
	return events, f.wake, f.ended, nil
}

// end lets every stream end once it has sent what there is.
func (f *feed) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.ended = true
		close(f.wake)
		f.wake = make(chan struct{})
	}
}

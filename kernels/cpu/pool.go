package cpu

import "sync/atomic"

// pool is a fixed set of threads that share an operation's items. The caller's goroutine is the first of them. Between
// operations, which follow each other within microseconds, the others look out for a while before they sleep.
type pool struct {
	workers []worker

	// The operation at hand. state is its number, how many helpers are at it, and whether more may join: helpers join by
	// compare-and-swap while it is open, so a late one never sees the next operation's fields half written.
	work  func(w *worker, lo, hi int)
	items int
	grain int
	next  atomic.Int64
	state atomic.Uint64

	waiting atomic.Bool // the caller sleeps until the last helper is done
	done    chan struct{}
	closed  atomic.Bool
}

// worker is what one thread owns.
type worker struct {
	scratch [4][]float32
	tables  [][256]float32 // of NF4's scales
	asleep  atomic.Bool
	wake    chan struct{}
}

const (
	open     = 1       // helpers may join
	helper   = 1 << 1  // counts them
	helpers  = 0xfffe  // their count's bits
	sequence = 1 << 16 // counts operations

	lookouts = 1000 // how often a thread looks before it sleeps
	smallest = 64   // chunks of the smallest size would be that many a thread
)

func newPool(threads int) *pool {
	p := &pool{workers: make([]worker, max(1, threads)), done: make(chan struct{}, 1)}
	for i := 1; i < len(p.workers); i++ {
		p.workers[i].wake = make(chan struct{}, 1)
		go p.help(&p.workers[i])
	}
	return p
}

// close ends the threads.
func (p *pool) close() {
	p.closed.Store(true)
	for i := 1; i < len(p.workers); i++ {
		if p.workers[i].asleep.CompareAndSwap(true, false) {
			p.workers[i].wake <- struct{}{}
		}
	}
}

// each calls work for chunks that cover the items 0 … n-1, each of at least grain items and, but for the last, of a
// multiple of grain: a part of what is left, so that threads read long stretches of memory and end together. It returns
// when all are done. What work computes for an item must not depend on its chunk.
func (p *pool) each(n, grain int, work func(w *worker, lo, hi int)) {
	if n == 0 {
		return
	}
	if len(p.workers) == 1 || n <= grain {
		work(&p.workers[0], 0, n)
		return
	}
	least := smallest * len(p.workers)
	p.grain = max(1, (n+least*grain-1)/(least*grain)) * grain
	p.work, p.items = work, n
	p.next.Store(0)
	p.state.Store((p.state.Load()/sequence+1)*sequence | open)
	for i := 1; i < min(len(p.workers), (n+p.grain-1)/p.grain); i++ {
		if w := &p.workers[i]; w.asleep.CompareAndSwap(true, false) {
			w.wake <- struct{}{}
		}
	}
	p.drain(&p.workers[0])
	if p.state.Add(^uint64(0))&helpers != 0 { // no longer open
		p.wait()
	}
	p.work = nil
}

// wait returns when no helper is at the operation. A helper of an earlier one may wake it too soon, so it looks again.
func (p *pool) wait() {
	for looked := 0; p.state.Load()&helpers != 0; {
		if looked++; looked < lookouts {
			pause()
			continue
		}
		p.waiting.Store(true)
		if p.state.Load()&helpers == 0 && p.waiting.CompareAndSwap(true, false) {
			return
		}
		<-p.done
	}
}

// help is a helper's life.
func (p *pool) help(w *worker) {
	var seen uint64
	for idle := 0; !p.closed.Load(); {
		s := p.state.Load()
		switch {
		case s&open == 0 || s/sequence == seen:
			if idle++; idle > lookouts {
				p.sleep(w, s)
				idle = 0
			} else {
				pause()
			}
		case p.state.CompareAndSwap(s, s+helper):
			seen, idle = s/sequence, 0
			p.drain(w)
			if left := p.state.Add(^uint64(helper - 1)); left&(open|helpers) == 0 && p.waiting.CompareAndSwap(true, false) {
				p.done <- struct{}{}
			}
		}
	}
}

// sleep lasts until the operation after the one whose state is s.
func (p *pool) sleep(w *worker, s uint64) {
	w.asleep.Store(true)
	if (p.state.Load()/sequence == s/sequence && !p.closed.Load()) || !w.asleep.CompareAndSwap(true, false) {
		<-w.wake
	}
}

// drain works on chunks until none is left.
func (p *pool) drain(w *worker) {
	for {
		lo := int(p.next.Load())
		left := p.items - lo
		if left <= 0 {
			return
		}
		size := min(left, max(1, left/(2*len(p.workers))/p.grain)*p.grain)
		if p.next.CompareAndSwap(int64(lo), int64(lo+size)) {
			p.work(w, lo, lo+size)
		}
	}
}

// grain is how many items of a cost (in elementary operations) make a chunk that is worth a thread's attention.
func grain(cost int) int { return max(1, 1<<15/max(1, cost)) }

// floats is the worker's buffer of n elements; slot tells buffers apart that are used at once. Its content is arbitrary.
func (w *worker) floats(slot, n int) []float32 {
	if cap(w.scratch[slot]) < n {
		w.scratch[slot] = make([]float32, n+n/4)
	}
	return w.scratch[slot][:n]
}

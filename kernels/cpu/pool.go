package cpu

import (
	"sync"
	"sync/atomic"
)

// pool is a fixed set of threads that share an operation's items. The caller's goroutine is one of them.
type pool struct {
	workers []worker
	wake    chan struct{}
	done    sync.WaitGroup

	work  func(w *worker, lo, hi int)
	items int
	chunk int
	next  atomic.Int64
}

// worker is what one thread owns.
type worker struct {
	scratch [4][]float32
}

func newPool(threads int) *pool {
	p := &pool{workers: make([]worker, max(1, threads)), wake: make(chan struct{}, max(1, threads))}
	for i := 1; i < len(p.workers); i++ {
		go func() {
			for range p.wake {
				p.drain(&p.workers[i])
				p.done.Done()
			}
		}()
	}
	return p
}

func (p *pool) close() { close(p.wake) }

// each calls work for chunks that cover the items 0 … n-1, each of at least grain items and, but for the last, of a
// multiple of grain. It returns when all are done. What work computes for an item must not depend on its chunk.
func (p *pool) each(n, grain int, work func(w *worker, lo, hi int)) {
	if n == 0 {
		return
	}
	grain = max(1, grain)
	if len(p.workers) == 1 || n <= grain {
		work(&p.workers[0], 0, n)
		return
	}
	chunks := 4 * len(p.workers)
	p.chunk = max(1, (n+chunks*grain-1)/(chunks*grain)) * grain
	p.work, p.items = work, n
	p.next.Store(0)
	helpers := min(len(p.workers), (n+p.chunk-1)/p.chunk) - 1
	p.done.Add(helpers)
	for range helpers {
		p.wake <- struct{}{}
	}
	p.drain(&p.workers[0])
	p.done.Wait()
	p.work = nil
}

func (p *pool) drain(w *worker) {
	for {
		lo := int(p.next.Add(int64(p.chunk))) - p.chunk
		if lo >= p.items {
			return
		}
		p.work(w, lo, min(lo+p.chunk, p.items))
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

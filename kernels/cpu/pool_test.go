package cpu

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// TestPoolCovers has every item worked on exactly once, in quick succession and after the threads have gone to sleep.
func TestPoolCovers(t *testing.T) {
	for _, threads := range []int{1, 2, 7} {
		p := newPool(threads)
		for round := range 3000 {
			n := round % 97
			counts := make([]int32, n)
			p.each(n, 1+round%5, func(_ *worker, lo, hi int) {
				for i := lo; i < hi; i++ {
					atomic.AddInt32(&counts[i], 1)
				}
			})
			for i, c := range counts {
				if c != 1 {
					t.Fatalf("%d threads, round %d: item %d of %d was worked on %d times", threads, round, i, n, c)
				}
			}
			if round%1000 == 999 { // until all threads sleep
				for i := 1; i < threads; i++ {
					for !p.workers[i].asleep.Load() {
						runtime.Gosched()
					}
				}
			}
		}
		p.close()
	}
}

// TestPoolCloses requires the threads of a backend that nobody holds any more to end.
func TestPoolCloses(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 10 {
		New(Threads(4))
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

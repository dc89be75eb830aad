package bench

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"quartet/kernels"
)

// A roof is the best of many short bursts: what else a machine does takes from most of them.
const (
	burstTime = 2 * time.Millisecond
	window    = 64 << 20 // bytes that are read at once of a large buffer; a burst goes on where the last one ended
)

// rate runs work, which does amount and is told how often, in bursts, and returns the best amount a second.
func rate(amount float64, bursts int, work func(times int)) float64 {
	best := 0.0
	for times, done := 1, 0; done < bursts; {
		started := time.Now()
		work(times)
		spent := time.Since(started)
		if done == 0 && spent < burstTime {
			times *= 2
			continue
		}
		best = max(best, amount*float64(times)/spent.Seconds())
		done++
	}
	return best
}

// together runs work on as many threads as Go uses.
func together(work func(thread, threads int)) {
	threads := runtime.GOMAXPROCS(0)
	var all sync.WaitGroup
	for i := range threads {
		all.Go(func() { work(i, threads) })
	}
	all.Wait()
}

// bandwidth is how fast all threads read a buffer of a size again and again, in bytes a second: each its own part.
func bandwidth(size, bursts int) float64 {
	defer debug.FreeOSMemory()
	buffer := make([]byte, (size+readStep-1)/readStep*readStep)
	for i := 0; i < len(buffer); i += 1 << 12 {
		buffer[i] = 1 // pages that were never written are all the same one
	}
	windows := max(1, len(buffer)/window)
	size = len(buffer) / windows / readStep * readStep
	steps, from := size/readStep, 0
	return rate(float64(size), bursts, func(times int) {
		together(func(thread, threads int) {
			for i := range times {
				now := buffer[(from+i)%windows*size:]
				read(now[steps*thread/threads*readStep : steps*(thread+1)/threads*readStep])
			}
		})
		from += times
	})
}

// multiplyAdds is the fp32 peak of a path's kernels on this machine in operations a second, products on registers alone, and
// what makes them. It is 0 where this program has no such loop for the processor.
func multiplyAdds(path string, bursts int) (flops float64, from string) {
	loop, turn, from := registerLoop(path)
	if loop == nil {
		return 0, "product"
	}
	const n = 1 << 12
	return rate(turn*n*float64(runtime.GOMAXPROCS(0)), bursts, func(times int) {
		together(func(int, int) { loop(n * times) })
	}), from
}

// productRate is the backend's own speed at a large fp32 product, in operations a second.
func productRate(b kernels.Backend, bursts int) (float64, error) {
	const tokens, size = 256, 1024
	var made []kernels.Tensor
	defer func() {
		for _, t := range made {
			b.Free(t)
		}
	}()
	for _, rows := range []int{tokens, tokens, size} {
		t, err := b.Alloc(kernels.F32, rows, size)
		if err != nil {
			return 0, err
		}
		made = append(made, t)
		ones := make([]float32, t.Len())
		for i := range ones {
			ones[i] = 1
		}
		b.Upload(t, kernels.AsBytes(ones))
	}
	var failed error
	best := rate(2*tokens*size*size, bursts, func(times int) {
		for range times {
			b.Linear(made[0], made[1], made[2], kernels.Tensor{})
		}
		if err := b.Sync(); err != nil {
			failed = err
		}
	})
	if failed != nil {
		return 0, failed
	}
	return best, nil
}

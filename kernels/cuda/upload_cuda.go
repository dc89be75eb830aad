//go:build cuda

package cuda

// #include "calls.h"
import "C"

import (
	"sync"
	"unsafe"
)

// stageBytes is the size of each of the two pieces of pinned memory through which large uploads go: while the GPU fetches one,
// threads fill the other. From ordinary memory the driver would copy with one thread.
const stageBytes = 32 << 20

type stage struct {
	memory unsafe.Pointer
	taken  C.CUevent // comes when the GPU has fetched what was put there last
}

func (d *driver) upload(addr uint64, data []byte) error {
	if len(data) < 1<<20 {
		return d.send(addr, unsafe.Pointer(unsafe.SliceData(data)), len(data))
	}
	for i := 0; len(data) > 0; i++ {
		s := &d.staging[i%len(d.staging)]
		if s.memory == nil {
			if code := C.quartet_pin(d.q, stageBytes, &s.memory); code != 0 {
				return status(code)
			}
		} else if code := C.quartet_wait_for(d.q, s.taken); code != 0 {
			return status(code)
		}
		n := min(len(data), stageBytes)
		fill(unsafe.Slice((*byte)(s.memory), n), data)
		if err := d.send(addr, s.memory, n); err != nil {
			return err
		}
		if code := C.quartet_mark(d.q, &s.taken); code != 0 {
			return status(code)
		}
		addr, data = addr+uint64(n), data[n:]
	}
	return nil
}

func (d *driver) send(addr uint64, data unsafe.Pointer, bytes int) error {
	return status(C.quartet_to_device(d.q, C.uint64_t(addr), data, C.size_t(bytes)))
}

// fill copies with several threads: one alone moves a third of what the bus takes, and less from files not yet mapped.
func fill(to, from []byte) {
	const threads = 8
	each := ceil(len(to), threads)
	var all sync.WaitGroup
	for at := 0; at < len(to); at += each {
		end := min(at+each, len(to))
		all.Go(func() { copy(to[at:end], from[at:end]) })
	}
	all.Wait()
}

func (d *driver) unpin() {
	for i := range d.staging {
		if s := &d.staging[i]; s.memory != nil {
			C.quartet_unpin(d.q, s.memory)
			s.memory = nil
		}
	}
}

//go:build cuda

package cuda

// #cgo CFLAGS: -I${SRCDIR}/include -I${SRCDIR}/libcuda
// #cgo LDFLAGS: -L${SRCDIR}/build -lcuda -ldl
// #include <stdlib.h>
// #include "blas.h"
// #include "libcuda.h"
import "C"

import (
	"embed"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"gorgonia.org/cu"

	"quartet/kernels"
)

// Built reports whether the program was built with the CUDA backend.
const Built = true

// fatbins are the kernels of each .cu file for every architecture that build.sh was asked for.
//
//go:embed build/*.fatbin
var fatbins embed.FS

// keptBytes is how much freed memory the driver's pool keeps for the next reservation.
const keptBytes = 256 << 20

// connect finds the driver's library, once.
var connect = sync.OnceValue(func() error {
	if problem := C.quartet_libcuda_open(); problem != nil {
		return fmt.Errorf("find an NVIDIA GPU: %s", C.GoString(problem))
	}
	return nil
})

// Devices describes the GPUs of the machine.
func Devices() ([]Info, error) {
	if err := connect(); err != nil {
		return nil, err
	}
	n, err := cu.NumDevices()
	if err != nil {
		return nil, fmt.Errorf("count GPUs: %w", err)
	}
	if n == 0 {
		return nil, errors.New("find an NVIDIA GPU: the driver is there, but it shows no GPU; see CUDA_VISIBLE_DEVICES")
	}
	infos := make([]Info, n)
	for i := range infos {
		if infos[i], err = describe(i); err != nil {
			return nil, err
		}
	}
	return infos, nil
}

// describe tells what can be told of a GPU without taking a context on it.
func describe(index int) (Info, error) {
	fail := func(err error) (Info, error) { return Info{}, fmt.Errorf("describe GPU %d: %w", index, err) }
	d, err := cu.GetDevice(index)
	if err != nil {
		return fail(err)
	}
	i := Info{Index: index, DriverVersion: cu.Version()}
	if i.Name, err = d.Name(); err != nil {
		return fail(err)
	}
	if i.MemoryTotal, err = d.TotalMem(); err != nil {
		return fail(err)
	}
	for _, a := range []struct {
		what cu.DeviceAttribute
		into *int
	}{
		{cu.ComputeCapabilityMajor, &i.Major}, {cu.ComputeCapabilityMinor, &i.Minor}, {cu.MultiprocessorCount, &i.Processors},
		{C.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &i.SharedMemory}, {cu.L2CacheSize, &i.L2},
	} {
		if *a.into, err = d.Attribute(a.what); err != nil {
			return fail(err)
		}
	}
	return i, nil
}

// driver is a GPU behind gorgonia.org/cu and the calls of calls.h. Its methods may run on any thread.
type driver struct {
	index     int
	about     Info
	q         C.quartet_queue
	modules   []cu.Module
	functions map[string]*function
	blas      unsafe.Pointer // nil where there is no cuBLASLt
	args      *[maxArgs]C.uint64_t
	staging   [2]stage
	closed    bool
}

type function struct {
	raw    C.CUfunction
	shared int // bytes that it may have
}

const maxArgs = 64

// Open takes a GPU. Activations are kept as act: F16, BF16 or F32.
func Open(index int, act kernels.DType) (*Backend, error) {
	infos, err := Devices()
	if err != nil {
		return nil, err
	}
	if index < 0 || index >= len(infos) {
		return nil, fmt.Errorf("open GPU %d: there are %d, counted from 0", index, len(infos))
	}
	if act == kernels.BF16 && !infos[index].BF16() {
		return nil, fmt.Errorf("open %s: it cannot compute in bfloat16; choose fp16", infos[index].Name)
	}
	d := &driver{index: index, about: infos[index], functions: map[string]*function{}, args: (*[maxArgs]C.uint64_t)(C.calloc(maxArgs, 8))}
	if code := C.quartet_open(C.int(index), keptBytes, &d.q); code != 0 {
		return nil, fmt.Errorf("open %s: %w", d.about.Name, status(code))
	}
	if err := d.load(); err != nil {
		d.close()
		return nil, err
	}
	d.blas = openBLAS(d.q)
	return newBackend(d, act), nil
}

// load hands the kernels to the driver.
func (d *driver) load() error {
	files, err := fatbins.ReadDir("build")
	if err != nil {
		return err
	}
	return d.within(func() error {
		for _, f := range files {
			image, err := fatbins.ReadFile("build/" + f.Name())
			if err != nil {
				return err
			}
			m, err := cu.LoadData(string(image))
			if err != nil {
				return fmt.Errorf("load the kernels of %s on %s (compute capability %d.%d): %w; this build may not cover that GPU",
					f.Name(), d.about.Name, d.about.Major, d.about.Minor, err)
			}
			d.modules = append(d.modules, m)
		}
		return nil
	})
}

// within runs calls of gorgonia.org/cu, which need the context on their thread.
func (d *driver) within(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if code := C.quartet_enter(d.q); code != 0 {
		return status(code)
	}
	return f()
}

func (d *driver) find(kernel string) (*function, error) {
	if f := d.functions[kernel]; f != nil {
		return f, nil
	}
	var found *function
	err := d.within(func() error {
		for _, m := range d.modules {
			if f, err := m.Function(kernel); err == nil {
				found = &function{raw: *(*C.CUfunction)(unsafe.Pointer(&f)), shared: 48 << 10} // a cu.Function is its handle alone
				return nil
			}
		}
		return fmt.Errorf("there is no kernel %s in this build", kernel)
	})
	d.functions[kernel] = found
	return found, err
}

func (d *driver) info() Info {
	var free, total C.size_t
	if C.quartet_memory(d.q, &free, &total) == 0 {
		d.about.MemoryFree, d.about.MemoryTotal = int64(free), int64(total)
	}
	return d.about
}

func (d *driver) alloc(bytes int) (uint64, error) {
	var address C.uint64_t
	switch code := C.quartet_allocate(d.q, C.size_t(bytes), &address); code {
	case 0:
		return uint64(address), nil
	case C.CUDA_ERROR_OUT_OF_MEMORY:
		return 0, errMemory
	default:
		return 0, status(code)
	}
}

func (d *driver) free(addr uint64) { C.quartet_release(d.q, C.uint64_t(addr)) }

func (d *driver) zero(addr uint64, bytes int) error {
	return status(C.quartet_clear(d.q, C.uint64_t(addr), C.size_t(bytes)))
}

func (d *driver) download(data []byte, addr uint64) error {
	return status(C.quartet_to_host(d.q, unsafe.Pointer(unsafe.SliceData(data)), C.uint64_t(addr), C.size_t(len(data))))
}

func (d *driver) sync() error { return status(C.quartet_wait(d.q)) }

func (d *driver) launch(l launch) error {
	f, err := d.find(l.kernel)
	if err != nil {
		return err
	}
	if l.shared > f.shared {
		if code := C.quartet_shared(d.q, f.raw, C.int(l.shared)); code != 0 {
			return fmt.Errorf("give %s %d bytes of shared memory: %w", l.kernel, l.shared, status(code))
		}
		f.shared = l.shared
	}
	for i, a := range l.args {
		d.args[i] = C.uint64_t(a)
	}
	grid := [3]C.uint{C.uint(l.grid[0]), C.uint(l.grid[1]), C.uint(l.grid[2])}
	if code := C.quartet_launch(d.q, f.raw, &grid[0], C.uint(l.block), C.uint(l.shared), C.int(flag(l.together)), &d.args[0], C.int(len(l.args))); code != 0 {
		return fmt.Errorf("launch %s on a grid of %v × %d: %w", l.kernel, l.grid, l.block, status(code))
	}
	return nil
}

func (d *driver) close() error {
	if d.closed {
		return nil
	}
	d.closed = true
	err := d.sync()
	closeBLAS(d.q, d.blas)
	d.unpin()
	_ = d.within(func() error {
		for _, m := range d.modules {
			_ = m.Unload()
		}
		return nil
	})
	C.quartet_close(C.int(d.index), d.q)
	C.free(unsafe.Pointer(d.args))
	return err
}

// status is the error of a CUresult.
func status(code C.int) error {
	if code == 0 {
		return nil
	}
	var name, text *C.char
	C.cuGetErrorName(C.CUresult(code), &name)
	C.cuGetErrorString(C.CUresult(code), &text)
	return fmt.Errorf("%s (%s)", C.GoString(text), C.GoString(name))
}

package cpu

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"quartet/kernels"
)

// memory keeps what large allocations were mapped, by address. They come from the system rather than from Go's heap, so
// that they are given back at once and don't raise the heap's target.
type memory struct {
	mapped map[*byte][]byte
}

// mapFrom is the size in bytes from which memory is mapped.
const mapFrom = 1 << 18

// Alloc reserves zeroed memory.
func (b *Backend) Alloc(d kernels.DType, rows, cols int) (kernels.Tensor, error) {
	size := d.Bytes(rows * cols)
	if size == 0 {
		return kernels.Tensor{DType: d, Rows: rows, Cols: cols}, nil
	}
	data, err := b.memory.alloc(size)
	if err != nil {
		return kernels.Tensor{}, fmt.Errorf("reserve %d MiB for %v[%d,%d]: %w", size>>20, d, rows, cols, err)
	}
	return kernels.HostTensor(d, rows, cols, data), nil
}

func (m *memory) alloc(size int) ([]byte, error) {
	if size < mapFrom {
		words := make([]uint64, (size+7)/8)
		return unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), size), nil
	}
	if free, ok := availableMemory(); ok && size > free {
		return nil, fmt.Errorf("only %d MiB of memory are free; use fewer tokens at once (batch size, max_length), a smaller model or 4-bit weights", free>>20)
	}
	data, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("%w; use fewer tokens at once (batch size, max_length), a smaller model or 4-bit weights", err)
	}
	if m.mapped == nil {
		m.mapped = map[*byte][]byte{}
	}
	m.mapped[&data[0]] = data
	return data, nil
}

// availableMemory is what the kernel says can be used without swapping, in bytes.
func availableMemory() (int, bool) {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	_, rest, ok := strings.Cut(string(info), "MemAvailable:")
	if !ok {
		return 0, false
	}
	kib, err := strconv.Atoi(strings.TrimSpace(rest[:max(0, strings.Index(rest, "kB"))]))
	return kib << 10, err == nil
}

// Import aliases the bytes, or copies them where they are not aligned to their elements.
func (b *Backend) Import(t kernels.Tensor) (kernels.Tensor, error) {
	if t.Quant != nil {
		q := *t.Quant
		var err error
		if q.Absmax, err = b.Import(q.Absmax); err != nil {
			return kernels.Tensor{}, err
		}
		if q.NestedAbsmax, err = b.Import(q.NestedAbsmax); err != nil {
			return kernels.Tensor{}, err
		}
		t.Quant = &q
	}
	if t.Len() == 0 || uintptr(unsafe.Pointer(&t.Host[0]))%uintptr(t.DType.Bytes(1)) == 0 {
		return t, nil
	}
	aligned, err := b.Alloc(t.DType, t.Rows, t.Cols)
	if err != nil {
		return kernels.Tensor{}, err
	}
	copy(aligned.Host, t.Host)
	aligned.Quant = t.Quant
	return aligned, nil
}

// Free releases what Alloc or Import returned, the scales of an NF4 tensor included.
func (b *Backend) Free(t kernels.Tensor) {
	if t.Quant != nil {
		b.Free(t.Quant.Absmax)
		b.Free(t.Quant.NestedAbsmax)
	}
	if len(t.Host) == 0 {
		return
	}
	if data, ok := b.memory.mapped[&t.Host[0]]; ok {
		delete(b.memory.mapped, &t.Host[0])
		if err := syscall.Munmap(data); err != nil {
			panic(fmt.Sprintf("cpu: unmap %v: %v", t, err))
		}
	}
}

// Upload copies elements into t.
func (b *Backend) Upload(t kernels.Tensor, data []byte) {
	checkBytes("Upload", t, data)
	copy(t.Host, data)
}

// Download copies t's elements out.
func (b *Backend) Download(data []byte, t kernels.Tensor) {
	checkBytes("Download", t, data)
	copy(data, t.Host)
}

func checkBytes(op string, t kernels.Tensor, data []byte) {
	if len(data) != t.DType.Bytes(t.Len()) {
		panic(fmt.Sprintf("cpu: %s of %v: %d bytes, want %d", op, t, len(data), t.DType.Bytes(t.Len())))
	}
}

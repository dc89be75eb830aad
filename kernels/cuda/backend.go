package cuda

import (
	"errors"
	"fmt"

	"quartet/kernels"
)

// Backend runs the operations on one GPU. Its results don't depend on what else runs there.
type Backend struct {
	dev     device
	act     kernels.DType
	failed  error // the first since the last Sync
	used    map[uint64]int
	now     int64
	peak    int64
	scratch map[string]kernels.Tensor // by what it is for; grown as needed
}

var _ kernels.Backend = (*Backend)(nil)

func newBackend(d device, act kernels.DType) *Backend {
	return &Backend{dev: d, act: act, used: map[uint64]int{}, scratch: map[string]kernels.Tensor{}}
}

// Name is "cuda".
func (b *Backend) Name() string { return "cuda" }

// Activations is the type that the backend was opened with.
func (b *Backend) Activations() kernels.DType { return b.act }

// Info describes the GPU.
func (b *Backend) Info() Info { return b.dev.info() }

// Close frees everything that the backend holds on the GPU.
func (b *Backend) Close() error { return b.dev.close() }

// Sync waits for all operations and returns the first error since the last Sync.
func (b *Backend) Sync() error {
	err := b.dev.sync()
	if b.failed != nil {
		err = b.failed
	}
	b.failed = nil
	return err
}

func (b *Backend) fail(err error) {
	if err != nil && b.failed == nil {
		b.failed = err
	}
}

// run queues a kernel. After an error nothing more is queued until Sync has told it.
func (b *Backend) run(kernel string, grid [3]int, block, shared int, args ...uint64) {
	if b.failed == nil {
		b.fail(b.dev.launch(launch{kernel: kernel, grid: grid, block: block, shared: shared, args: args}))
	}
}

func ceil(n, d int) int { return (n + d - 1) / d }

// Alloc reserves zeroed memory.
func (b *Backend) Alloc(d kernels.DType, rows, cols int) (kernels.Tensor, error) {
	t, err := b.reserve(d, rows, cols)
	if err == nil && t.Addr != 0 {
		b.fail(b.dev.zero(t.Addr, d.Bytes(rows*cols)))
	}
	return t, err
}

func (b *Backend) reserve(d kernels.DType, rows, cols int) (kernels.Tensor, error) {
	t := kernels.Tensor{DType: d, Rows: rows, Cols: cols}
	size := d.Bytes(rows * cols)
	if size == 0 {
		return t, nil
	}
	addr, err := b.dev.alloc(size)
	if errors.Is(err, errMemory) {
		i := b.dev.info()
		return t, fmt.Errorf("reserve %d MiB on %s for %v: %d of %d MiB are free; lower batch_size or max_length, set gradient_checkpointing = true or lora.base = \"nf4\"",
			size>>20, i.Name, t, i.MemoryFree>>20, i.MemoryTotal>>20)
	}
	if err != nil {
		return t, fmt.Errorf("reserve %d MiB for %v: %w", size>>20, t, err)
	}
	t.Addr = addr
	b.used[addr] = size
	b.now += int64(size)
	b.peak = max(b.peak, b.now)
	return t, nil
}

// errMemory is what a device's alloc wraps when the memory is used up.
var errMemory = errors.New("out of device memory")

// Memory is what the backend's tensors take now and took at most since ResetPeak, in bytes.
func (b *Backend) Memory() (now, peak int64) { return b.now, b.peak }

// ResetPeak lets the peak of Memory begin at what the tensors take now.
func (b *Backend) ResetPeak() { b.peak = b.now }

// GPU is the name of the GPU.
func (b *Backend) GPU() string { return b.dev.info().Name }

// Import copies host bytes to the GPU.
func (b *Backend) Import(t kernels.Tensor) (kernels.Tensor, error) {
	if t.Quant != nil {
		q := *t.Quant
		var err error
		if q.Absmax, err = b.Import(q.Absmax); err != nil {
			return kernels.Tensor{}, err
		}
		if q.NestedAbsmax, err = b.Import(q.NestedAbsmax); err != nil {
			b.Free(q.Absmax)
			return kernels.Tensor{}, err
		}
		t.Quant = &q
	}
	copied, err := b.reserve(t.DType, t.Rows, t.Cols)
	copied.Quant = t.Quant
	if err != nil {
		b.Free(copied)
		return kernels.Tensor{}, err
	}
	b.Upload(copied, t.Host)
	return copied, nil
}

// Free releases what Alloc or Import returned, the scales of an NF4 tensor included.
func (b *Backend) Free(t kernels.Tensor) {
	if t.Quant != nil {
		b.Free(t.Quant.Absmax)
		b.Free(t.Quant.NestedAbsmax)
	}
	if size, ok := b.used[t.Addr]; ok {
		delete(b.used, t.Addr)
		b.now -= int64(size)
		b.dev.free(t.Addr)
	}
}

// Upload copies host elements into t.
func (b *Backend) Upload(t kernels.Tensor, data []byte) {
	checkBytes("Upload", t, data)
	if b.failed == nil && len(data) > 0 {
		b.fail(b.dev.upload(t.Addr, data))
	}
}

// Download waits for the operations before it and copies t's elements out.
func (b *Backend) Download(data []byte, t kernels.Tensor) {
	checkBytes("Download", t, data)
	if b.failed == nil && len(data) > 0 {
		b.fail(b.dev.download(data, t.Addr))
	}
}

func checkBytes(op string, t kernels.Tensor, data []byte) {
	if len(data) != t.DType.Bytes(t.Len()) {
		panic(fmt.Sprintf("cuda: %s of %v: %d bytes, want %d", op, t, len(data), t.DType.Bytes(t.Len())))
	}
}

// Zero sets t = 0.
func (b *Backend) Zero(t kernels.Tensor) {
	if n := t.DType.Bytes(t.Len()); n > 0 && b.failed == nil {
		b.fail(b.dev.zero(t.Addr, n))
	}
}

// room is memory that operations share for a purpose: at least n elements, of the last call's content or none.
func (b *Backend) room(purpose string, d kernels.DType, rows, cols int) kernels.Tensor {
	old := b.scratch[purpose]
	if size := d.Bytes(rows * cols); old.Len() < size {
		grown, err := b.reserve(kernels.U8, 1, size)
		if err != nil {
			b.fail(err)
			return kernels.Tensor{DType: d, Rows: rows, Cols: cols}
		}
		b.Free(old) // what was queued before runs first, and memory is freed in the stream's order
		b.scratch[purpose], old = grown, grown
	}
	return kernels.Tensor{DType: d, Rows: rows, Cols: cols, Addr: old.Addr}
}

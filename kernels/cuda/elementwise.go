package cuda

import "quartet/kernels"

// runs queues a kernel that does n elements, a run of some a thread; its last argument is n.
func (b *Backend) runs(kernel string, n, perThread int, args ...uint64) {
	const block = 256
	if n > 0 {
		b.run(kernel, [3]int{ceil(n, block*perThread), 1, 1}, block, 0, append(args, number(n))...)
	}
}

// Copy sets out = x, converting between the float types.
func (b *Backend) Copy(out, x kernels.Tensor) {
	kernels.Want("Copy", "out", out, out.DType, x.Rows, x.Cols)
	if out.DType == x.DType {
		b.runs("copy_bytes", x.DType.Bytes(x.Len()), 16, out.Addr, x.Addr)
		return
	}
	kernels.WantFloat("Copy", "out", out, x.Rows, x.Cols)
	kernels.WantFloat("Copy", "x", x, x.Rows, x.Cols)
	b.runs("copy"+suffix(out.DType)+suffix(x.DType), x.Len(), 8, out.Addr, x.Addr)
}

// Add sets out = x + y; all are of one float type.
func (b *Backend) Add(out, x, y kernels.Tensor) {
	kernels.WantFloat("Add", "out", out, out.Rows, out.Cols)
	kernels.Want("Add", "x", x, out.DType, out.Rows, out.Cols)
	kernels.Want("Add", "y", y, out.DType, out.Rows, out.Cols)
	b.runs("add"+suffix(out.DType), out.Len(), 8, out.Addr, x.Addr, y.Addr)
}

// Scale sets x = s·x.
func (b *Backend) Scale(x kernels.Tensor, s float32) {
	kernels.WantFloat("Scale", "x", x, x.Rows, x.Cols)
	b.runs("scale"+suffix(x.DType), x.Len(), 8, x.Addr, real32(s))
}

// Gelu sets out = gelu_new(x).
func (b *Backend) Gelu(out, x kernels.Tensor) {
	kernels.WantFloat("Gelu", "x", x, x.Rows, x.Cols)
	kernels.Want("Gelu", "out", out, x.DType, x.Rows, x.Cols)
	b.runs("gelu"+suffix(x.DType), x.Len(), 8, out.Addr, x.Addr)
}

// GeluBackward sets dx = dout·gelu_new'(x).
func (b *Backend) GeluBackward(dx, dout, x kernels.Tensor) {
	kernels.WantFloat("GeluBackward", "x", x, x.Rows, x.Cols)
	kernels.Want("GeluBackward", "dx", dx, x.DType, x.Rows, x.Cols)
	kernels.Want("GeluBackward", "dout", dout, x.DType, x.Rows, x.Cols)
	b.runs("gelu_backward"+suffix(x.DType), x.Len(), 8, dx.Addr, dout.Addr, x.Addr)
}

package cuda

import (
	"encoding/binary"
	"math"

	"quartet/kernels"
)

// nf4Runs is how many runs of eight weights a thread does, RUNS in nf4.cu.
const nf4Runs = 4

// QuantizeNF4 sets out (NF4, its Quant allocated) from x of the same shape, and with double quantisation waits for the mean
// of the absmaxima.
func (b *Backend) QuantizeNF4(out, x kernels.Tensor) {
	kernels.WantNF4("QuantizeNF4", "out", out)
	kernels.WantFloat("QuantizeNF4", "x", x, out.Rows, out.Cols)
	q, n := out.Quant, x.Len()
	if n == 0 {
		q.NestedOffset = 0
		return
	}
	absmax, blocks := q.Absmax, q.Absmax.Cols
	if q.NestedBlockSize > 0 {
		absmax = b.room("absmax", kernels.F32, 1, blocks)
	}
	b.runs("quantize_nf4"+suffix(x.DType), n, 8, out.Addr, absmax.Addr, x.Addr, number(q.BlockSize))
	if q.NestedBlockSize == 0 {
		return
	}
	mean := b.room("mean", kernels.F32, 1, 1)
	b.run("nf4_mean", [3]int{1, 1, 1}, 1024, 0, mean.Addr, absmax.Addr, number(blocks))
	b.run("nf4_nested", [3]int{q.NestedAbsmax.Cols, 1, 1}, 256, 0,
		q.Absmax.Addr, q.NestedAbsmax.Addr, absmax.Addr, mean.Addr, b.maps().Addr, number(q.NestedBlockSize), number(blocks))
	var host [1]float32
	b.Download(kernels.AsBytes(host[:]), mean)
	q.NestedOffset = host[0]
}

// DequantizeNF4 sets out (F32, F16 or BF16) from x, rounded first to x.Quant.Round.
func (b *Backend) DequantizeNF4(out, x kernels.Tensor) {
	kernels.WantNF4("DequantizeNF4", "x", x)
	kernels.WantFloat("DequantizeNF4", "out", out, x.Rows, x.Cols)
	q, round := x.Quant, x.Quant.Round
	if round == out.DType {
		round = kernels.F32 // out's rounding is enough
	}
	b.runs("dequantize_nf4"+suffix(out.DType), x.Len(), 8*nf4Runs, out.Addr, x.Addr, q.Absmax.Addr, q.NestedAbsmax.Addr, b.maps().Addr,
		real32(q.NestedOffset), number(q.BlockSize), number(q.NestedBlockSize), number(int(round)))
}

// ErrorNF4 is the sum of the squares of what quantising moved weights w by, to x of the same shape, and that of w's own. It waits
// for them.
func (b *Backend) ErrorNF4(x, w kernels.Tensor) (moved, whole float64) {
	kernels.WantNF4("ErrorNF4", "x", x)
	kernels.WantFloat("ErrorNF4", "w", w, x.Rows, x.Cols)
	if x.Len() == 0 {
		return 0, 0
	}
	q, parts := x.Quant, ceil(x.Len(), 8*nf4Runs*256)
	sums := b.room("nf4 error", kernels.U8, parts, 16)
	b.runs("error_nf4"+suffix(w.DType), x.Len(), 8*nf4Runs, sums.Addr, x.Addr, q.Absmax.Addr, q.NestedAbsmax.Addr, b.maps().Addr, w.Addr,
		real32(q.NestedOffset), number(q.BlockSize), number(q.NestedBlockSize), number(int(q.Round)))
	host := make([]byte, sums.Bytes())
	b.Download(host, sums)
	for at := 0; at < len(host); at += 16 {
		moved += math.Float64frombits(binary.LittleEndian.Uint64(host[at:]))
		whole += math.Float64frombits(binary.LittleEndian.Uint64(host[at+8:]))
	}
	return moved, whole
}

// maps is the signed and after it the unsigned 8-bit map (1,512).
func (b *Backend) maps() kernels.Tensor {
	if t, ok := b.scratch["maps"]; ok {
		return kernels.Tensor{DType: kernels.F32, Rows: 1, Cols: 512, Addr: t.Addr}
	}
	t := b.room("maps", kernels.F32, 1, 512)
	values := append(append([]float32{}, kernels.SignedMap[:]...), kernels.UnsignedMap[:]...)
	b.Upload(t, kernels.AsBytes(values))
	return t
}

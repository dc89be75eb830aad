package cuda

import (
	"fmt"
	"math"

	"quartet/kernels"
)

const attentionHead = 128 // elements of a head

func checkAttention(op string, q, k, v, spans kernels.Tensor, h kernels.Heads) {
	if h.KV <= 0 || h.Count%h.KV != 0 || h.Dim > attentionHead {
		panic(fmt.Sprintf("cuda: %s: %d heads of %d, %d key heads; there may be up to %d elements", op, h.Count, h.Dim, h.KV, attentionHead))
	}
	kernels.WantFloat(op, "q", q, q.Rows, h.Count*h.Dim)
	kernels.Want(op, "k", k, q.DType, k.Rows, h.KV*h.Dim)
	kernels.Want(op, "v", v, q.DType, k.Rows, h.KV*h.Dim)
	kernels.Want(op, "spans", spans, kernels.I32, q.Rows, 2)
}

// Attention sets out (T, h.Count·h.Dim) = softmax(q·kᵀ/sqrt(h.Dim))·v over each query's span of keys. A query without keys gets 0.
func (b *Backend) Attention(out, lse, q, k, v, spans kernels.Tensor, h kernels.Heads) {
	const op = "Attention"
	checkAttention(op, q, k, v, spans, h)
	kernels.Want(op, "out", out, q.DType, q.Rows, q.Cols)
	if !lse.IsZero() {
		kernels.Want(op, "lse", lse, kernels.F32, q.Rows, h.Count)
	}
	args := []uint64{out.Addr, lse.Addr, q.Addr, k.Addr, v.Addr, spans.Addr, number(q.Rows), number(h.Count), number(h.KV), number(h.Dim), scale(h)}
	if width := tileWidth(h, out, q, k, v); width > 0 {
		b.headTiles("attention", q.DType, width, 5*tileRows, q.Rows, h.Count, args...)
		return
	}
	b.warps("attention_plain"+suffix(q.DType), q.Rows*h.Count, args...)
}

// AttentionBackward sets dq and adds dk += , dv += from dout, with out and lse as the forward pass left them.
func (b *Backend) AttentionBackward(dq, dk, dv, dout, q, k, v, out, lse, spans kernels.Tensor, h kernels.Heads) {
	const op = "AttentionBackward"
	checkAttention(op, q, k, v, spans, h)
	kernels.Want(op, "dq", dq, q.DType, q.Rows, q.Cols)
	kernels.Want(op, "dout", dout, q.DType, q.Rows, q.Cols)
	kernels.Want(op, "out", out, q.DType, q.Rows, q.Cols)
	kernels.Want(op, "dk", dk, q.DType, k.Rows, k.Cols)
	kernels.Want(op, "dv", dv, q.DType, k.Rows, k.Cols)
	kernels.Want(op, "lse", lse, kernels.F32, q.Rows, h.Count)
	items, end := q.Rows*h.Count, suffix(q.DType)
	if items == 0 {
		return
	}
	delta := b.room("delta", kernels.F32, q.Rows, h.Count)
	forQueries := []uint64{dq.Addr, dout.Addr, q.Addr, k.Addr, v.Addr, lse.Addr, delta.Addr, spans.Addr,
		number(q.Rows), number(h.Count), number(h.KV), number(h.Dim), scale(h)}
	forKeys := []uint64{dk.Addr, dv.Addr, dout.Addr, q.Addr, k.Addr, v.Addr, lse.Addr, delta.Addr, spans.Addr,
		number(q.Rows), number(k.Rows), number(h.Count), number(h.KV), number(h.Dim), scale(h)}
	if width := tileWidth(h, dq, dk, dv, dout, q, k, v); width > 0 {
		b.warps("attention_delta"+end, items, delta.Addr, dout.Addr, out.Addr, number(items), number(h.Dim))
		b.headTiles("attention_dq", q.DType, width, 4*tileRows, q.Rows, h.Count, forQueries...)
		b.headTiles("attention_dkv", q.DType, width, 2*tileRows, k.Rows, h.KV, forKeys...)
		return
	}
	b.warps("attention_plain_delta"+end, items, delta.Addr, dout.Addr, q.Addr, k.Addr, v.Addr, lse.Addr, spans.Addr,
		number(q.Rows), number(h.Count), number(h.KV), number(h.Dim), scale(h))
	b.warps("attention_plain_dq"+end, items, forQueries...)
	b.warps("attention_plain_dkv"+end, k.Rows*h.KV, forKeys...)
}

func scale(h kernels.Heads) uint64 { return real32(float32(1 / math.Sqrt(float64(h.Dim)))) }

// warps queues a kernel that does n items, each by a warp.
func (b *Backend) warps(kernel string, n int, args ...uint64) {
	const warps = 4
	if n > 0 {
		b.run(kernel, [3]int{ceil(n, warps), 1, 1}, 32*warps, 0, args...)
	}
}

// tileRows is how many queries or keys a block of the tensor cores' kernels takes.
const tileRows = 64

// tileWidth is the padded size of a head in the tensor cores' kernels; 0 where these don't take the heads or the operands, whose
// rows must lie on 16-byte boundaries.
func tileWidth(h kernels.Heads, operands ...kernels.Tensor) int {
	if h.Dim%8 != 0 || operands[0].DType == kernels.F32 {
		return 0
	}
	for _, t := range operands {
		if t.Addr%16 != 0 {
			return 0
		}
	}
	for _, width := range [...]int{64, 80, 96, 128} {
		if h.Dim <= width {
			return width
		}
	}
	return 0
}

// headTiles queues a kernel of the tensor cores with a block for each tileRows rows of each head; it keeps some rows of heads in
// shared memory, eight elements apart from each other.
func (b *Backend) headTiles(kernel string, d kernels.DType, width, kept, rows, heads int, args ...uint64) {
	const threads = 128
	if rows > 0 {
		b.run(fmt.Sprintf("%s%s_%d", kernel, suffix(d), width), [3]int{ceil(rows, tileRows), heads, 1}, threads, kept*(width+8)*2, args...)
	}
}

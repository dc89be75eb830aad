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
	if q.Rows == 0 {
		return
	}
	end, d := suffix(q.DType), h.Dim
	if width := tileWidth(h, out, q, k, v); width > 0 && !few(q, k) {
		b.headTiles("attention", q.DType, width, [3]int{h.Count, ceil(q.Rows, tileRows), 1},
			out.Addr, lse.Addr, q.Addr, k.Addr, v.Addr, spans.Addr, number(q.Rows), number(h.Count), number(h.KV), number(d), scale(h))
		return
	}
	items, parts := q.Rows*h.Count, b.parts(q, k, h)
	var room kernels.Tensor
	if parts > 1 {
		room = b.room("attention's parts", kernels.F32, items, parts*(d+2))
	}
	wide := d%8 == 0 && (q.Addr|k.Addr|v.Addr)%16 == 0
	b.run("attention_few"+end, [3]int{items, parts, 1}, headThreads, 0,
		out.Addr, lse.Addr, room.Addr, q.Addr, k.Addr, v.Addr, spans.Addr, number(h.Count), number(h.KV), number(d), number(parts), scale(h), flag(wide))
	if parts > 1 {
		b.run("attention_join"+end, [3]int{items, 1, 1}, headThreads, 0, out.Addr, lse.Addr, room.Addr, number(d), number(parts))
	}
}

// few reports whether the queries are probably of many sequences in a cache, a token or two of each: a tile of them would have
// little to share.
func few(q, k kernels.Tensor) bool { return q.Rows <= 256 && k.Rows >= 64*q.Rows }

// parts is into how many parts each query's keys are divided, to keep the whole GPU busy with few queries. How many keys there are is
// known to the GPU alone; they are taken to be shared out among the queries.
func (b *Backend) parts(q, k kernels.Tensor, h kernels.Heads) int {
	const blocks, keys = 8, 64 // on a processor; of a part at least
	return max(1, min(blocks*b.dev.info().Processors/(q.Rows*h.Count), k.Rows/(keys*q.Rows)))
}

// AttentionBackward sets dq, dk and dv from dout, with out and lse as the forward pass left them.
func (b *Backend) AttentionBackward(dq, dk, dv, dout, q, k, v, out, lse, spans kernels.Tensor, h kernels.Heads) {
	const op = "AttentionBackward"
	checkAttention(op, q, k, v, spans, h)
	kernels.Want(op, "dq", dq, q.DType, q.Rows, q.Cols)
	kernels.Want(op, "dout", dout, q.DType, q.Rows, q.Cols)
	kernels.Want(op, "out", out, q.DType, q.Rows, q.Cols)
	kernels.Want(op, "dk", dk, q.DType, k.Rows, k.Cols)
	kernels.Want(op, "dv", dv, q.DType, k.Rows, k.Cols)
	kernels.Want(op, "lse", lse, kernels.F32, q.Rows, h.Count)
	if q.Rows == 0 {
		b.Zero(dk)
		b.Zero(dv)
		return
	}
	end, d := suffix(q.DType), h.Dim
	if width := tileWidth(h, dq, dk, dv, dout, q, k, v, out); width > 0 {
		tiles := ceil(k.Rows, tileRows)
		stats := b.room("attention's stats", kernels.F32, q.Rows, 2*h.Count)
		readers := b.room("attention's readers", kernels.I32, tiles, 2)
		pieces := h.Count * d / 8
		b.run("attention_before"+end, [3]int{tiles + q.Rows, 1, 1}, min(1024, 32*ceil(pieces, 32)), 4*pieces,
			stats.Addr, readers.Addr, dout.Addr, out.Addr, lse.Addr, spans.Addr, number(q.Rows), number(tiles), number(h.Count), number(d), scale(h))
		b.headTiles("attention_backward", q.DType, width, [3]int{h.Count, ceil(max(q.Rows, k.Rows), tileRows), 2},
			dq.Addr, dk.Addr, dv.Addr, dout.Addr, q.Addr, k.Addr, v.Addr, stats.Addr, readers.Addr, spans.Addr,
			number(q.Rows), number(k.Rows), number(h.Count), number(h.KV), number(d), scale(h))
		return
	}
	delta := b.room("delta", kernels.F32, q.Rows, h.Count)
	b.warps("attention_plain_delta"+end, q.Rows*h.Count, delta.Addr, dout.Addr, q.Addr, k.Addr, v.Addr, lse.Addr, spans.Addr,
		number(q.Rows), number(h.Count), number(h.KV), number(d), scale(h))
	b.warps("attention_plain_dq"+end, q.Rows*h.Count, dq.Addr, dout.Addr, q.Addr, k.Addr, v.Addr, lse.Addr, delta.Addr, spans.Addr,
		number(q.Rows), number(h.Count), number(h.KV), number(d), scale(h))
	b.warps("attention_plain_dkv"+end, k.Rows*h.KV, dk.Addr, dv.Addr, dout.Addr, q.Addr, k.Addr, v.Addr, lse.Addr, delta.Addr, spans.Addr,
		number(q.Rows), number(k.Rows), number(h.Count), number(h.KV), number(d), scale(h))
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

// headThreads is the threads of a block that does tileRows rows of a head on tensor cores, or one row's part.
const headThreads = 128

// headTiles queues a kernel of the tensor cores. It keeps four tiles of heads' rows in shared memory, eight elements apart from each other.
func (b *Backend) headTiles(kernel string, d kernels.DType, width int, grid [3]int, args ...uint64) {
	const tiles = 4
	b.run(fmt.Sprintf("%s%s_%d", kernel, suffix(d), width), grid, headThreads, tiles*tileRows*(width+8)*2, args...)
}

package cuda

import (
	"bytes"
	"encoding/binary"

	"quartet/kernels"
)

// These are the structures of decode_plan.cuh, field by field; addresses are the device's.

type planMatrix struct {
	Weight, Absmax, Nested uint64
	Offset                 float32
	Rows                   int32
}

type planAdapter struct {
	A, B              uint64
	Scale             float32
	Rank, Slot, Spare int32
}

// The inputs and outputs of a phase.
const (
	planNormed int32 = iota
	planGiven
)

const (
	planPlain int32 = iota
	planGelu
	planAdded
	planScored
)

type planPhase struct {
	Part                                                [3]planMatrix
	Beside                                              planMatrix
	Down, Up                                            [4]planAdapter
	Bias, NormWeight, NormBias, Tables, Rotary          uint64
	Stream, QKV, Low, Logits, Best                      uint64
	Attended, Inner, Keys, Values, BestID, State        uint64
	Input, Output, Columns, Right, Block, NestedBlock   int32
	Heads, KV, Dim, Rotated, AttentionBlocks, RowBlocks int32
	Eps                                                 float32
	Spare                                               int32
}

type planState struct {
	Token, Position, First, Step int32
	Penalty                      float32
	Spare                        [3]int32
	Allowed, Seen, Chosen        uint64
}

// planBytes is structures one behind the other.
func planBytes[T any](all ...T) []byte {
	var buffer bytes.Buffer
	for i := range all {
		if err := binary.Write(&buffer, binary.LittleEndian, &all[i]); err != nil {
			panic(err) // the structures have fixed sizes
		}
	}
	return buffer.Bytes()
}

// kind says how the kernels stream a weight: a kernel's suffix, rows a chunk, and the bytes of shared memory before the sums
// (0: the input, two bytes a column). The constants are those of decode_stream.cuh.
type planKind struct {
	suffix      string
	rows, table int
}

const (
	planThreads = 512
	planSegment = 512
	planRoom    = 4 * (3*128 + 2*32 + 32*128) // AttentionRoom
	planSums    = 24 << 10                    // bytes of sums that a block has at most where more blocks help
)

// kindOf is how a weight is streamed; ok is false where it can't be.
func kindOf(w kernels.Tensor) (k planKind, ok bool) {
	if w.Addr%16 != 0 || w.Cols%8 != 0 {
		return planKind{}, false
	}
	switch w.DType {
	case kernels.F16, kernels.BF16:
		return planKind{suffix(w.DType), 2, 0}, true
	case kernels.NF4:
		return planKind{"_nf4", 4, 64 << 10}, w.Cols%64 == 0 && w.Quant.BlockSize%64 == 0 && w.Quant.Round != kernels.BF16
	}
	return planKind{}, false
}

func matrixOf(w kernels.Tensor) planMatrix {
	m := planMatrix{Weight: w.Addr, Rows: int32(w.Rows)}
	if q := w.Quant; q != nil {
		m.Absmax, m.Nested, m.Offset = q.Absmax.Addr, q.NestedAbsmax.Addr, q.NestedOffset
	}
	return m
}

func segments(columns int) int { return ceil(columns, planSegment) }

// chunks is the units of rows that the phase's blocks share.
func (p *planPhase) chunks(k planKind) (n int) {
	for _, m := range p.Part {
		n += ceil(int(m.Rows), k.rows)
	}
	return n
}

// share divides the phase's rows among about as many blocks as the GPU has processors to spare, and more where the sums of a
// block's rows would take too much shared memory.
func (p *planPhase) share(k planKind, processors int) {
	chunks := p.chunks(k)
	blocks := max(1, processors-int(p.AttentionBlocks))
	for p.sums(k, ceil(chunks, blocks)) > planSums && blocks < chunks {
		blocks += processors
	}
	p.RowBlocks = int32(min(blocks, chunks))
}

// sums is the bytes of a block's sums, and of its scales for NF4.
func (p *planPhase) sums(k planKind, chunks int) int {
	n := chunks * k.rows * 8 * (segments(int(p.Columns)) + segments(int(p.Right))) * 4
	if k.table > 0 {
		n *= 2
	}
	return n
}

// launch is the phase's kernel; at is where the GPU finds the phase.
func (p *planPhase) launch(k planKind, at uint64) launch {
	rank := 0
	for _, a := range p.Down {
		rank += int(a.Rank)
	}
	input := k.table
	if input == 0 {
		input = planSegment * 2 * (segments(int(p.Columns)) + segments(int(p.Right)))
	}
	shared := input + 4*planThreads/32
	if p.RowBlocks > 0 {
		shared = max(shared, input+p.sums(k, ceil(p.chunks(k), int(p.RowBlocks))))
	}
	if p.AttentionBlocks > 0 {
		shared = max(shared, planRoom)
	}
	return launch{
		kernel: "decode_rows" + k.suffix, grid: [3]int{int(p.AttentionBlocks+p.RowBlocks) + ceil(rank, 4), 1, 1}, block: planThreads, shared: shared,
		args: []uint64{at}, early: true,
	}
}

package cuda

import (
	"bytes"
	"encoding/binary"
	"math/bits"

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

// The inputs and outputs of a phase, and its weights.
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

type planStream struct {
	Part                           [3]planMatrix
	Beside                         planMatrix
	Ends                           [3]int32
	Columns, Right, Segments, Wide int32
	Kind, BlockShift, NestedShift  int32
	AttentionBlocks, Shares        int32
	Kept, Spare                    int32
	Own                            [4]uint32 // each block's own
}

type planPhase struct {
	Down, Up                           [4]planAdapter
	Bias, NormWeight, NormBias, Rotary uint64
	Stream, QKV, Low, Logits, Best     uint64
	Attended, Inner, Keys, Values      uint64
	BestID                             uint64
	Input, Output                      int32
	Heads, KV, Dim, Rotated            int32
	Eps                                float32
	LowRows                            int32
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

// planKind says how the kernel streams a weight: its code there, and the rows of a chunk.
type planKind struct {
	code int32
	rows int
}

// The constants are those of decode_stream.cuh and decode_attention.cuh.
const (
	planThreads = 512
	planSegment = 512 // columns of a unit
	planWhole   = 8   // shares of the rows that a block has where it has no attention; one where it has
	planWarps   = planThreads / 32
	planRoom    = 4 * (3*128 + 2*32 + 32*128) // AttentionRoom
	planTable   = 256 * 256
	planSlot    = 1024
	planAsked   = 8 * 2 * planThreads // codes of scales
	planStatic  = 3 << 10             // what the kernel has besides, at most
)

var (
	planHalf  = planKind{0, 1}
	planBrain = planKind{1, 1}
	planCodes = planKind{2, 4}
)

// kindOf is how a weight is streamed; ok is false where it can't be.
func kindOf(w kernels.Tensor) (k planKind, ok bool) {
	if w.Addr%16 != 0 || w.Cols%8 != 0 {
		return planKind{}, false
	}
	switch w.DType {
	case kernels.F16:
		return planHalf, true
	case kernels.BF16:
		return planBrain, true
	case kernels.NF4:
		q := w.Quant
		whole := w.Rows%planCodes.rows == 0 && w.Cols%64 == 0 && q.BlockSize%64 == 0 && isPower(q.BlockSize/64) && isPower(max(q.NestedBlockSize, 1)) && q.Absmax.Addr%4 == 0
		return planCodes, whole && q.Round != kernels.BF16
	}
	return planKind{}, false
}

func isPower(n int) bool { return n > 0 && n&(n-1) == 0 }

func matrixOf(w kernels.Tensor) planMatrix {
	m := planMatrix{Weight: w.Addr, Rows: int32(w.Rows)}
	if q := w.Quant; q != nil {
		m.Absmax, m.Nested, m.Offset = q.Absmax.Addr, q.NestedAbsmax.Addr, q.NestedOffset
	}
	return m
}

// stream shares the rows of linears, one above the other, among blocks, of which the first `attention` have attention too. right is zero or the
// linear to the right of the first.
func stream(linears []kernels.DecodeLinear, right kernels.DecodeLinear, attention, blocks int) planStream {
	k, _ := kindOf(linears[0].Weight)
	s := planStream{Kind: k.code, Columns: int32(linears[0].Weight.Cols), Right: int32(right.Weight.Cols), AttentionBlocks: int32(attention)}
	chunks := 0
	for i := range s.Ends {
		if i < len(linears) {
			s.Part[i] = matrixOf(linears[i].Weight)
			chunks += ceil(linears[i].Weight.Rows, k.rows)
		}
		s.Ends[i] = int32(chunks)
	}
	if s.Right > 0 {
		s.Beside = matrixOf(right.Weight)
	}
	s.Segments = int32(ceil(int(s.Columns), planSegment))
	s.Wide = s.Segments + int32(ceil(int(s.Right), planSegment))
	if q := linears[0].Weight.Quant; q != nil {
		s.BlockShift, s.NestedShift = int32(bits.TrailingZeros(uint(q.BlockSize/64))), int32(bits.TrailingZeros(uint(max(q.NestedBlockSize, 1))))
	}
	s.Shares = int32(attention + planWhole*(min(blocks, max(attention, chunks))-attention))
	return s
}

// withoutRows is the stream with its input alone: no weights.
func (s planStream) withoutRows() planStream {
	s.Ends, s.Shares = [3]int32{}, 0
	return s
}

// most is how many chunks a block has at most.
func (s *planStream) most() int {
	if s.Shares == 0 {
		return 0
	}
	return ceil(planWhole*int(s.Ends[2]), int(s.Shares))
}

// parts is the bytes of a block's sums.
func (s *planStream) parts() int {
	rows := planHalf.rows
	if s.Kind == planCodes.code {
		rows = planCodes.rows
	}
	return 4 * rows * (s.most() + planWarps)
}

// scales is the bytes of a block's scales.
func (s *planStream) scales() int {
	if s.Kind != planCodes.code {
		return 0
	}
	return 4 * 36 * int(s.Wide) * s.most()
}

// input is the bytes of the phase's input in shared memory where no table is around it.
func (s *planStream) input() int { return 2 * planSegment * int(s.Wide) }

// planShared is where things lie in a block's shared memory, and how many slots the rings have.
type planShared struct{ room, parts, codes, streams, ring, bytes, slots int }

// shared lays out shared memory for streams; slots is 0 where it is too small. Attention's room is that of the scales, or where
// there are none that of the input, both of which are done with by then.
func shared(streams []planStream, coded bool, most int) planShared {
	var p planShared
	input, parts, scales := 0, 0, 0
	for i := range streams {
		s, own := &streams[i], streams[i].scales()
		if s.Kept != 0 {
			own += streams[i-1].scales()
		}
		input, parts, scales = max(input, s.input()), max(parts, s.parts()), max(scales, own)
	}
	align := func(n int) int { return ceil(n, 128) * 128 }
	choices := []int{10, 5, 2}
	if coded {
		choices = []int{6, 3, 2}
		p.room = planTable
		p.parts = align(planTable + max(scales, planRoom))
		p.codes = align(p.parts + parts)
		p.streams = align(p.codes + planAsked)
	} else {
		p.parts = align(max(input, planRoom))
		p.codes = align(p.parts + parts)
		p.streams = p.codes
	}
	p.ring = align(p.streams + len(planBytes(streams...)))
	for _, p.slots = range choices {
		if p.bytes = p.ring + planWarps*planSlot*p.slots; p.bytes+planStatic <= most {
			return p
		}
	}
	p.slots = 0
	return p
}

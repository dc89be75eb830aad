package cuda

import (
	"fmt"

	"quartet/kernels"
)

// planner makes a decode of a model.
type planner struct {
	*decode
	m       kernels.DecodeModel
	blocks  int       // as many as the GPU has processors
	common  planPhase // what all phases share
	phases  []planPhase
	streams []planStream // of the phases
	coded   bool         // some weights are NF4
	rank    int          // the largest
	err     error
}

const (
	maxStream = 8 * planThreads // columns of the stream: eight a thread
	maxHead   = 128             // elements of a head: eight a thread of a team of 16
	maxCoded  = 256 * 64        // columns that the gaps of the NF4 table hold
)

// fits reports whether the kernels take the model's shapes and types.
func (p *planner) fits() bool {
	m, h := p.m, p.m.Heads
	D := m.Embed.Cols
	if p.b.act != kernels.F16 || !m.Embed.DType.IsFloat() || D > maxStream || h.Dim%8 != 0 || h.Dim > maxHead {
		return false
	}
	p.coded = m.Head.Weight.DType == kernels.NF4
	for _, l := range m.Layers {
		p.coded = p.coded || l.Q.Weight.DType == kernels.NF4 || l.FC1.Weight.DType == kernels.NF4 || l.FC2.Weight.DType == kernels.NF4
	}
	alike := func(linears ...kernels.DecodeLinear) bool {
		columns := 0
		for i, l := range linears {
			k, ok := kindOf(l.Weight)
			first, _ := kindOf(linears[0].Weight)
			if !ok || k != first {
				return false
			}
			if q, f := l.Weight.Quant, linears[0].Weight.Quant; q != nil && (q.BlockSize != f.BlockSize || q.NestedBlockSize != f.NestedBlockSize) {
				return false
			}
			if i == 0 || l.Weight.Cols != linears[0].Weight.Cols {
				columns += ceil(l.Weight.Cols, planSegment) * planSegment
			}
			if p.coded && columns > maxCoded {
				return false
			}
		}
		return true
	}
	for _, l := range m.Layers {
		if l.Keys.DType != kernels.F16 || !alike(l.Q, l.K, l.V) || !alike(l.FC1) || !alike(l.Dense, l.FC2) {
			return false
		}
	}
	return alike(m.Head)
}

// alloc reserves memory that the plan holds.
func (p *planner) alloc(d kernels.DType, cols int) kernels.Tensor {
	if p.err != nil || cols == 0 {
		return kernels.Tensor{}
	}
	var t kernels.Tensor
	if t, p.err = p.b.Alloc(d, 1, cols); p.err == nil {
		p.owned = append(p.owned, t)
	}
	return t
}

// float is vectors as one in F32.
func (p *planner) float(vectors ...kernels.Tensor) kernels.Tensor {
	n := 0
	for _, v := range vectors {
		n += v.Cols
	}
	out := p.alloc(kernels.F32, n)
	at := 0
	for _, v := range vectors {
		if p.err == nil {
			p.b.Copy(out.Reshape(n, 1).Slice(at, at+v.Cols).Reshape(1, v.Cols), v)
		}
		at += v.Cols
	}
	return out
}

// plan makes the launch; room is false where a block's shared memory is too small.
func (p *planner) plan() (room bool, err error) {
	m, h := p.m, p.m.Heads
	D, V, F := m.Embed.Cols, m.Embed.Rows, m.Layers[0].FC1.Weight.Rows
	p.logits, p.chosen = p.alloc(kernels.F32, V), p.alloc(kernels.I32, greedyAhead)
	p.allowed, p.seen = p.alloc(kernels.I32, ceil(V, 32)), p.alloc(kernels.I32, ceil(V, 32))
	p.stateAt = p.alloc(kernels.U8, len(planBytes(planState{})))
	p.state.Chosen, p.state.Penalty = p.chosen.Addr, 1
	tables := p.alloc(kernels.F32, 16+256)
	for _, l := range m.Layers {
		for _, l := range []kernels.DecodeLinear{l.Q, l.K, l.V, l.Dense, l.FC1, l.FC2, m.Head} {
			p.rank = max(p.rank, l.A.Rows)
		}
	}
	stream := p.alloc(kernels.F32, D)
	p.common = planPhase{
		Rotary: m.Rotary.Addr, Stream: stream.Addr, QKV: p.alloc(kernels.F32, (h.Count+2*h.KV)*h.Dim).Addr,
		Low: p.alloc(kernels.F32, 6*p.rank).Addr, Logits: p.logits.Addr,
		Attended: p.alloc(kernels.F16, h.Count*h.Dim).Addr, Inner: p.alloc(kernels.F16, F).Addr,
		Heads: int32(h.Count), KV: int32(h.KV), Dim: int32(h.Dim), Rotated: int32(h.Rotary), Eps: m.Eps,
	}
	for _, l := range m.Layers {
		p.layer(l)
	}
	p.head()
	best, bestID := p.alloc(kernels.F32, p.blocks), p.alloc(kernels.I32, p.blocks)
	last := &p.phases[len(p.phases)-1]
	last.Best, last.BestID = best.Addr, bestID.Addr
	at, streams := p.alloc(kernels.U8, len(planBytes(p.phases...))), p.alloc(kernels.U8, len(planBytes(p.streams...)))
	gates := p.alloc(kernels.I32, 128) // two, a cache line apart
	places := shared(p.streams, p.coded, p.b.dev.info().SharedMemory)
	if places.slots == 0 { // two phases' scales at a time may be too many
		for i := range p.streams {
			p.streams[i].Kept = 0
		}
		places = shared(p.streams, p.coded, p.b.dev.info().SharedMemory)
	}
	if p.err != nil || places.slots == 0 {
		return false, p.err
	}
	p.b.Upload(tables, kernels.AsBytes(append(kernels.NF4Values[:], kernels.SignedMap[:]...)))
	p.b.Upload(at, planBytes(p.phases...))
	p.b.Upload(streams, planBytes(p.streams...))
	p.b.Zero(gates)
	kernel := "decode_float"
	if p.coded {
		kernel = "decode_nf4"
	}
	p.kernel = launch{
		kernel: fmt.Sprintf("%s_%d", kernel, places.slots), grid: [3]int{p.blocks, 1, 1}, block: planThreads, shared: places.bytes, together: true,
		args: []uint64{at.Addr, streams.Addr, number(len(p.phases)), 0, p.stateAt.Addr, tables.Addr, m.Embed.Addr, number(embedKinds[m.Embed.DType]), number(D), gates.Addr,
			number(places.room), number(places.parts), number(places.codes), number(places.streams), number(places.ring)},
	}
	return true, p.b.Sync()
}

// embedKinds is how the kernel names the types of the embedding.
var embedKinds = map[kernels.DType]int{kernels.F16: 0, kernels.BF16: 1, kernels.F32: 2}

// The low products of a layer's adapters, in their order. Those of the head come when no layer needs its own any more.
const (
	slotQ = iota
	slotK
	slotV
	slotFC1
	slotDense
	slotFC2
	slotHead = 0
)

func (p *planner) adapter(l kernels.DecodeLinear, slot int) planAdapter {
	return planAdapter{A: l.A.Addr, B: l.B.Addr, Scale: l.Scale, Rank: int32(l.A.Rows), Slot: int32(slot * p.rank)}
}

// layer plans a layer's three phases, and a fourth where dense or fc2 are adapted.
func (p *planner) layer(l kernels.DecodeLayer) {
	norm := p.common
	norm.NormWeight, norm.NormBias = p.float(l.NormWeight).Addr, p.float(l.NormBias).Addr
	norm.Keys, norm.Values = l.Keys.Addr, l.Values.Addr
	q, k, v, fc1 := p.adapter(l.Q, slotQ), p.adapter(l.K, slotK), p.adapter(l.V, slotV), p.adapter(l.FC1, slotFC1)

	first := norm
	first.Input, first.Output, first.Bias = planNormed, planPlain, p.float(l.Q.Bias, l.K.Bias, l.V.Bias).Addr
	first.Down = [4]planAdapter{q, k, v, fc1}
	p.add(first, stream([]kernels.DecodeLinear{l.Q, l.K, l.V}, kernels.DecodeLinear{}, 0, p.blocks))

	second := norm
	second.Input, second.Output, second.Bias = planNormed, planGelu, p.float(l.FC1.Bias).Addr
	second.Up = [4]planAdapter{q, k, v, fc1}
	rows := stream([]kernels.DecodeLinear{l.FC1}, kernels.DecodeLinear{}, min(p.m.Heads.Count, max(1, p.blocks/4)), p.blocks)
	if fc1.Rank == 0 {
		rows.Kept = 1
	}
	p.add(second, rows)

	third := p.common
	third.Input, third.Output = planGiven, planAdded
	both := stream([]kernels.DecodeLinear{l.Dense}, l.FC2, 0, p.blocks)
	bias := p.float(l.Dense.Bias)
	if other := p.float(l.FC2.Bias); p.err == nil {
		p.b.Add(bias, bias, other)
	}
	third.Bias = bias.Addr
	dense, fc2 := p.adapter(l.Dense, slotDense), p.adapter(l.FC2, slotFC2)
	if dense.Rank+fc2.Rank > 0 {
		low := third
		low.Down = [4]planAdapter{dense, fc2}
		p.add(low, both.withoutRows())
	}
	third.Up = [4]planAdapter{2: dense, 3: fc2}
	p.add(third, both)
}

// head plans the logits.
func (p *planner) head() {
	last := p.common
	last.Input, last.Output = planNormed, planScored
	last.NormWeight, last.NormBias, last.Bias = p.float(p.m.NormWeight).Addr, p.float(p.m.NormBias).Addr, p.float(p.m.Head.Bias).Addr
	rows := stream([]kernels.DecodeLinear{p.m.Head}, kernels.DecodeLinear{}, 0, p.blocks)
	adapter := p.adapter(p.m.Head, slotHead)
	if adapter.Rank > 0 {
		low := last
		low.Down = [4]planAdapter{adapter}
		p.add(low, rows.withoutRows())
	}
	last.Up = [4]planAdapter{3: adapter}
	p.add(last, rows)
}

func (p *planner) add(phase planPhase, s planStream) {
	for _, a := range phase.Down {
		phase.LowRows += a.Rank
	}
	p.phases, p.streams = append(p.phases, phase), append(p.streams, s)
}

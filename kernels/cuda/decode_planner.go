package cuda

import "quartet/kernels"

// planner makes a decode of a model.
type planner struct {
	*decode
	m          kernels.DecodeModel
	processors int       // blocks that run at a time
	common     planPhase // what all phases share
	phases     []planPhase
	kinds      []planKind
	rank       int // the largest
	err        error
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
				columns += segments(l.Weight.Cols) * planSegment
			}
			if k.table > 0 && columns > maxCoded {
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

func (p *planner) plan() error {
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
		Tables: tables.Addr, Rotary: m.Rotary.Addr, Stream: stream.Addr, QKV: p.alloc(kernels.F32, (h.Count+2*h.KV)*h.Dim).Addr,
		Low: p.alloc(kernels.F32, 6*p.rank).Addr, Logits: p.logits.Addr,
		Attended: p.alloc(kernels.F16, h.Count*h.Dim).Addr, Inner: p.alloc(kernels.F16, F).Addr, State: p.stateAt.Addr,
		Heads: int32(h.Count), KV: int32(h.KV), Dim: int32(h.Dim), Rotated: int32(h.Rotary), Eps: m.Eps,
	}
	for _, l := range m.Layers {
		p.layer(l)
	}
	last := p.head()
	best, bestID := p.alloc(kernels.F32, int(last.RowBlocks)), p.alloc(kernels.I32, int(last.RowBlocks))
	last.Best, last.BestID = best.Addr, bestID.Addr
	size := len(planBytes(planPhase{}))
	at := p.alloc(kernels.U8, size*len(p.phases))
	if p.err != nil {
		return p.err
	}
	p.b.Upload(tables, kernels.AsBytes(append(kernels.NF4Values[:], kernels.SignedMap[:]...)))
	p.b.Upload(at, planBytes(p.phases...))
	p.launches = append(p.launches, launch{
		kernel: "decode_begin" + suffix(m.Embed.DType), grid: [3]int{ceil(D, 256), 1, 1}, block: 256,
		args: []uint64{stream.Addr, m.Embed.Addr, p.stateAt.Addr, number(D)},
	})
	for i := range p.phases {
		p.launches = append(p.launches, p.phases[i].launch(p.kinds[i], at.Addr+uint64(i*size)))
	}
	p.launches = append(p.launches, launch{
		kernel: "decode_pick", grid: [3]int{1, 1, 1}, block: 512, args: []uint64{p.stateAt.Addr, best.Addr, bestID.Addr, number(int(last.RowBlocks))}, early: true,
	})
	return p.b.Sync()
}

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

// layer plans a layer's three kernels, and a fourth where dense or fc2 are adapted.
func (p *planner) layer(l kernels.DecodeLayer) {
	norm := p.common
	norm.NormWeight, norm.NormBias = p.float(l.NormWeight).Addr, p.float(l.NormBias).Addr
	norm.Keys, norm.Values = l.Keys.Addr, l.Values.Addr
	q, k, v, fc1 := p.adapter(l.Q, slotQ), p.adapter(l.K, slotK), p.adapter(l.V, slotV), p.adapter(l.FC1, slotFC1)

	first := norm
	first.Input, first.Output, first.Bias = planNormed, planPlain, p.float(l.Q.Bias, l.K.Bias, l.V.Bias).Addr
	first.Down = [4]planAdapter{q, k, v, fc1}
	p.add(first, l.Q, l.K, l.V)

	second := norm
	second.Input, second.Output, second.Bias = planNormed, planGelu, p.float(l.FC1.Bias).Addr
	second.Up = [4]planAdapter{q, k, v, fc1}
	second.AttentionBlocks = int32(max(1, min(p.m.Heads.Count, p.processors/4)))
	p.add(second, l.FC1)

	third := p.common
	third.Input, third.Output, third.Right = planGiven, planAdded, int32(l.FC2.Weight.Cols)
	third.Beside = matrixOf(l.FC2.Weight)
	bias := p.float(l.Dense.Bias)
	if other := p.float(l.FC2.Bias); p.err == nil {
		p.b.Add(bias, bias, other)
	}
	third.Bias = bias.Addr
	dense, fc2 := p.adapter(l.Dense, slotDense), p.adapter(l.FC2, slotFC2)
	if dense.Rank+fc2.Rank > 0 {
		low := third
		low.Columns, low.Beside, low.Down = int32(l.Dense.Weight.Cols), planMatrix{}, [4]planAdapter{dense, fc2}
		p.phases, p.kinds = append(p.phases, low), append(p.kinds, planKind{"_f16", 2, 0})
	}
	third.Up = [4]planAdapter{2: dense, 3: fc2}
	p.add(third, l.Dense)
}

// head plans the logits.
func (p *planner) head() *planPhase {
	last := p.common
	last.Input, last.Output = planNormed, planScored
	last.NormWeight, last.NormBias, last.Bias = p.float(p.m.NormWeight).Addr, p.float(p.m.NormBias).Addr, p.float(p.m.Head.Bias).Addr
	adapter := p.adapter(p.m.Head, slotHead)
	if adapter.Rank > 0 {
		low := last
		low.Columns, low.Down = int32(p.m.Head.Weight.Cols), [4]planAdapter{adapter}
		p.phases, p.kinds = append(p.phases, low), append(p.kinds, planKind{"_f16", 2, 0})
	}
	last.Up = [4]planAdapter{3: adapter}
	p.add(last, p.m.Head)
	return &p.phases[len(p.phases)-1]
}

// add plans a kernel over linears, one above the other.
func (p *planner) add(phase planPhase, linears ...kernels.DecodeLinear) {
	kind, _ := kindOf(linears[0].Weight)
	phase.Columns = int32(linears[0].Weight.Cols)
	for i, l := range linears {
		phase.Part[i] = matrixOf(l.Weight)
	}
	if q := linears[0].Weight.Quant; q != nil {
		phase.Block, phase.NestedBlock = int32(q.BlockSize), int32(max(q.NestedBlockSize, 1))
	}
	phase.share(kind, p.processors)
	p.phases, p.kinds = append(p.phases, phase), append(p.kinds, kind)
}

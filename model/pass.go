package model

import (
	"errors"
	"fmt"
	"slices"

	"quartet/kernels"
)

// Batch is rows of tokens packed end to end, so that no operation computes padding.
type Batch struct {
	IDs     []int32 // (T)
	Labels  []int32 // (T), aligned with IDs: the pass shifts them by one inside each row; -100 masks. nil for inference
	Offsets []int32 // (S+1): row s is IDs[Offsets[s]:Offsets[s+1]]
	Rows    []int32 // (S): what names a row to dropout; nil for 0 … S-1
}

// Ignore is the label of a token that is not trained.
const Ignore = -100

// Pack makes a batch of rows of token ids, without labels.
func Pack(rows ...[]int32) Batch {
	b := Batch{Offsets: []int32{0}}
	for _, r := range rows {
		b.IDs = append(b.IDs, r...)
		b.Offsets = append(b.Offsets, int32(len(b.IDs)))
	}
	return b
}

// Dropout is the dropout of one training step.
type Dropout struct {
	Seed           uint64
	Step           uint32
	LoRA, Residual float32 // probabilities
}

// PassOptions say what a Pass is for.
type PassOptions struct {
	Train     bool // keep what the backward pass needs
	Recompute Recompute
}

// Recompute says what a training pass computes again in the backward pass instead of keeping it (Chen et al. 2016). The
// gradients are the same to the bit.
type Recompute string

// From the fastest to the smallest.
const (
	RecomputeNothing Recompute = "nothing" // also the zero value
	RecomputeMLP     Recompute = "mlp"     // the MLP's inner activations, 45 % of what phi-2 keeps, for a sixth more work
	RecomputeLayer   Recompute = "layer"   // all but the layers' inputs, for half more work
)

// smallPack is how many packed tokens a training may have that is to fit a small GPU.
const smallPack = 2048

// RecomputeFor is what training on packs of up to a number of tokens computes again on a backend: with checkpointing the layers; on a
// GPU the MLP's inner activations of small packs, with which phi-2 fits 8 GB. Packs that want a larger GPU anyway are for speed.
func RecomputeFor(backend string, checkpointing bool, tokens int) Recompute {
	switch {
	case checkpointing:
		return RecomputeLayer
	case backend == "cuda" && tokens <= smallPack:
		return RecomputeMLP
	}
	return RecomputeNothing
}

// Pass is the working memory for running a model over up to a fixed number of packed tokens. It belongs to one goroutine.
type Pass struct {
	m       *Model
	b       kernels.Backend
	fused   kernels.Fused
	options PassOptions
	max     int // tokens
	chunk   int // rows of logits held at once
	heads   kernels.Heads
	owned   []kernels.Tensor

	x          []kernels.Tensor // the residual stream: before each layer and after the last when training, otherwise one
	saved      []activations    // of each layer when training without checkpointing, otherwise one
	final      kernels.Tensor   // (T,D): the stream after the last LayerNorm
	finalStats kernels.Tensor   // F32 (T,2)

	norm, branch, gelu, adapted          kernels.Tensor // (T,D) (T,D) (T,F) (T,widest input)
	low                                  lows           // of each layer when training, otherwise one
	logits, losses, picked               kernels.Tensor // (chunk,V) F32 (1,T) (chunk,D)
	rotary                               kernels.Tensor // F32 (positions, RotaryDim)
	ids, positions, spans, tokens, slots kernels.Tensor // I32 (1,T) (1,T) (T,2) (T,2) (1,T)
	wanted, labels, wantedTokens         kernels.Tensor // I32 (1,chunk) (1,chunk) (chunk,2)

	grad gradients
	run  running
}

// activations are what a layer's backward pass needs besides its input.
type activations struct {
	stats            kernels.Tensor // F32 (T,2)
	q, k, v          kernels.Tensor // (T,H·d) (T,KV·d) (T,KV·d), q and k rotated
	attention, logSE kernels.Tensor // (T,H·d), F32 (T,H)
	fc1              kernels.Tensor // (T,F), before gelu
}

// gradients is the backward pass's memory.
type gradients struct {
	x, norm, branch, q, k, v, attention, fc1 kernels.Tensor
	adapted, picked                          kernels.Tensor
	low                                      lows // one
}

// lows are (T,r), what an adapter's modules have between their two matrices, by layer and linear.
type lows [][LMHead + 1]kernels.Tensor

// running is the batch at hand.
type running struct {
	ids, positions, spans, tokens kernels.Tensor // the views of this batch's length
	host                          struct{ positions, spans, tokens []int32 }
	drop                          *Dropout
	cache                         *Cache         // where keys and values go; nil: they are the batch's own
	slots                         kernels.Tensor // I32 (1,T): the cache rows of the batch's tokens
}

// logitRows is how many rows of logits a pass for a number of tokens holds at once: 26 MB in 16 bits, and in training a fifth of all, so
// that products are large. They are whole tiles of a product on a GPU.
func logitRows(tokens, vocabulary int, train bool) int {
	const elements, tile = 13 << 20, 256
	rows := elements / vocabulary
	if train {
		rows = max(rows, tokens/5)
	}
	if rows > tile {
		rows -= rows % tile
	}
	return max(1, min(tokens, rows))
}

// NewPass reserves the memory for batches of up to maxTokens tokens. Running out of memory is an error that says what to change.
func (m *Model) NewPass(maxTokens int, o PassOptions) (*Pass, error) {
	return m.newPass(maxTokens, min(m.Config.MaxPositions, maxTokens), o)
}

func (m *Model) newPass(maxTokens, positions int, o PassOptions) (*Pass, error) {
	c, b := m.Config, m.backend
	if o.Train && m.Adapter == nil {
		return nil, errors.New("train: the model has no adapter, and base weights are frozen")
	}
	if o.Recompute == "" {
		o.Recompute = RecomputeNothing
	}
	p := &Pass{m: m, b: b, fused: kernels.Fuse(b), options: o, max: maxTokens, heads: c.HeadsGeometry()}
	act, T := b.Activations(), maxTokens
	p.chunk = logitRows(maxTokens, c.VocabSize, o.Train)
	queries, keys := c.Heads*c.HeadDim(), c.KVHeads*c.HeadDim()
	widest := p.widestAdapted()
	var err error
	alloc := func(d kernels.DType, rows, cols int) kernels.Tensor {
		if err != nil || rows*cols == 0 {
			return kernels.Tensor{}
		}
		var t kernels.Tensor
		if t, err = b.Alloc(d, rows, cols); err == nil {
			p.owned = append(p.owned, t)
		}
		return t
	}
	streams, layers := 1, 1
	if o.Train {
		streams = c.Layers + 1
		if o.Recompute != RecomputeLayer {
			layers = c.Layers
		}
	}
	for range streams {
		p.x = append(p.x, alloc(act, T, c.Hidden))
	}
	inner := alloc(act, T, c.Intermediate)
	for i := range layers {
		if i > 0 && o.Recompute != RecomputeMLP && m.Adapter.throughMLP(i-1) { // what no gradient needs may be overwritten
			inner = alloc(act, T, c.Intermediate)
		}
		p.saved = append(p.saved, activations{
			stats: alloc(kernels.F32, T, 2),
			q:     alloc(act, T, queries), k: alloc(act, T, keys), v: alloc(act, T, keys),
			attention: alloc(act, T, queries), logSE: alloc(kernels.F32, T, c.Heads),
			fc1: inner,
		})
	}
	p.finalStats = alloc(kernels.F32, T, 2)
	p.final, p.norm, p.branch = alloc(act, T, c.Hidden), alloc(act, T, c.Hidden), alloc(act, T, c.Hidden)
	p.gelu = alloc(act, T, c.Intermediate)
	p.adapted = alloc(act, T, widest)
	allocLows := func(layers int) lows {
		all := make(lows, layers)
		if m.Adapter == nil {
			return nil
		}
		for _, l := range m.Adapter.Modules {
			if low := all.of(l); low.IsZero() {
				*low = alloc(act, T, l.A.Rows)
			}
		}
		return all
	}
	if o.Train {
		p.low = allocLows(c.Layers)
	} else {
		p.low = allocLows(1)
	}
	p.logits, p.losses, p.picked = alloc(act, p.chunk, c.VocabSize), alloc(kernels.F32, 1, T), alloc(act, p.chunk, c.Hidden)
	p.rotary = alloc(kernels.F32, positions, c.RotaryDim())
	p.ids, p.positions = alloc(kernels.I32, 1, T), alloc(kernels.I32, 1, T)
	p.spans, p.tokens, p.slots = alloc(kernels.I32, T, 2), alloc(kernels.I32, T, 2), alloc(kernels.I32, 1, T)
	p.wanted, p.labels, p.wantedTokens = alloc(kernels.I32, 1, p.chunk), alloc(kernels.I32, 1, p.chunk), alloc(kernels.I32, p.chunk, 2)
	if o.Train {
		// Gradients take the place of what the layers need on the way forward alone. fc2's adapter needs gelu besides fc1's gradient.
		p.grad = gradients{
			x: p.final, norm: alloc(act, T, c.Hidden), branch: p.branch,
			q: alloc(act, T, queries), k: alloc(act, T, keys), v: alloc(act, T, keys),
			attention: alloc(act, T, queries), fc1: p.gelu,
			adapted: alloc(act, T, widest), low: allocLows(1), picked: alloc(act, p.chunk, c.Hidden),
		}
		if p.m.Adapter.adapts(FC2) {
			p.grad.fc1 = alloc(act, T, c.Intermediate)
		}
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("reserve memory for %d packed tokens: %w", maxTokens, err)
	}
	if !p.rotary.IsZero() {
		b.Upload(p.rotary, kernels.AsBytes(rotaryTable(c, positions)))
	}
	return p, nil
}

// widestAdapted is the widest input of the adapter's modules, 0 without one.
func (p *Pass) widestAdapted() (widest int) {
	if p.m.Adapter == nil {
		return 0
	}
	for _, l := range p.m.Adapter.Modules {
		widest = max(widest, l.A.Cols)
	}
	return widest
}

// of is where a module's is kept.
func (l lows) of(m *LoRA) *kernels.Tensor { return &l[min(max(m.Layer, 0), len(l)-1)][m.Linear] }

// adapts reports whether a linear is adapted in any layer.
func (a *Adapter) adapts(linear int) bool {
	return slices.ContainsFunc(a.Modules, func(m *LoRA) bool { return m.Linear == linear })
}

// Bytes is the memory that the pass holds.
func (p *Pass) Bytes() int64 {
	var n int64
	for _, t := range p.owned {
		n += int64(t.Bytes())
	}
	return n
}

// Close frees the pass's memory.
func (p *Pass) Close() {
	for _, t := range p.owned {
		p.b.Free(t)
	}
	p.owned = nil
}

// start uploads a batch: its ids, and each token's position, row and keys.
func (p *Pass) start(b Batch, drop *Dropout) error {
	if len(b.IDs) == 0 || len(b.IDs) > p.max {
		return fmt.Errorf("run the model: a batch of %d tokens, but the pass was planned for 1 to %d", len(b.IDs), p.max)
	}
	h := &p.run.host
	h.positions, h.spans, h.tokens = h.positions[:0], h.spans[:0], h.tokens[:0]
	for s := range len(b.Offsets) - 1 {
		from, to := b.Offsets[s], b.Offsets[s+1]
		if int(to-from) > p.m.Config.MaxPositions {
			return fmt.Errorf("run the model: row %d has %d tokens, more than max_position_embeddings %d; lower max_length", s, to-from, p.m.Config.MaxPositions)
		}
		row := int32(s)
		if b.Rows != nil {
			row = b.Rows[s]
		}
		for t := from; t < to; t++ {
			h.positions = append(h.positions, t-from)
			h.spans = append(h.spans, from, t-from+1)
			h.tokens = append(h.tokens, row, t-from)
		}
	}
	p.run.cache = nil
	return p.upload(b.IDs, drop)
}

// upload sends the ids and the token tables of run.host to the device.
func (p *Pass) upload(ids []int32, drop *Dropout) error {
	for _, id := range ids {
		if id < 0 || int(id) >= p.m.Config.VocabSize {
			return fmt.Errorf("run the model: token id %d is outside the vocabulary of %d", id, p.m.Config.VocabSize)
		}
	}
	r, h, T := &p.run, &p.run.host, len(ids)
	r.drop = drop
	r.ids, r.positions = head(p.ids, T), head(p.positions, T)
	r.spans, r.tokens = p.spans.Slice(0, T), p.tokens.Slice(0, T)
	p.b.Upload(r.ids, kernels.AsBytes(ids))
	p.b.Upload(r.positions, kernels.AsBytes(h.positions))
	p.b.Upload(r.spans, kernels.AsBytes(h.spans))
	if drop != nil {
		p.b.Upload(r.tokens, kernels.AsBytes(h.tokens))
	}
	return nil
}

// head is the first n elements of a vector.
func head(t kernels.Tensor, n int) kernels.Tensor { return part(t, 0, n) }

// part is the elements [from, to) of a vector.
func part(t kernels.Tensor, from, to int) kernels.Tensor {
	return t.Reshape(t.Cols, 1).Slice(from, to).Reshape(1, to-from)
}

// stream is the residual stream before a layer (or, with layer = Layers, after the last) for the batch at hand.
func (p *Pass) stream(layer int) kernels.Tensor {
	return p.x[min(layer, len(p.x)-1)].Slice(0, p.run.ids.Cols)
}

// layerActivations is where a layer keeps its activations, cut to the batch at hand.
func (p *Pass) layerActivations(layer int) activations {
	s, T := p.saved[min(layer, len(p.saved)-1)], p.run.ids.Cols
	return activations{s.stats.Slice(0, T), s.q.Slice(0, T), s.k.Slice(0, T), s.v.Slice(0, T), s.attention.Slice(0, T), s.logSE.Slice(0, T), s.fc1.Slice(0, T)}
}

// forward runs the layers and the last LayerNorm over the batch that start uploaded. Its error is Between's.
func (p *Pass) forward(visit func(layer int, x kernels.Tensor)) error {
	if visit == nil {
		visit = func(int, kernels.Tensor) {}
	}
	p.b.Embed(p.stream(0), p.m.Embed, p.run.ids)
	p.normalise(0)
	for i := range p.m.Layers {
		if err := p.m.between(); err != nil {
			return err
		}
		visit(i, p.stream(i))
		p.layerForward(i, p.layerActivations(i))
	}
	visit(len(p.m.Layers), p.final.Slice(0, p.run.ids.Cols))
	return nil
}

func (w *Weights) between() error {
	if w.Between == nil {
		return nil
	}
	return w.Between()
}

// norms is one LayerNorm of the model: where it goes, and what with.
type norms struct{ out, stats, weight, bias kernels.Tensor }

// normOf is the LayerNorm before a layer or, with layer = Layers, the last one.
func (p *Pass) normOf(layer int) norms {
	T := p.run.ids.Cols
	if layer == len(p.m.Layers) {
		return norms{p.final.Slice(0, T), p.finalStats.Slice(0, T), p.m.NormWeight, p.m.NormBias}
	}
	l := &p.m.Layers[layer]
	return norms{p.norm.Slice(0, T), p.layerActivations(layer).stats, l.NormWeight, l.NormBias}
}

// normalise does the LayerNorm of a layer's input.
func (p *Pass) normalise(layer int) (out kernels.Tensor) {
	n := p.normOf(layer)
	p.b.LayerNorm(n.out, n.stats, p.stream(layer), n.weight, n.bias, p.m.Config.LayerNormEps)
	return n.out
}

// layerForward computes stream(i+1) = x + drop(attention(norm(x))) + drop(mlp(norm(x))) for x = stream(i), and what the
// LayerNorm after it makes of that.
func (p *Pass) layerForward(i int, a activations) {
	x, out, norm, next := p.stream(i), p.stream(i+1), p.normOf(i).out, p.normOf(i+1)
	T := x.Rows
	branch, gelu := p.branch.Slice(0, T), p.gelu.Slice(0, T)

	p.layerInner(i, a, norm)
	p.linears(i, a.attention, p.run.tokens, linearOut{Dense, branch})
	p.linears(i, norm, p.run.tokens, linearOut{FC1, a.fc1})
	p.b.Gelu(gelu, a.fc1)
	mlp := norm // nothing reads it any more
	p.linears(i, gelu, p.run.tokens, linearOut{FC2, mlp})
	p.fused.AddNorm(out, next.out, next.stats, x,
		kernels.Branch{X: branch, Drop: p.residualDrop(i, siteAttention)}, kernels.Branch{X: mlp, Drop: p.residualDrop(i, siteMLP)},
		next.weight, next.bias, p.m.Config.LayerNormEps)
}

// layerInner fills the activations up to the attention's output from the layer's normalised input.
func (p *Pass) layerInner(i int, a activations, norm kernels.Tensor) {
	p.linears(i, norm, p.run.tokens, linearOut{QProj, a.q}, linearOut{KProj, a.k}, linearOut{VProj, a.v})
	p.rotate(a.q, a.k, false)
	k, v := a.k, a.v
	if c := p.run.cache; c != nil {
		p.b.Scatter(c.k[i], a.k, p.run.slots)
		p.b.Scatter(c.v[i], a.v, p.run.slots)
		k, v = c.k[i], c.v[i]
	}
	p.b.Attention(a.attention, a.logSE, a.q, k, v, p.run.spans, p.heads)
}

func (p *Pass) rotate(q, k kernels.Tensor, inverse bool) {
	if p.heads.Rotary > 0 {
		p.fused.RotaryPair(q, k, p.run.positions, p.rotary, p.heads, inverse)
	}
}

// The sites of dropout in a layer besides those of the adapted linears, which are QProj … LMHead.
const (
	siteAttention = 16
	siteMLP       = 17
)

// residualDrop is the dropout of a layer's branch.
func (p *Pass) residualDrop(layer int, site uint16) kernels.Drop {
	d := p.run.drop
	if d == nil {
		return kernels.Drop{}
	}
	return kernels.Drop{Tokens: p.run.tokens, P: d.Residual, Key: d.key(layer, site)}
}

func (d *Dropout) key(layer int, site uint16) kernels.DropoutKey {
	return kernels.DropoutKey{Seed: d.Seed, Step: d.Step, Layer: uint16(layer), Site: site}
}

// linearOut is a linear and its output or, on the way back, that output's gradient.
type linearOut struct {
	linear int
	out    kernels.Tensor
}

// linears sets out = x·Wᵀ + b for linears that share an input, and where one is adapted adds scale·(drop(x)·Aᵀ)·Bᵀ.
func (p *Pass) linears(layer int, x, tokens kernels.Tensor, outs ...linearOut) {
	var adapters []kernels.LowRank
	for _, o := range outs {
		w := p.m.Weights.linear(layer, o.linear)
		p.b.Linear(o.out, x, w.Weight, w.Bias)
		if m := p.m.Adapter.Find(layer, o.linear); m != nil {
			l := p.lowRank(m, x.Rows, tokens)
			l.Out = o.out
			adapters = append(adapters, l)
		}
	}
	if adapters != nil {
		p.fused.LowRank(x, prefix(p.adapted, x.Rows, x.Cols), adapters...)
	}
}

// lowRank is the use of a module for T tokens, without its output.
func (p *Pass) lowRank(m *LoRA, T int, tokens kernels.Tensor) kernels.LowRank {
	return kernels.LowRank{A: m.A, B: m.B, Scale: m.Scale, Drop: p.adapterDrop(m, tokens), Low: p.low.of(m).Slice(0, T)}
}

// adapterDrop is the dropout of a module's input.
func (p *Pass) adapterDrop(m *LoRA, tokens kernels.Tensor) kernels.Drop {
	d := p.run.drop
	if d == nil {
		return kernels.Drop{}
	}
	return kernels.Drop{Tokens: tokens, P: d.LoRA, Key: d.key(max(m.Layer, 0), uint16(m.Linear))}
}

// prefix is the beginning of a buffer seen as rows × cols.
func prefix(t kernels.Tensor, rows, cols int) kernels.Tensor {
	return t.Reshape(t.Len(), 1).Slice(0, rows*cols).Reshape(rows, cols)
}

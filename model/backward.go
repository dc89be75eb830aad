package model

import (
	"fmt"
	"math"
	"slices"

	"quartet/kernels"
)

// Step runs forward and backward over a batch and adds to the adapter's gradients those of gradScale·Σ of the token
// losses. It returns Σ of the token losses and how many positions were trained: a row's label t+1 is the target at t.
func (p *Pass) Step(b Batch, gradScale float32, drop *Dropout) (lossSum float64, targets int, err error) {
	if !p.options.Train {
		panic("model: Step on a pass that was not made for training")
	}
	if err := p.start(b, drop); err != nil {
		return 0, 0, err
	}
	if err := p.forward(nil); err != nil {
		return 0, 0, err
	}
	T := len(b.IDs)
	dfinal := p.grad.norm.Slice(0, T)
	p.b.Zero(dfinal)
	positions, labels := b.targets()
	for from := 0; from < len(positions); from += p.chunk {
		to := min(from+p.chunk, len(positions))
		logits := p.pickLogits(positions[from:to])
		want := head(p.labels, to-from)
		p.b.Upload(want, kernels.AsBytes(labels[from:to]))
		p.b.CrossEntropy(part(p.losses, from, to), logits, logits, want, gradScale)
		picked := p.grad.picked.Slice(0, to-from)
		p.linearsBackward(-1, picked, p.picked.Slice(0, to-from), p.wantedTokens.Slice(0, to-from), false, linearOut{LMHead, logits})
		p.b.Scatter(dfinal, picked, head(p.wanted, to-from))
	}
	if err := p.backward(dfinal); err != nil {
		return 0, 0, err
	}
	losses := make([]float32, len(positions))
	p.b.Download(kernels.AsBytes(losses), head(p.losses, len(positions)))
	for _, l := range losses {
		lossSum += float64(l)
	}
	return lossSum, len(positions), p.b.Sync()
}

// targets are the packed positions that predict a trained token, and those tokens.
func (b Batch) targets() (positions, labels []int32) {
	for s := range len(b.Offsets) - 1 {
		for t := b.Offsets[s] + 1; t < b.Offsets[s+1]; t++ {
			if b.Labels[t] != Ignore {
				positions, labels = append(positions, t-1), append(labels, b.Labels[t])
			}
		}
	}
	return positions, labels
}

// Targets is the number of positions of the batch that are trained.
func (b Batch) Targets() int {
	positions, _ := b.targets()
	return len(positions)
}

// backward takes the gradient of the last LayerNorm's output down to the lowest adapted layer. Its error is Between's.
func (p *Pass) backward(dfinal kernels.Tensor) error {
	last := p.stream(len(p.m.Layers))
	dx := p.grad.x.Slice(0, last.Rows)
	lowest := p.m.Adapter.lowest()
	if lowest < 0 {
		return nil
	}
	p.b.Zero(dx)
	p.b.LayerNormBackward(dx, dfinal, last, p.m.NormWeight, p.finalStats.Slice(0, last.Rows))
	for i := len(p.m.Layers) - 1; i >= lowest; i-- {
		if err := p.m.between(); err != nil {
			return err
		}
		p.layerBackward(i, dx, i > lowest)
	}
	return nil
}

// layerBackward turns dx, the gradient of a layer's output, into that of its input, and adds to the layer's adapter
// gradients. Without further, nothing below wants the input's gradient, and what only leads there is left out.
func (p *Pass) layerBackward(i int, dx kernels.Tensor, further bool) {
	T, l, a, x := dx.Rows, &p.m.Layers[i], p.layerActivations(i), p.stream(i)
	tokens := p.run.tokens
	norm := p.normalise(i)
	last := i == len(p.m.Layers)-1 // its activations are still there
	if p.options.Recompute == RecomputeLayer && !last {
		p.layerInner(i, a, norm)
	}
	dbranch := p.grad.branch.Slice(0, T)
	var dnorm kernels.Tensor
	if further {
		dnorm = p.grad.norm.Slice(0, T)
	}

	if p.m.Adapter.throughMLP(i) {
		if p.options.Recompute != RecomputeNothing && !last {
			p.linears(i, norm, tokens, linearOut{FC1, a.fc1})
		}
		dfc1 := p.grad.fc1.Slice(0, T)
		gelu := p.gelu.Slice(0, T)
		if p.m.Adapter.Find(i, FC2) != nil {
			p.b.Gelu(gelu, a.fc1)
		}
		dmlp := p.branchGradient(dbranch, dx, i, siteMLP)
		p.linearsBackward(i, dfc1, gelu, tokens, false, linearOut{FC2, dmlp})
		p.b.GeluBackward(dfc1, dfc1, a.fc1)
		p.linearsBackward(i, dnorm, norm, tokens, false, linearOut{FC1, dfc1})
	}

	dattention, dq, dk, dv := p.grad.attention.Slice(0, T), p.grad.q.Slice(0, T), p.grad.k.Slice(0, T), p.grad.v.Slice(0, T)
	p.linearsBackward(i, dattention, a.attention, tokens, false, linearOut{Dense, p.branchGradient(dbranch, dx, i, siteAttention)})
	if further || p.m.Adapter.adaptsOne(i, QProj, KProj, VProj) {
		p.b.AttentionBackward(dq, dk, dv, dattention, a.q, a.k, a.v, a.attention, a.logSE, p.run.spans, p.heads)
		p.rotate(dq, dk, true)
		p.linearsBackward(i, dnorm, norm, tokens, true, linearOut{QProj, dq}, linearOut{KProj, dk}, linearOut{VProj, dv})
	}
	if further {
		p.b.LayerNormBackward(dx, dnorm, x, l.NormWeight, a.stats)
	}
}

// branchGradient is the gradient of a branch's output before its residual dropout: dx itself where there is none.
func (p *Pass) branchGradient(room, dx kernels.Tensor, layer int, site uint16) kernels.Tensor {
	d := p.residualDrop(layer, site)
	if d.P == 0 {
		return dx
	}
	p.b.Dropout(room, dx, d.Tokens, d.P, d.Key)
	return room
}

// linearsBackward sets dx to the gradient through linears that share an input and through their adapters, or with add adds to it, and
// adds to the adapters' gradients theirs. Where dx is the zero Tensor it is not wanted.
func (p *Pass) linearsBackward(layer int, dx, x, tokens kernels.Tensor, add bool, outs ...linearOut) {
	var adapters []kernels.LowRankGradient
	for _, o := range outs {
		switch weight := p.m.Weights.linear(layer, o.linear).Weight; {
		case dx.IsZero():
		case add:
			p.b.LinearBackward(dx, o.out, weight)
		default:
			p.fused.LinearGradient(dx, o.out, weight)
			add = true
		}
		if m := p.m.Adapter.Find(layer, o.linear); m != nil {
			adapters = append(adapters, kernels.LowRankGradient{
				LowRank: p.lowRank(m, x.Rows, tokens), GradA: m.GradA, GradB: m.GradB, DOut: o.out, DLow: p.grad.low.of(m).Slice(0, x.Rows),
			})
		}
	}
	if adapters != nil {
		p.fused.LowRankBackward(dx, x, prefix(p.adapted, x.Rows, x.Cols), prefix(p.grad.adapted, x.Rows, x.Cols), adapters...)
	}
}

// throughMLP reports whether gradients go through a layer's MLP.
func (a *Adapter) throughMLP(layer int) bool {
	lowest := a.lowest()
	return lowest >= 0 && layer > lowest || a.adaptsOne(layer, FC1, FC2)
}

// adaptsOne reports whether any of a layer's linears is adapted.
func (a *Adapter) adaptsOne(layer int, linears ...int) bool {
	return slices.ContainsFunc(linears, func(l int) bool { return a.Find(layer, l) != nil })
}

// lowest is the first layer with an adapted linear, -1 where only the output projection is adapted.
func (a *Adapter) lowest() int {
	lowest := -1
	for _, m := range a.Modules {
		if m.Linear != LMHead && (lowest < 0 || m.Layer < lowest) {
			lowest = m.Layer
		}
	}
	return lowest
}

// NonFinite names the first place of the last Step's forward pass that holds a NaN or an infinity, "" for none.
func (p *Pass) NonFinite() string {
	for i := range p.x {
		t := p.stream(i)
		host := make([]float32, t.Len())
		copied, err := p.b.Alloc(kernels.F32, t.Rows, t.Cols)
		if err != nil {
			return ""
		}
		p.b.Copy(copied, t)
		p.b.Download(kernels.AsBytes(host), copied)
		p.b.Free(copied)
		for at, v := range host {
			if v64 := float64(v); math.IsNaN(v64) || math.IsInf(v64, 0) {
				place := "the embeddings"
				if i > 0 {
					place = fmt.Sprintf("layer %d", i-1)
				}
				return fmt.Sprintf("%s, token %d of the batch", place, at/t.Cols)
			}
		}
	}
	return ""
}

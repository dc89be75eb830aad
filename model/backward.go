package model

import (
	"fmt"
	"math"

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
		p.linearGradient(-1, LMHead, picked, logits, p.picked.Slice(0, to-from), p.wantedTokens.Slice(0, to-from))
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
	dnorm, dbranch := p.grad.norm.Slice(0, T), p.grad.branch.Slice(0, T)
	toNorm := p.linearGradient // the first gradient of dnorm; others are added
	adapted := func(linears ...int) bool {
		for _, l := range linears {
			if p.m.Adapter.Find(i, l) != nil {
				return true
			}
		}
		return further
	}

	if p.m.Adapter.throughMLP(i) {
		if p.options.Recompute != RecomputeNothing && !last {
			p.linear(i, FC1, a.fc1, norm, tokens)
		}
		dfc1 := p.grad.fc1.Slice(0, T)
		gelu := p.gelu.Slice(0, T)
		if p.m.Adapter.Find(i, FC2) != nil {
			p.b.Gelu(gelu, a.fc1)
		}
		dmlp := p.branchGradient(dbranch, dx, i, siteMLP)
		p.linearGradient(i, FC2, dfc1, dmlp, gelu, tokens)
		p.b.GeluBackward(dfc1, dfc1, a.fc1)
		toNorm(i, FC1, dnorm, dfc1, norm, tokens)
		toNorm = p.linearBackward
	}

	dattention, dq, dk, dv := p.grad.attention.Slice(0, T), p.grad.q.Slice(0, T), p.grad.k.Slice(0, T), p.grad.v.Slice(0, T)
	p.linearGradient(i, Dense, dattention, p.branchGradient(dbranch, dx, i, siteAttention), a.attention, tokens)
	if adapted(QProj, KProj, VProj) {
		p.b.AttentionBackward(dq, dk, dv, dattention, a.q, a.k, a.v, a.attention, a.logSE, p.run.spans, p.heads)
		p.rotate(dq, dk, true)
		for _, g := range [...]struct {
			linear int
			d      kernels.Tensor
		}{{QProj, dq}, {KProj, dk}, {VProj, dv}} {
			if adapted(g.linear) {
				toNorm(i, g.linear, dnorm, g.d, norm, tokens)
				toNorm = p.linearBackward
			}
		}
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

// linearGradient sets dx to the gradient through a linear and its adapter, and adds to the adapter's gradients theirs.
func (p *Pass) linearGradient(layer, l int, dx, dout, x, tokens kernels.Tensor) {
	p.fused.LinearGradient(dx, dout, p.m.Weights.linear(layer, l).Weight)
	p.adapterBackward(layer, l, dx, dout, x, tokens)
}

// linearBackward is linearGradient, but adds to dx.
func (p *Pass) linearBackward(layer, l int, dx, dout, x, tokens kernels.Tensor) {
	p.b.LinearBackward(dx, dout, p.m.Weights.linear(layer, l).Weight)
	p.adapterBackward(layer, l, dx, dout, x, tokens)
}

func (p *Pass) adapterBackward(layer, l int, dx, dout, x, tokens kernels.Tensor) {
	if m := p.m.Adapter.Find(layer, l); m != nil {
		p.fused.LowRankBackward(dx, m.GradA, m.GradB, dout, x, m.matrices(), p.adapterDrop(m, tokens), p.lowRankWork(m, x.Rows))
	}
}

// throughMLP reports whether gradients go through a layer's MLP.
func (a *Adapter) throughMLP(layer int) bool {
	lowest := a.lowest()
	return lowest >= 0 && layer > lowest || a.Find(layer, FC1) != nil || a.Find(layer, FC2) != nil
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

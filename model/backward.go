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
		p.b.Zero(picked)
		p.linearBackward(-1, LMHead, picked, logits, p.picked.Slice(0, to-from), p.wantedTokens.Slice(0, to-from))
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
	var norm kernels.Tensor
	if p.options.Recompute == RecomputeLayer {
		norm = p.layerInner(i, a)
	} else {
		norm = p.norm.Slice(0, T)
		p.b.LayerNorm(norm, kernels.Tensor{}, x, l.NormWeight, l.NormBias, p.m.Config.LayerNormEps)
	}
	dnorm, dbranch := p.grad.norm.Slice(0, T), p.grad.branch.Slice(0, T)
	p.b.Zero(dnorm)
	adapted := func(linears ...int) bool {
		for _, l := range linears {
			if p.m.Adapter.Find(i, l) != nil {
				return true
			}
		}
		return further
	}

	if adapted(FC1, FC2) {
		if p.options.Recompute != RecomputeNothing {
			p.linear(i, FC1, a.fc1, norm, tokens)
		}
		dfc1 := p.grad.fc1.Slice(0, T)
		gelu := p.gelu.Slice(0, T)
		if p.m.Adapter.Find(i, FC2) != nil {
			p.b.Gelu(gelu, a.fc1)
		}
		p.branchGradient(dbranch, dx, i, siteMLP)
		p.b.Zero(dfc1)
		p.linearBackward(i, FC2, dfc1, dbranch, gelu, tokens)
		p.b.GeluBackward(dfc1, dfc1, a.fc1)
		p.linearBackward(i, FC1, dnorm, dfc1, norm, tokens)
	}

	dattention, dq, dk, dv := p.grad.attention.Slice(0, T), p.grad.q.Slice(0, T), p.grad.k.Slice(0, T), p.grad.v.Slice(0, T)
	p.branchGradient(dbranch, dx, i, siteAttention)
	p.b.Zero(dattention)
	p.linearBackward(i, Dense, dattention, dbranch, a.attention, tokens)
	if adapted(QProj, KProj, VProj) {
		p.b.Zero(dk)
		p.b.Zero(dv)
		p.b.AttentionBackward(dq, dk, dv, dattention, a.q, a.k, a.v, a.attention, a.logSE, p.run.spans, p.heads)
		p.rotate(dq, true)
		p.rotate(dk, true)
		for _, g := range [...]struct {
			linear int
			d      kernels.Tensor
		}{{QProj, dq}, {KProj, dk}, {VProj, dv}} {
			if adapted(g.linear) {
				p.linearBackward(i, g.linear, dnorm, g.d, norm, tokens)
			}
		}
	}
	if further {
		p.b.LayerNormBackward(dx, dnorm, x, l.NormWeight, a.stats)
	}
}

// branchGradient is the gradient of a branch's output before its residual dropout.
func (p *Pass) branchGradient(dbranch, dx kernels.Tensor, layer int, site uint16) {
	p.b.Copy(dbranch, dx)
	p.residualDropout(dbranch, layer, site)
}

// linearBackward adds to dx the gradient through a linear and its adapter, and to the adapter's gradients theirs.
func (p *Pass) linearBackward(layer, l int, dx, dout, x, tokens kernels.Tensor) {
	p.b.LinearBackward(dx, dout, p.m.Weights.linear(layer, l).Weight)
	m := p.m.Adapter.Find(layer, l)
	if m == nil {
		return
	}
	T, r := x.Rows, m.A.Rows
	low, dlow := prefix(p.lowRank, T, r), prefix(p.grad.lowRank, T, r)
	input := p.adapterInput(m, x, tokens)
	p.b.MatMul(low, input, m.A, false, true, 1, 0)
	p.b.MatMul(m.GradB, dout, low, true, false, m.Scale, 1)
	p.b.MatMul(dlow, dout, m.B, false, false, m.Scale, 0)
	p.b.MatMul(m.GradA, dlow, input, true, false, 1, 1)
	if d := p.run.drop; d != nil && d.LoRA > 0 {
		dinput := prefix(p.grad.adapted, T, x.Cols)
		p.b.MatMul(dinput, dlow, m.A, false, false, 1, 0)
		p.b.Dropout(dinput, dinput, tokens, d.LoRA, d.key(max(m.Layer, 0), uint16(m.Linear)))
		p.b.Add(dx, dx, dinput)
		return
	}
	p.b.MatMul(dx, dlow, m.A, false, false, 1, 1)
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

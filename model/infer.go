package model

import (
	"cmp"

	"quartet/kernels"
)

// Losses runs forward over a batch and returns, for each token, the loss of predicting it: -log p(label | what precedes
// it in its row), in nats. It is 0 for a row's first token and for masked labels.
func (p *Pass) Losses(b Batch) ([]float32, error) {
	if err := p.start(b, nil); err != nil {
		return nil, err
	}
	if err := p.forward(nil); err != nil {
		return nil, err
	}
	out := make([]float32, len(b.IDs))
	positions, labels := b.targets()
	for from := 0; from < len(positions); from += p.chunk {
		to := min(from+p.chunk, len(positions))
		logits := p.pickLogits(positions[from:to])
		losses, want := head(p.losses, to-from), head(p.labels, to-from)
		p.b.Upload(want, kernels.AsBytes(labels[from:to]))
		p.b.CrossEntropy(losses, kernels.Tensor{}, logits, want, 1)
		host := make([]float32, to-from)
		p.b.Download(kernels.AsBytes(host), losses)
		if err := p.b.Sync(); err != nil {
			return nil, err
		}
		for i, at := range positions[from:to] {
			out[at+1] = host[i]
		}
	}
	return out, nil
}

// Logits runs forward over a batch and visits the logits (V) at the wanted packed positions, in their order. The slice
// is valid during the visit only.
func (p *Pass) Logits(b Batch, want []int32, visit func(i int, logits []float32)) error {
	if err := p.start(b, nil); err != nil {
		return err
	}
	if err := p.forward(nil); err != nil {
		return err
	}
	return p.visitLogits(want, visit)
}

// visitLogits brings the logits at packed positions of the batch at hand to the host, a chunk at a time.
func (p *Pass) visitLogits(want []int32, visit func(i int, logits []float32)) error {
	for from := 0; from < len(want); from += p.chunk {
		to := min(from+p.chunk, len(want))
		host, err := p.toHost(p.pickLogits(want[from:to]))
		if err != nil {
			return err
		}
		for i := from; i < to; i++ {
			visit(i, host[(i-from)*p.m.Config.VocabSize:][:p.m.Config.VocabSize])
		}
	}
	return nil
}

// Hidden runs forward over a batch and visits the hidden states F32 (T,D) as transformers numbers them: 0 are the
// embeddings, i the stream after block i, and the last one is taken after the final LayerNorm.
func (p *Pass) Hidden(b Batch, visit func(layer int, hidden []float32)) error {
	if err := p.start(b, nil); err != nil {
		return err
	}
	var failed error
	err := p.forward(func(layer int, x kernels.Tensor) {
		if failed != nil {
			return
		}
		host, err := p.toHost(x)
		if failed = err; err == nil {
			visit(layer, host)
		}
	})
	return cmp.Or(err, failed)
}

// pickLogits computes the logits (n,V) at n packed positions, n at most the chunk.
func (p *Pass) pickLogits(positions []int32) kernels.Tensor {
	n := len(positions)
	rows, picked, tokens := head(p.wanted, n), p.picked.Slice(0, n), p.wantedTokens.Slice(0, n)
	p.b.Upload(rows, kernels.AsBytes(positions))
	p.b.Gather(picked, p.final, rows)
	if p.run.drop != nil {
		host := make([]int32, 0, 2*n)
		for _, at := range positions {
			host = append(host, p.run.host.tokens[2*at], p.run.host.tokens[2*at+1])
		}
		p.b.Upload(tokens, kernels.AsBytes(host))
	}
	logits := p.logits.Slice(0, n)
	p.linears(-1, picked, tokens, linearOut{LMHead, logits})
	return logits
}

// toHost is a tensor's elements as float32 in host memory. On the CPU it is the tensor itself.
func (p *Pass) toHost(t kernels.Tensor) ([]float32, error) {
	if t.Host != nil && t.DType == kernels.F32 {
		return t.F32s(), p.b.Sync()
	}
	copied, err := p.b.Alloc(kernels.F32, t.Rows, t.Cols)
	if err != nil {
		return nil, err
	}
	defer p.b.Free(copied)
	p.b.Copy(copied, t)
	host := make([]float32, t.Len())
	p.b.Download(kernels.AsBytes(host), copied)
	return host, p.b.Sync()
}

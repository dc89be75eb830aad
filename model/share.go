package model

import (
	"bytes"

	"quartet/kernels"
)

// piece is a plain tensor on a backend, of all weights whose checkpoints hold the same bytes under its name: quantising leaves
// the embedding, the output projection and the norms as they were, three tenths of what a quantised phi-2 takes.
type piece struct {
	tensor kernels.Tensor
	from   *Weights // whose mapped file it came from, nil when that is closed
	source []byte   // in that file
	users  int
}

// place takes a tensor of a mapped file to the backend, or shares what weights beside hold already. Where the backend's tensors are
// the mapped files themselves, there is nothing to share.
func (w *Weights) place(name string, t kernels.Tensor, beside []*Weights) (kernels.Tensor, error) {
	for _, other := range beside {
		p := other.pieces[name]
		if p == nil || other.backend != w.backend || p.tensor.Host != nil || p.tensor.DType != t.DType || p.tensor.Rows != t.Rows || p.from == nil {
			continue
		}
		if bytes.Equal(p.source, t.Host) {
			p.users++
			w.pieces[name] = p
			return p.tensor, nil
		}
	}
	placed, err := w.backend.Import(t)
	if err != nil {
		return kernels.Tensor{}, err
	}
	w.pieces[name] = &piece{tensor: placed, from: w, source: t.Host, users: 1}
	return placed, nil
}

// BytesOf is the memory of weights together: what they share counts once.
func BytesOf(all ...*Weights) (n int64) {
	weights, pieces := map[*Weights]bool{}, map[*piece]bool{}
	for _, w := range all {
		if weights[w] {
			continue
		}
		weights[w] = true
		for _, t := range w.owned {
			n += int64(t.Bytes())
		}
		for _, p := range w.pieces {
			if !pieces[p] {
				pieces[p] = true
				n += int64(p.tensor.Bytes())
			}
		}
	}
	return n
}

// leave gives up the pieces, and frees those that nobody else has.
func (w *Weights) leave() {
	for _, p := range w.pieces {
		if p.from == w {
			p.from, p.source = nil, nil
		}
		if p.users--; p.users == 0 {
			w.backend.Free(p.tensor)
		}
	}
	w.pieces = nil
}

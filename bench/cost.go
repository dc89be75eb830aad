package bench

import (
	"quartet/kernels"
	"quartet/model"
)

// Roof is what a machine can do at best.
type Roof struct {
	Bandwidth float64 `json:"bytes_per_second"` // read from memory, all threads together
	Flops     float64 `json:"flops"`            // fp32 multiplications and additions a second, all threads together
}

// Work is the least that a piece of work takes of a machine, whatever the program.
type Work struct {
	Tokens int     // that are processed
	Bytes  float64 // that must come from memory
	Flops  float64 // multiplications and additions, two for each weight in a product
}

// Seconds is the floor of the work's time: that of its slower half, the other being hidden behind it. The half is
// "memory" or "product".
func (w Work) Seconds(r Roof) (seconds float64, half string) {
	memory, product := w.Bytes/r.Bandwidth, w.Flops/r.Flops
	if memory > product {
		return memory, "memory"
	}
	return product, "product"
}

// extent is what a model's work depends on.
type extent struct {
	layers     float64
	products   float64 // weights of one layer's products
	dense      float64 // of these, those of the attention's output
	head       float64 // weights of the output projection
	bytes      float64 // of everything but the embedding, which is looked up by rows
	row        float64 // bytes of a row of the embedding
	queries    float64 // elements of a token's queries in a layer
	keyBytes   float64 // bytes of a token's key and value in a layer
	outsInputs float64 // Σ of outputs + inputs of a layer's adapted linears; 0 without an adapter
}

// extentOf measures a model in a backend's memory.
func extentOf(m *model.Model) extent {
	c := m.Config
	e := extent{
		layers:   float64(c.Layers),
		row:      float64(m.Embed.DType.Bytes(c.Hidden)),
		queries:  float64(c.Heads * c.HeadDim()),
		keyBytes: float64(2 * m.Backend().Activations().Bytes(c.KVHeads*c.HeadDim())),
	}
	count := func(all ...kernels.Tensor) {
		for _, t := range all {
			e.bytes += float64(t.Bytes())
		}
	}
	for i, l := range m.Layers {
		count(l.NormWeight, l.NormBias)
		for n, linear := range l.Linears {
			count(linear.Weight, linear.Bias)
			if i == 0 {
				e.products += float64(linear.Weight.Len())
			}
			if i == 0 && n == model.Dense {
				e.dense = float64(linear.Weight.Len())
			}
		}
	}
	count(m.NormWeight, m.NormBias, m.Head.Weight, m.Head.Bias)
	e.head = float64(m.Head.Weight.Len())
	if m.Adapter != nil {
		for _, l := range m.Adapter.Modules {
			e.outsInputs += float64(l.A.Cols+l.B.Rows) / e.layers
		}
	}
	return e
}

// pairs is how many (query, key) pairs causal attention over a row of n tokens has.
func pairs(n int) float64 { return float64(n) * float64(n+1) / 2 }

// prefill is reading a prompt of n tokens up to the logits after its last one.
func (e extent) prefill(n int) Work {
	return Work{
		Tokens: n,
		Bytes:  e.bytes + float64(n)*e.row,
		Flops:  2*e.layers*e.products*float64(n) + 4*e.layers*e.queries*pairs(n) + 2*e.head,
	}
}

// decode is n tokens after a prompt, one at a time: each reads all weights, and the keys and values of what precedes it.
func (e extent) decode(prompt, n int) Work {
	tokens, keys := float64(n), pairs(prompt+n)-pairs(prompt)
	return Work{
		Tokens: n,
		Bytes:  tokens*(e.bytes+e.row) + e.layers*keys*e.keyBytes,
		Flops:  2*tokens*(e.layers*e.products+e.head) + 4*e.layers*e.queries*keys,
	}
}

// step is a training step of an adapter of rank r in q_proj and v_proj of every layer, over rows of n tokens that all are
// trained. Frozen weights want two products: forward, and backward to the input, which in the lowest layer only the
// attention's output needs. Attention has two products forward and four backward, an adapter's modules two and four. The
// weights are read forward and backward; the optimiser's share of the time is left out.
func (e extent) step(rows, n, r int) Work {
	tokens, targets := float64(rows*n), float64(rows*(n-1))
	frozen := 2*e.layers*e.products + 2*((e.layers-1)*e.products+e.dense)
	return Work{
		Tokens: rows * n,
		Bytes:  2*e.bytes + tokens*e.row,
		Flops: tokens*(frozen+6*float64(r)*e.layers*e.outsInputs) + 4*targets*e.head +
			12*e.layers*e.queries*float64(rows)*pairs(n),
	}
}

package kernels

// Fused are operations that do several of Backend's in one pass over memory. Fuse gives any backend them.
type Fused interface {
	// LinearGradient sets dx (T,K) = dout (T,N) · weight (N,K): LinearBackward where dx held nothing yet.
	LinearGradient(dx, dout, weight Tensor)
	// AddNorm sets out (T,D) = x + drop(a) + drop(b), and norm and stats as LayerNorm does for out. out may be x, norm may be
	// a.X or b.X, and both may be left changed.
	AddNorm(out, norm, stats, x Tensor, a, b Branch, weight, bias Tensor, eps float32)
	// RotaryPair is Rotary of x and of y, whose numbers of heads may differ.
	RotaryPair(x, y, positions, table Tensor, h Heads, inverse bool)
	// LowRank sets out (T,N) += l.Scale·(drop(x) (T,K)·l.Aᵀ)·l.Bᵀ. w is room to work in.
	LowRank(out, x Tensor, l LowRank, drop Drop, w LowRankWork)
	// LowRankBackward is LowRank's gradient: it adds to dx (T,K), gradA (r,K) and gradB (N,r) from dout (T,N).
	LowRankBackward(dx, gradA, gradB, dout, x Tensor, l LowRank, drop Drop, w LowRankWork)
}

// Branch is what a layer adds to its stream: X (T,D) after dropout.
type Branch struct {
	X    Tensor
	Drop Drop
}

// Drop is one use of dropout, as Backend's Dropout takes it. With P 0 nothing is dropped.
type Drop struct {
	Tokens Tensor // I32 (T,2)
	P      float32
	Key    DropoutKey
}

// LowRank is an adapter's pair of matrices.
type LowRank struct {
	A, B  Tensor // (r,K), (N,r)
	Scale float32
}

// LowRankWork is memory that LowRank and LowRankBackward overwrite. A pass forward needs no DLow and DInput.
type LowRankWork struct {
	Low, DLow     Tensor // (T,r)
	Input, DInput Tensor // (T,K), needed with dropout alone
}

// Fuse is a backend's own fused operations, or where it has none the same by its plain ones.
func Fuse(b Backend) Fused {
	if f, ok := b.(Fused); ok {
		return f
	}
	return Plain(b)
}

// Plain is the fused operations by a backend's plain ones.
func Plain(b Backend) Fused { return plain{b} }

type plain struct{ b Backend }

func (p plain) LinearGradient(dx, dout, weight Tensor) {
	p.b.Zero(dx)
	p.b.LinearBackward(dx, dout, weight)
}

func (p plain) AddNorm(out, norm, stats, x Tensor, a, b Branch, weight, bias Tensor, eps float32) {
	p.b.Add(out, x, p.dropped(a.X, a.X, a.Drop))
	p.b.Add(out, out, p.dropped(b.X, b.X, b.Drop))
	p.b.LayerNorm(norm, stats, out, weight, bias, eps)
}

// dropped is x after dropout, in out.
func (p plain) dropped(out, x Tensor, d Drop) Tensor {
	if d.P == 0 {
		return x
	}
	p.b.Dropout(out, x, d.Tokens, d.P, d.Key)
	return out
}

func (p plain) RotaryPair(x, y, positions, table Tensor, h Heads, inverse bool) {
	p.b.Rotary(x, positions, table, h, inverse)
	p.b.Rotary(y, positions, table, h, inverse)
}

func (p plain) LowRank(out, x Tensor, l LowRank, drop Drop, w LowRankWork) {
	p.b.MatMul(w.Low, p.dropped(w.Input, x, drop), l.A, false, true, 1, 0)
	p.b.MatMul(out, w.Low, l.B, false, true, l.Scale, 1)
}

func (p plain) LowRankBackward(dx, gradA, gradB, dout, x Tensor, l LowRank, drop Drop, w LowRankWork) {
	input := p.dropped(w.Input, x, drop)
	p.b.MatMul(w.Low, input, l.A, false, true, 1, 0)
	p.b.MatMul(gradB, dout, w.Low, true, false, l.Scale, 1)
	p.b.MatMul(w.DLow, dout, l.B, false, false, l.Scale, 0)
	p.b.MatMul(gradA, w.DLow, input, true, false, 1, 1)
	if drop.P == 0 {
		p.b.MatMul(dx, w.DLow, l.A, false, false, 1, 1)
		return
	}
	p.b.MatMul(w.DInput, w.DLow, l.A, false, false, 1, 0)
	p.b.Dropout(w.DInput, w.DInput, drop.Tokens, drop.P, drop.Key)
	p.b.Add(dx, dx, w.DInput)
}

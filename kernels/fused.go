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
	// LowRank sets Out (T,N) += Scale·(drop(x) (T,K)·Aᵀ)·Bᵀ for each of the adapters that share x, and leaves drop(x)·Aᵀ in Low. The
	// adapters are of one rank. room is overwritten.
	LowRank(x, room Tensor, adapters ...LowRank)
	// LowRankBackward is LowRank's gradient: from DOut (T,N) and from Low, as LowRank left it, it adds to dx (T,K), unless that is the
	// zero Tensor, and to each adapter's GradA (r,K) and GradB (N,r). room and dxRoom are overwritten.
	LowRankBackward(dx, x, room, dxRoom Tensor, adapters ...LowRankGradient)
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

// LowRank is a use of an adapter's pair of matrices, with dropout of its input.
type LowRank struct {
	A, B  Tensor // (r,K), (N,r)
	Scale float32
	Drop  Drop
	Out   Tensor // (T,N)
	Low   Tensor // (T,r)
}

// LowRankGradient is what the gradient of a LowRank needs besides. Its Out is not used.
type LowRankGradient struct {
	LowRank
	GradA, GradB Tensor // F32 (r,K), (N,r)
	DOut         Tensor // (T,N)
	DLow         Tensor // (T,r), overwritten
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

func (p plain) LowRank(x, room Tensor, adapters ...LowRank) {
	for _, l := range adapters {
		p.b.MatMul(l.Low, p.dropped(room, x, l.Drop), l.A, false, true, 1, 0)
		p.b.MatMul(l.Out, l.Low, l.B, false, true, l.Scale, 1)
	}
}

func (p plain) LowRankBackward(dx, x, room, dxRoom Tensor, adapters ...LowRankGradient) {
	for _, l := range adapters {
		p.b.MatMul(l.GradB, l.DOut, l.Low, true, false, l.Scale, 1)
		p.b.MatMul(l.DLow, l.DOut, l.B, false, false, l.Scale, 0)
		p.b.MatMul(l.GradA, l.DLow, p.dropped(room, x, l.Drop), true, false, 1, 1)
		switch {
		case dx.IsZero():
		case l.Drop.P == 0:
			p.b.MatMul(dx, l.DLow, l.A, false, false, 1, 1)
		default:
			p.b.MatMul(dxRoom, l.DLow, l.A, false, false, 1, 0)
			p.b.Dropout(dxRoom, dxRoom, l.Drop.Tokens, l.Drop.P, l.Drop.Key)
			p.b.Add(dx, dx, dxRoom)
		}
	}
}

package kernels

// Backend runs tensor operations on one device.
//
// Conventions, for every operation:
//   - outputs come first, then inputs, then sizes; T is the number of packed tokens;
//   - "=" overwrites the output, "+=" adds to it, as each operation says;
//   - wrong shapes or types panic, since they are bugs of the caller;
//   - operations may be asynchronous: the first device error sticks and Sync returns it once;
//   - activations are F32 on the CPU; accumulation, scores, softmax, statistics and loss are fp32 everywhere;
//   - weights are F32, F16, BF16 or NF4, whatever the activations are;
//   - the result does not depend on the number of threads.
//
// A backend's operations are called from one goroutine at a time.
type Backend interface {
	// Name is "cpu" or "cuda".
	Name() string
	// Activations is the type in which this backend keeps activations.
	Activations() DType

	// Alloc reserves zeroed memory. Its error says what to change when there is not enough.
	Alloc(d DType, rows, cols int) (Tensor, error)
	// Import makes host bytes (usually of a mapped file) a tensor: the CPU aliases them, a device copies them.
	Import(t Tensor) (Tensor, error)
	// Free releases what Alloc or Import returned, and the scales that its Quant holds; views of it become invalid.
	// Freeing the zero Tensor does nothing.
	Free(t Tensor)
	// Upload copies host elements of t's type into t; Download copies them out and waits for them.
	Upload(t Tensor, data []byte)
	Download(data []byte, t Tensor)
	// Sync waits for all operations and returns the first error since the last Sync.
	Sync() error

	// Zero sets t = 0. Copy sets out = x, converting between F32, F16 and BF16 (nearest even) where types differ.
	Zero(t Tensor)
	Copy(out, x Tensor)
	// Add sets out = x + y, elementwise; out may be x or y.
	Add(out, x, y Tensor)
	// Scale sets x = s·x.
	Scale(x Tensor, s float32)

	// Embed sets out (T,D) = table[ids]; table (V,D), ids I32 (1,T).
	Embed(out, table, ids Tensor)
	// LayerNorm sets out (T,D) = (x-mean)/sqrt(var+eps)·weight + bias, and stats F32 (T,2) = mean, 1/sqrt(var+eps).
	// stats may be the zero Tensor. weight, bias (1,D).
	LayerNorm(out, stats, x, weight, bias Tensor, eps float32)
	// LayerNormBackward adds to dx (T,D) += the gradient through x; weight and bias are frozen.
	LayerNormBackward(dx, dout, x, weight, stats Tensor)
	// Linear sets out (T,N) = x (T,K) · weight (N,K)ᵀ + bias (1,N); bias may be the zero Tensor.
	Linear(out, x, weight, bias Tensor)
	// LinearBackward adds dx (T,K) += dout (T,N) · weight (N,K); weight and bias are frozen.
	LinearBackward(dx, dout, weight Tensor)
	// MatMul sets out = alpha·op(x)·op(y) + beta·out, where op transposes if its flag is set. F32 or activation type;
	// made for LoRA's thin products. With beta 0, out is not read.
	MatMul(out, x, y Tensor, transX, transY bool, alpha, beta float32)
	// Gelu sets out = gelu_new(x) = 0.5x(1+tanh(sqrt(2/π)(x+0.044715x³))). GeluBackward sets dx = dout·gelu_new'(x);
	// dx may be dout.
	Gelu(out, x Tensor)
	GeluBackward(dx, dout, x Tensor)
	// Rotary rotates the first h.Rotary elements of each head of x (T, heads·h.Dim) in place, pairing i with
	// i + h.Rotary/2, by the angle of positions I32 (1,T); heads is x.Cols/h.Dim. table F32 (positions, h.Rotary) holds
	// the cosines, then the sines, of a position's angles. inverse rotates back, which is the gradient.
	Rotary(x, positions, table Tensor, h Heads, inverse bool)
	// Attention sets out (T, h.Count·h.Dim) = softmax(q·kᵀ/sqrt(h.Dim))·v, a head at a time. spans I32 (T,2) gives
	// each query its keys: rows spans[t][0] … spans[t][0]+spans[t][1]-1 of k and v (S, h.KV·h.Dim). The same operation
	// serves packed rows (k, v of the batch) and decoding (k, v of the cache). lse F32 (T, h.Count) receives the
	// log of each softmax's denominator; it may be the zero Tensor.
	Attention(out, lse, q, k, v, spans Tensor, h Heads)
	// AttentionBackward sets dq, dk and dv from dout, with out and lse as the forward pass left them.
	AttentionBackward(dq, dk, dv, dout, q, k, v, out, lse, spans Tensor, h Heads)
	// Scatter sets out[rows[i]] = x[i] for each row i of x; rows I32 (1, x.Rows). It appends to the KV cache.
	Scatter(out, x, rows Tensor)
	// Gather sets out[i] = x[rows[i]]; rows I32 (1, out.Rows).
	Gather(out, x, rows Tensor)
	// Dropout sets out = x·mask/(1-p), with the mask that DropoutKeep defines for the tokens I32 (T,2) of (row, position).
	// It is its own gradient. out may be x.
	Dropout(out, x, tokens Tensor, p float32, key DropoutKey)
	// CrossEntropy sets losses F32 (1,T) = -log softmax(logits)[label] and, unless dlogits is the zero Tensor, dlogits (T,V)
	// = scale·(softmax - onehot). A label of -100 gives 0 for both. labels I32 (1,T). dlogits may be logits.
	CrossEntropy(losses, dlogits, logits, labels Tensor, scale float32)

	// SumSquares sets out F32 (1,1) += Σ x², accumulated in at least fp32 in a fixed order.
	SumSquares(out, x Tensor)
	// AdamW updates param (n elements, F32) by its gradient, with the moments m and v (F32).
	AdamW(param, grad, m, v Tensor, s AdamStep)
	// AdamW8bit is AdamW with block-wise 8-bit moments, as bitsandbytes has it: state1 (SignedMap codes) and state2
	// (UnsignedMap codes) U8 with an absmax F32 for each AdamBlock elements.
	AdamW8bit(param, grad, state1, absmax1, state2, absmax2 Tensor, s AdamStep)

	// QuantizeNF4 sets out (NF4, its Quant allocated) from x (F32, F16 or BF16) of the same shape.
	QuantizeNF4(out, x Tensor)
	// DequantizeNF4 sets out (F32, F16 or BF16) from x, rounding first to x.Quant.Round.
	DequantizeNF4(out, x Tensor)
}

// Heads is the geometry of attention. Query head i reads key and value head i/(Count/KV).
type Heads struct {
	Count  int // query heads
	KV     int // key and value heads; divides Count
	Dim    int // elements a head
	Rotary int // of these, how many are rotated; even
}

// AdamStep is one optimiser step: p -= LR·c2/c1·m/(√v + c2·Eps) with c1 = 1-β₁ᵗ, c2 = √(1-β₂ᵗ), then p ·= 1-LR·WeightDecay.
// The gradient is multiplied by GradScale first (clipping and loss scaling in one factor).
type AdamStep struct {
	LR, Beta1, Beta2, Eps, WeightDecay, GradScale float32
	T                                             int // counts from 1
}

// AdamBlock is how many elements share an absmax in AdamW8bit.
const AdamBlock = 256

package kernels

// Decoder is a backend that can run the whole step of one sequence's next token as one piece of work, faster than operation
// by operation. Its results are those of the operations up to rounding.
type Decoder interface {
	// NewDecode plans such steps. It is nil, without an error, where the backend has none for the model's shapes or types.
	NewDecode(m DecodeModel) (Decode, error)
}

// Decode is the planned step of one model over one cache. It belongs to the goroutine of its backend's operations, and to one
// answer at a time.
type Decode interface {
	// Logits appends token to the sequence whose keys and values begin in row first of the cache and which has position
	// tokens so far, and copies the logits (V) of what follows it into logits.
	Logits(logits []float32, token int32, first, position int) error
	// Choose says among which tokens Greedy chooses from now on.
	Choose(c Choice) error
	// Greedy appends token, chooses the likeliest next one, appends that, and so on until chosen is full; the last one is not
	// appended. The sequence is named as in Logits.
	Greedy(chosen []int32, token int32, first, position int) error
	// Bytes is the memory that the plan holds.
	Bytes() int64
	// Free gives it back.
	Free()
}

// Choice restricts a greedy choice. A set of tokens is a bit a token, from the lowest bit of the first word.
type Choice struct {
	Allowed []uint32 // nil for all
	Penalty float32  // logits of seen tokens are divided by it, or multiplied where negative; 1 for none
	Seen    []uint32 // at first; what Greedy chooses is seen from then on
}

// DecodeModel is a Phi model as a Decoder takes it. D is the width of the stream, F that of the MLP, V the vocabulary.
type DecodeModel struct {
	Embed                Tensor // (V,D)
	Layers               []DecodeLayer
	NormWeight, NormBias Tensor       // (1,D)
	Head                 DecodeLinear // (V,D)
	Heads                Heads
	Eps                  float32 // of the LayerNorms
	Rotary               Tensor  // F32 (positions, Heads.Rotary), as Rotary takes it
}

// DecodeLayer is one block's weights and its part of the cache.
type DecodeLayer struct {
	NormWeight, NormBias     Tensor // (1,D)
	Q, K, V, Dense, FC1, FC2 DecodeLinear
	Keys, Values             Tensor // (rows, KV·Dim) of the activations' type
}

// DecodeLinear is a linear layer, y = x·Weightᵀ + Bias + Scale·(x·Aᵀ)·Bᵀ.
type DecodeLinear struct {
	Weight, Bias Tensor // (N,K), (1,N)
	A, B         Tensor // F32 (r,K), (N,r); zero Tensors where the linear is not adapted
	Scale        float32
}

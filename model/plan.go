package model

import "quartet/kernels"

// counter is a backend that only counts what is reserved on it at the end.
type counter struct {
	kernels.Backend // nil: no operation runs
	act             kernels.DType
	bytes           int64
}

func (c *counter) Activations() kernels.DType { return c.act }

func (c *counter) Alloc(d kernels.DType, rows, cols int) (kernels.Tensor, error) {
	c.bytes += int64(d.Bytes(rows * cols))
	return kernels.Tensor{DType: d, Rows: rows, Cols: cols}, nil
}

func (c *counter) Upload(kernels.Tensor, []byte) {}
func (c *counter) Copy(out, x kernels.Tensor)    {}
func (c *counter) Free(t kernels.Tensor)         { c.bytes -= int64(t.Bytes()) }
func (c *counter) Sync() error                   { return nil }

// TrainingBytes is the memory besides the base's weights that training an adapter takes on a backend with such activations:
// the adapter, its gradients, and a pass for a number of packed tokens. The optimiser's moments are not among it.
func (c Config) TrainingBytes(ac AdapterConfig, tokens int, recompute Recompute, act kernels.DType) (int64, error) {
	count := &counter{act: act}
	a, err := NewAdapter(count, c, ac, 0, kernels.F32)
	if err != nil {
		return 0, err
	}
	if err := a.EnableGrad(); err != nil {
		return 0, err
	}
	m := &Model{Weights: &Weights{Config: c, backend: count}, Adapter: a}
	if _, err := m.NewPass(tokens, PassOptions{Train: true, Recompute: recompute}); err != nil {
		return 0, err
	}
	return count.bytes, nil
}

// PassBytes is the memory of a pass for inference.
func (c Config) PassBytes(tokens int, act kernels.DType) (int64, error) {
	count := &counter{act: act}
	_, err := (&Model{Weights: &Weights{Config: c, backend: count}}).NewPass(tokens, PassOptions{})
	return count.bytes, err
}

// CacheBytes is the memory of a cache for a number of sequences of up to capacity tokens.
func (c Config) CacheBytes(sequences, capacity int, act kernels.DType) (int64, error) {
	count := &counter{act: act}
	_, err := (&Model{Weights: &Weights{Config: c, backend: count, Layers: make([]Layer, c.Layers)}}).NewCache(sequences, capacity)
	return count.bytes, err
}

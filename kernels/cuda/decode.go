package cuda

import (
	"fmt"

	"quartet/kernels"
)

// greedyAhead is how many tokens the GPU chooses before the host looks at them.
const greedyAhead = 16

// decode is a step of one model over one cache: one kernel, which can take several in a row.
type decode struct {
	b       *Backend
	owned   []kernels.Tensor
	kernel  launch // but for the number of steps
	state   planState
	stateAt kernels.Tensor
	logits  kernels.Tensor // F32 (1,V)
	allowed kernels.Tensor // I32 (1, ceil(V/32))
	seen    kernels.Tensor // I32 (1, ceil(V/32))
	chosen  kernels.Tensor // I32 (1, greedyAhead)
}

// NewDecode plans the step of a model whose shapes the kernels of decode.cu take: activations in F16, weights in F16, BF16 or
// NF4 with rows of whole blocks, on a GPU with enough shared memory.
func (b *Backend) NewDecode(m kernels.DecodeModel) (kernels.Decode, error) {
	p := planner{decode: &decode{b: b}, m: m, blocks: b.dev.info().Processors}
	if !p.fits() {
		return nil, nil
	}
	room, err := p.plan()
	if err != nil {
		err = fmt.Errorf("plan decoding: %w", err)
	}
	if err != nil || !room {
		p.Free()
		return nil, err
	}
	return p.decode, nil
}

// Bytes is the memory of the plan.
func (d *decode) Bytes() (n int64) {
	for _, t := range d.owned {
		n += int64(t.Bytes())
	}
	return n
}

// Free gives back the plan's memory.
func (d *decode) Free() {
	for _, t := range d.owned {
		d.b.Free(t)
	}
	d.owned = nil
}

// Choose says among which tokens Greedy chooses.
func (d *decode) Choose(c kernels.Choice) error {
	d.state.Allowed, d.state.Seen, d.state.Penalty = 0, 0, c.Penalty
	if c.Allowed != nil {
		d.state.Allowed = d.allowed.Addr
		d.b.Upload(d.allowed, words(c.Allowed))
	}
	if c.Penalty != 1 {
		d.state.Seen = d.seen.Addr
		d.b.Upload(d.seen, words(c.Seen))
	}
	return d.b.Sync()
}

func words(bits []uint32) []byte {
	signed := make([]int32, len(bits))
	for i, w := range bits {
		signed[i] = int32(w)
	}
	return kernels.AsBytes(signed)
}

// Logits appends a token and copies what follows it.
func (d *decode) Logits(logits []float32, token int32, first, position int) error {
	d.run(1, token, first, position)
	d.b.Download(kernels.AsBytes(logits), d.logits)
	return d.b.Sync()
}

// Greedy appends tokens, each the likeliest after the one before it.
func (d *decode) Greedy(chosen []int32, token int32, first, position int) error {
	for len(chosen) > 0 {
		n := min(len(chosen), greedyAhead)
		d.run(n, token, first, position)
		d.b.Download(kernels.AsBytes(chosen[:n]), kernels.Tensor{DType: kernels.I32, Rows: 1, Cols: n, Addr: d.chosen.Addr})
		if err := d.b.Sync(); err != nil {
			return err
		}
		token, position, chosen = chosen[n-1], position+n, chosen[n:]
	}
	return nil
}

// run queues steps, each of which appends the token that the one before it chose.
func (d *decode) run(steps int, token int32, first, position int) {
	d.state.Token, d.state.Position, d.state.First, d.state.Step = token, int32(position), int32(first), 0
	d.b.Upload(d.stateAt, planBytes(d.state))
	if b := d.b; b.failed == nil {
		d.kernel.args[3] = number(steps)
		b.fail(b.dev.launch(d.kernel))
	}
}

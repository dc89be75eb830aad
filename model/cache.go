package model

import (
	"fmt"

	"quartet/kernels"
)

// prefillTokens is how many packed tokens Extend runs through the model at once: as many as take the memory of 512 in float32.
func prefillTokens(act kernels.DType) int { return 2048 / act.Bytes(1) }

// Cache holds the keys and values of several sequences, so that a new token costs one token's work. It belongs to the
// model that made it and to one goroutine.
type Cache struct {
	pass     *Pass
	k, v     []kernels.Tensor // of each layer: (sequences·capacity, KV·d)
	capacity int              // tokens a sequence
	length   []int            // tokens of each sequence so far
	logits   [][]float32
	decode   kernels.Decode // the step of one sequence's next token as one piece of work; nil where the backend has none
}

// NewCache reserves the keys and values of a number of sequences of up to capacity tokens each.
func (m *Model) NewCache(sequences, capacity int) (*Cache, error) {
	if capacity > m.Config.MaxPositions {
		return nil, fmt.Errorf("reserve a cache of %d tokens: max_position_embeddings is %d; shorten the prompt or lower max_new_tokens", capacity, m.Config.MaxPositions)
	}
	pass, err := m.newPass(max(sequences, min(prefillTokens(m.backend.Activations()), sequences*capacity)), capacity, PassOptions{})
	if err != nil {
		return nil, err
	}
	c := &Cache{pass: pass, capacity: capacity, length: make([]int, sequences), logits: make([][]float32, sequences)}
	keys := m.Config.KVHeads * m.Config.HeadDim()
	for range m.Layers {
		for _, into := range []*[]kernels.Tensor{&c.k, &c.v} {
			t, err := m.backend.Alloc(m.backend.Activations(), sequences*capacity, keys)
			if err != nil {
				c.Close()
				return nil, fmt.Errorf("reserve keys and values of %d × %d tokens: %w", sequences, capacity, err)
			}
			*into = append(*into, t)
		}
	}
	if err := c.planDecode(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close frees the cache's memory.
func (c *Cache) Close() {
	for _, t := range append(c.k, c.v...) {
		c.pass.b.Free(t)
	}
	c.k, c.v = nil, nil
	if c.decode != nil {
		c.decode.Free()
		c.decode = nil
	}
	c.pass.Close()
}

// Bytes is the memory of the keys, the values and the pass that fills them.
func (c *Cache) Bytes() int64 {
	n := c.pass.Bytes()
	if c.decode != nil {
		n += c.decode.Bytes()
	}
	for _, t := range append(append([]kernels.Tensor{}, c.k...), c.v...) {
		n += int64(t.Bytes())
	}
	return n
}

// Len is the number of tokens of a sequence so far.
func (c *Cache) Len(sequence int) int { return c.length[sequence] }

// Reset forgets a sequence's tokens.
func (c *Cache) Reset(sequence int) { c.length[sequence] = 0 }

// Extend appends ids[i] (one or more tokens) to sequence sequences[i], for all i in one batch, and returns each one's
// logits (V) after its last token. They are valid until the next call. A sequence may occur once in a call.
func (c *Cache) Extend(sequences []int, ids [][]int32) ([][]float32, error) {
	p := c.pass
	type piece struct{ index, from, to int }
	var pieces []piece
	room := p.max
	flush := func() error {
		h, flat, slots := &p.run.host, []int32{}, []int32{}
		h.positions, h.spans, h.tokens = h.positions[:0], h.spans[:0], h.tokens[:0]
		var want []int32
		var ends []int
		for _, e := range pieces {
			seq := sequences[e.index]
			for _, id := range ids[e.index][e.from:e.to] {
				at := c.length[seq]
				flat = append(flat, id)
				slots = append(slots, int32(seq*c.capacity+at))
				h.positions = append(h.positions, int32(at))
				h.spans = append(h.spans, int32(seq*c.capacity), int32(at+1))
				c.length[seq]++
			}
			if e.to == len(ids[e.index]) {
				want, ends = append(want, int32(len(flat)-1)), append(ends, e.index)
			}
		}
		p.run.cache = c
		if err := p.upload(flat, nil); err != nil {
			return err
		}
		p.run.slots = head(p.slots, len(slots))
		p.b.Upload(p.run.slots, kernels.AsBytes(slots))
		if err := p.forward(nil); err != nil {
			return err
		}
		pieces, room = pieces[:0], p.max
		return p.visitLogits(want, func(i int, logits []float32) {
			c.logits[ends[i]] = append(c.logits[ends[i]][:0], logits...)
		})
	}
	for i, seq := range sequences {
		if len(ids[i]) == 0 || c.length[seq]+len(ids[i]) > c.capacity {
			return nil, fmt.Errorf("extend sequence %d of %d tokens by %d: the cache holds %d", seq, c.length[seq], len(ids[i]), c.capacity)
		}
		if c.decode != nil && len(sequences) == 1 && len(ids[i]) == 1 {
			return c.next(seq, ids[i][0])
		}
		for from := 0; from < len(ids[i]); {
			to := min(len(ids[i]), from+room)
			pieces = append(pieces, piece{i, from, to})
			room -= to - from
			from = to
			if room == 0 {
				if err := flush(); err != nil {
					return nil, err
				}
			}
		}
	}
	if len(pieces) > 0 {
		if err := flush(); err != nil {
			return nil, err
		}
	}
	return c.logits[:len(sequences)], nil
}

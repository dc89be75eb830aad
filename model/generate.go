package model

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// GenerateOptions say how far and how to continue prompts.
type GenerateOptions struct {
	MaxNew   int                             // tokens at most
	Stop     []int32                         // tokens that end an answer; they are not part of it
	Allowed  func(id int32) bool             // tokens that may be produced, nil for all rows of the vocabulary
	Batch    int                             // prompts answered at once, at least 1
	OnToken  func(prompt int, id int32) bool // told of each token; false ends that answer. May be nil
	OnDone   func(prompt int, g Generation)  // told when an answer is complete. May be nil
	Sampling                                 // the draws of prompt i depend on the seed, i and the token's place alone
}

// Generation is one prompt's answer. The times are meaningful when prompts are answered one at a time.
type Generation struct {
	IDs     []int32
	Stopped bool          // a stop token or OnToken ended it, not MaxNew
	First   time.Duration // from the start to the first token: the prompt's whole prefill
	Decode  time.Duration // for the tokens after the first
}

// Generate answers prompts, up to Batch of them at a time; a finished one makes place for the next. An empty prompt is
// an error. A cancelled context ends it between tokens with the context's error and the answers so far.
func (m *Model) Generate(ctx context.Context, prompts [][]int32, o GenerateOptions) ([]Generation, error) {
	done := make([]Generation, len(prompts))
	if len(prompts) == 0 || o.MaxNew <= 0 {
		return done, nil
	}
	longest := 0
	for i, p := range prompts {
		if len(p) == 0 {
			return nil, fmt.Errorf("generate: prompt %d has no tokens", i)
		}
		longest = max(longest, len(p))
	}
	batch := min(max(o.Batch, 1), len(prompts))
	cache, err := m.NewCache(batch, longest+o.MaxNew)
	if err != nil {
		return nil, err
	}
	defer cache.Close()

	type slot struct {
		prompt  int // -1 when free
		next    []int32
		seen    map[int32]struct{}
		started time.Time
		first   time.Time
	}
	slots := make([]slot, batch)
	for i := range slots {
		slots[i].prompt = -1
	}
	// accept takes the next token of a slot's answer, and reports whether the answer goes on.
	accept := func(s *slot, id int32) bool {
		g := &done[s.prompt]
		if s.first.IsZero() {
			s.first = time.Now()
			g.First = s.first.Sub(s.started)
		}
		g.Stopped = slices.Contains(o.Stop, id)
		if !g.Stopped {
			g.IDs = append(g.IDs, id)
			g.Stopped = o.OnToken != nil && !o.OnToken(s.prompt, id)
		}
		if g.Stopped || len(g.IDs) == o.MaxNew {
			g.Decode = time.Since(s.first)
			if o.OnDone != nil {
				o.OnDone(s.prompt, *g)
			}
			s.prompt = -1
			return false
		}
		s.seen[id] = struct{}{}
		s.next = []int32{id}
		return true
	}
	waiting := 0
	for {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		var active []int
		var ids [][]int32
		for i := range slots {
			s := &slots[i]
			if s.prompt < 0 && waiting < len(prompts) {
				*s = slot{prompt: waiting, next: prompts[waiting], seen: map[int32]struct{}{}, started: time.Now()}
				for _, id := range prompts[waiting] {
					s.seen[id] = struct{}{}
				}
				cache.Reset(i)
				waiting++
			}
			if s.prompt >= 0 {
				active, ids = append(active, i), append(ids, s.next)
			}
		}
		if len(active) == 0 {
			return done, nil
		}
		if s := &slots[0]; batch == 1 && len(done[s.prompt].IDs) > 0 && cache.canRunAhead(o.Sampling) {
			if err := cache.runAhead(ctx, s.next[0], s.seen, &o, func(id int32) bool { return accept(s, id) }); err != nil {
				return done, err
			}
			continue
		}
		logits, err := cache.Extend(active, ids)
		if err != nil {
			return done, err
		}
		for n, i := range active {
			s := &slots[i]
			accept(s, o.choose(logits[n], s.seen, o.Allowed, [2]uint32{uint32(s.prompt), uint32(len(done[s.prompt].IDs))}))
		}
	}
}
